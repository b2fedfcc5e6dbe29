"""The checks. Pure: facts → findings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Final

from nosana_operator.doctor.checks.cluster import cluster_findings
from nosana_operator.doctor.checks.gpus import gpu_findings
from nosana_operator.doctor.checks.markets import market_findings
from nosana_operator.doctor.checks.networks import network_findings
from nosana_operator.doctor.checks.settings import settings_findings
from nosana_operator.doctor.facts import Facts
from nosana_operator.doctor.finding import Finding

_SHORTEST_KEY: Final = 12


def examine(facts: Facts) -> tuple[Finding, ...]:
    """All findings, ordered so that causes come before their effects."""
    keys = set(_possible_keys(facts))
    return tuple(
        dataclasses.replace(finding, message=_without(keys, finding.message))
        for finding in (
            *settings_findings(facts),
            *cluster_findings(facts),
            *gpu_findings(facts),
            *network_findings(facts),
            *market_findings(facts),
        )
    )


def _possible_keys(facts: Facts) -> Iterator[str]:
    """The parts of the settings' URLs that may be an API key: services repeat it when they refuse it."""
    for network in facts.settings.networks.values():
        pins = [pin.url for pin in network.ipfs.pin]
        for url in (*network.rpc, *network.ws, *network.ipfs.gateways, *pins):
            host, _, rest = url.partition("://")[2].partition("/")
            secret = f"{host.rpartition('@')[0]}/{rest}"
            yield from (part for part in re.split(r"[/?&=#:]", secret) if len(part) >= _SHORTEST_KEY)


def _without(keys: set[str], text: str) -> str:
    for key in keys:
        text = text.replace(key, "…")
    return text
