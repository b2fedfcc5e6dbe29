"""Pure: what was found out → what is said of it."""

from __future__ import annotations

from nosana_operator.cli.doctor.checks.cluster import cluster_findings
from nosana_operator.cli.doctor.checks.gpus import gpu_findings
from nosana_operator.cli.doctor.checks.markets import market_findings
from nosana_operator.cli.doctor.checks.networks import network_findings
from nosana_operator.cli.doctor.checks.settings import settings_findings
from nosana_operator.cli.doctor.facts import Facts
from nosana_operator.cli.doctor.finding import Finding


def examine(facts: Facts) -> tuple[Finding, ...]:
    """All findings, in the order in which things build upon each other."""
    return (
        *settings_findings(facts),
        *cluster_findings(facts),
        *gpu_findings(facts),
        *network_findings(facts),
        *market_findings(facts),
    )
