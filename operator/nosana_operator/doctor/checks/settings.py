"""The settings file: whether it can be read, and what the markets need that it lacks."""

from __future__ import annotations

from collections.abc import Iterator

from nosana_operator.doctor.facts import Facts, Unknown
from nosana_operator.doctor.finding import Finding, Subject


def settings_findings(facts: Facts) -> Iterator[Finding]:
    """Findings about the settings file."""
    check = Subject("settings")
    if facts.settings_problem is not None:
        yield check.failure(
            facts.settings_problem,
            "Correct the file (docs/settings.md); the checks below used the defaults.",
        )
        return
    settings = facts.settings
    has_markets = not isinstance(facts.markets, Unknown) and bool(facts.markets)
    if not settings.networks and has_markets:
        yield check.failure(
            "there are NosanaMarkets, but the settings have no network",
            "Add the network that their spec.network names, with `rpc` and `ipfs`, under `networks`.",
        )
    elif not settings.networks:
        yield check.ok("no network is configured: private jobs only")
    else:
        yield check.ok(f"the settings are valid; networks: {', '.join(sorted(settings.networks))}")
    if settings.fetch.image is None:
        yield check.warning(
            "fetch.image is unset: jobs whose definition has `resources` (models, data sets) are refused",
            "Set `fetch.image` to the nosana-fetch image.",
        )
