"""docs/metrics.md, generated from the declared families, so that it lists exactly what is served."""

from __future__ import annotations

from typing import Final

from nosana_operator.runtime.metrics import chain_metrics, object_metrics
from nosana_operator.runtime.metrics.family import PREFIX, Family
from nosana_operator.runtime.metrics.operator_metrics import WATCH_AGE, OperatorMetrics

_HEAD: Final = f"""# Metrics
<!-- Written by `nosana-operator metrics`; edit the texts in operator/nosana_operator/runtime. -->

Served at `/metrics` on the port of `metrics.port` ([settings](settings.md)), beside `/healthz` and `/readyz`.
[charts/nosana-operator](../charts/nosana-operator) brings a ServiceMonitor or PodMonitor, the alerts (each with a
[runbook](runbooks)) and a Grafana dashboard. The usual `process_*` and `python_*` families are there too.

- All names begin with `{PREFIX}_`. Durations are seconds, NOS is NOS, SOL is lamports (10^-9 SOL).
- No series is per job: labels are bounded by your markets, keys, RPC nodes, kinds and phases. `market` is the
  address on chain; it is empty for private jobs.
- **Counters start at zero in each process.** A settled run is counted once, by the process that saw it become
  final. So use `rate()` and `increase()`, which handle restarts, inside a `sum`:
  `sum by (market) (increase({PREFIX}_earned_nos_total[7d]))`. `nosana-operator earnings` reads from the chain what
  was earned in all, across restarts.
- With several replicas, only the leader exposes the gauges of jobs, markets, chain and keys. While leadership
  changes, two may do so for a moment: take the `max`, not the `sum`:
  `max without (instance, pod) ({PREFIX}_slots)`.
- RPC nodes are numbered, as their URLs may hold a key.
"""
_SECTIONS: Final = (
    ("Fleet", ("build_info", "leader", "slots", "wallet_state", "market_condition")),
    (
        "Markets",
        ("market_queue_length", "market_price_nos_per_second", "runs_matched", "unsettled_runs"),
    ),
    ("Jobs", ("jobs", "oldest_job_seconds", "job_start_duration_seconds", "run_to_pod_seconds")),
    (
        "Money",
        (
            "earned_nos",
            "refunded_nos",
            "paid_seconds",
            "settled_runs",
            "settlement_duration_seconds",
            "end_to_finish_seconds",
            "oldest_unsettled_run_seconds",
            "oldest_run_past_expiry_seconds",
            "wallet_balance_lamports",
            "wallet_balance_nos",
            "wallet_stake_xnos",
            "solana_fees_lamports",
        ),
    ),
    ("Chain", ("solana_",)),
    ("Internals", ("",)),
)
"""Titles with the names, or prefixes of names, below them; a family is listed below the first that matches."""


def families() -> list[Family]:
    """All families of the operator's own that `/metrics` serves."""
    return [*OperatorMetrics().families, WATCH_AGE, *object_metrics.FAMILIES, *chain_metrics.FAMILIES]


def metrics_page() -> str:
    """The page, as Markdown."""
    left = families()
    parts = [_HEAD]
    for title, names in _SECTIONS:
        ranked = [
            (rank, family) for family in left for rank, name in enumerate(names) if _belongs(family, name)
        ]
        section = [family for _, family in sorted(ranked, key=lambda each: each[0])]
        left = [family for family in left if family not in section]
        parts.append(f"\n## {title}\n| name | type | labels | what it tells |\n|---|---|---|---|\n")
        parts += [
            f"| `{family.full_name}` | {family.type} | {', '.join(family.labels) or '–'} | {family.text} |\n"
            for family in section
        ]
    return "".join(parts)


def _belongs(family: Family, name: str) -> bool:
    """Whether the name is the family's, or a prefix of it that ends in an underscore or is empty."""
    return family.name.startswith(name) if name.endswith("_") or not name else family.name == name
