"""docs/metrics.md, written from the declared families: the page cannot tell of others than are served."""

from __future__ import annotations

from typing import Final

from nosana_operator.runtime.metrics import chain_metrics, object_metrics
from nosana_operator.runtime.metrics.families import PREFIX, Family
from nosana_operator.runtime.metrics.operator_metrics import WATCH_AGE, OperatorMetrics

_HEAD: Final = f"""# Metrics
<!-- Written by `nosana-operator metrics`; edit the texts in operator/nosana_operator/runtime. -->

Served at `/metrics` on the port of `metrics.port` ([settings](settings.md)), beside `/healthz` and `/readyz`.
[charts/nosana-operator](../charts/nosana-operator) brings a ServiceMonitor or PodMonitor, the alerts (each with a
[runbook](runbooks)) and a Grafana dashboard. The usual `process_*` and `python_*` families are there too.

- All names begin with `{PREFIX}_`. Durations are seconds, NOS is NOS, SOL is lamports (10^-9 SOL).
- No series is per job: labels are bounded by your markets, keys, RPC nodes, kinds and phases. `market` is the
  address on chain; it is empty for private jobs.
- **Counters begin at zero with each process.** A settled run is counted once, by the process that saw it become
  final; nothing is made up at a start. So use `rate()` and `increase()`, which know of restarts, over `sum`:
  `sum by (market) (increase({PREFIX}_earned_nos_total[7d]))`. What was earned ever, whatever became of the
  processes, tells `nosana-operator earnings`, from the chain.
- With several replicas all of them serve gauges of what the API server tells; so take the `max`, not the `sum`:
  `max without (instance, pod) ({PREFIX}_slots)`. Only the leader has figures of the chain and of the keys.
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
            "wallet_balance_lamports",
            "wallet_balance_nos",
            "wallet_stake_xnos",
            "solana_fees_lamports",
        ),
    ),
    ("Chain", ("solana_",)),
    ("Internals", ("",)),
)
"""Titles with the names, or beginnings of names, that come below them; a family comes below the first."""


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
        here = [family for _, family in sorted(ranked, key=lambda each: each[0])]
        left = [family for family in left if family not in here]
        parts.append(f"\n## {title}\n| name | type | labels | what it tells |\n|---|---|---|---|\n")
        parts += [
            f"| `{family.full_name}` | {family.type} | {', '.join(family.labels) or '–'} | {family.text} |\n"
            for family in here
        ]
    return "".join(parts)


def _belongs(family: Family, name: str) -> bool:
    """A whole name, or a beginning that ends in an underscore or is empty."""
    return family.name.startswith(name) if name.endswith("_") or not name else family.name == name
