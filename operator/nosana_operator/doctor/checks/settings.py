"""The settings file, as far as it can be judged by itself and by who needs it."""

from __future__ import annotations

from collections.abc import Iterator

from nosana_operator.doctor.facts import Facts, Unknown
from nosana_operator.doctor.finding import Finding, Subject


def settings_findings(facts: Facts) -> Iterator[Finding]:
    """What the settings lack."""
    say = Subject("settings")
    if facts.settings_problem is not None:
        yield say.failure(
            facts.settings_problem,
            "Correct the file (docs/settings.md); what follows was looked at with the defaults.",
        )
        return
    settings = facts.settings
    has_markets = not isinstance(facts.markets, Unknown) and bool(facts.markets)
    if not settings.networks and has_markets:
        yield say.failure(
            "there are NosanaMarkets, and the settings have no network",
            "Add the network that their spec.network names, with `rpc` and `ipfs`, under `networks`.",
        )
    elif not settings.networks:
        yield say.ok("no network is set up: private jobs only")
    else:
        yield say.ok(f"they can be read; networks: {', '.join(sorted(settings.networks))}")
    if settings.fetch.image is None:
        yield say.warning(
            "fetch.image is unset: jobs whose definition has `resources` (models, data sets) are refused",
            "Set `fetch.image` to the nosana-fetch image.",
        )
