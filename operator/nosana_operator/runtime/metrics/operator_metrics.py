"""The operator's metrics. The other rooms get small observers and know nothing of Prometheus.

Names begin with `nosana_operator_`; durations are seconds. The rooms report NOS in base units (10^-6), and
Prometheus gets NOS. There is no series per job: labels are bounded by markets, keys, kinds and phases.
docs/metrics.md lists all families (`nosana-operator metrics`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nosana_operator.runtime.metrics.family import PREFIX, Family
from nosana_operator.runtime.metrics.object_metrics import BASE_UNITS, Balance, Body, ObjectCollector
from nosana_operator.runtime.queue import Result, WorkQueue
from nosana_operator.transactions import PAID_SETTLEMENTS, TRANSACTION_KINDS

_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PROMISED = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
"""Buckets around the promised bounds: 1 s from run to pod, 2 s from the end to `finish`."""
_RPC = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_START = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""An image may be large, and so may what a job fetches."""
_SETTLE = (1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300, 900, 3600)
"""Finality alone takes some 13 s."""


WATCH_AGE = Family(
    "watch_age_seconds",
    "gauge",
    "Time since the watch of a kind received anything: an event, a bookmark (one a minute), or its first answer.",
    ("kind",),
)


class Funds(Protocol):
    """What a key has, in base units; `xnos` None: no stake account."""

    @property
    def lamports(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def nos(self) -> int: ...  # noqa: D102
    @property
    def xnos(self) -> int | None: ...  # noqa: D102


class OperatorMetrics:
    """All metrics of the process. Build one per process, or one per test."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self.families: list[Family] = []
        """The families declared here; the collectors that read at each scrape declare theirs."""
        self._balances: dict[tuple[str, str], Balance] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self._gauge("build_info", "1, with the versions as labels.", "version", "python_version")
        build.labels(metadata.version("nosana-operator"), platform.python_version()).set(1)

        self._reconciles = self._counter(
            "reconcile",
            "Reconciliations by how they ended: success, requeue (to run again later), retry (failed).",
            "kind",
            "result",
        )
        self._reconcile_seconds = self._histogram(
            "reconcile_duration_seconds", "How long a reconciliation took.", _FAST, "kind"
        )
        self._queue_adds = self._counter("workqueue_adds", "Keys added to a work queue.", "queue")
        self._queue_retries = self._counter("workqueue_retries", "Keys retried after a failure.", "queue")
        self._queue_wait = self._histogram(
            "workqueue_queue_duration_seconds", "How long a key waited for a worker.", _FAST, "queue"
        )
        self._queue_depth = self._gauge("workqueue_depth", "Keys that wait for a worker.", "queue")
        self._queue_longest = self._gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the oldest running reconciliation has run.",
            "queue",
        )

        self._kube_requests = self._counter(
            "kubernetes_requests",
            'Requests to the Kubernetes API, watches left out; code "none" is no answer.',
            "verb",
            "kind",
            "code",
        )
        self._kube_seconds = self._histogram(
            "kubernetes_request_duration_seconds",
            "Duration of requests to the Kubernetes API.",
            _FAST,
            "verb",
        )
        self._watch_events = self._counter(
            "watch_events", "Watch events by kind and type (LISTED is from a listing).", "kind", "type"
        )

        self._rpc_requests = self._counter(
            "solana_rpc_requests", "Requests to Solana RPC endpoints by outcome.", "method", "outcome"
        )
        self._rpc_seconds = self._histogram(
            "solana_rpc_request_duration_seconds",
            "Duration of requests to Solana RPC endpoints.",
            _RPC,
            "method",
        )

        self._leader = self._gauge("leader", "1 in the process that leads, 0 in one that stands by.")
        self._loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop ran a timer, measured once a second.", _LAG
        )
        self._run_to_pod = self._histogram(
            "run_to_pod_seconds", "From seeing a run account to having created its first pod.", _PROMISED
        )
        self._end_to_finish = self._histogram(
            "end_to_finish_seconds",
            "From seeing the last container terminated to having sent the settlement.",
            _PROMISED,
            "market",
        )
        self._settlement_seconds = self._histogram(
            "settlement_duration_seconds",
            "From the end of a run's job to its settlement at finalized.",
            _SETTLE,
            "market",
        )
        self._start_seconds = self._histogram(
            "job_start_duration_seconds",
            "The start of a job by step, each measured from the step before: accepted, scheduled, pulled, fetched, "
            "started, ready. The first counts from the match, for a private job from its creation.",
            _START,
            "step",
        )
        self._matched = self._counter(
            "runs_matched",
            "Runs that a market matched with a key of ours and for which a job was made.",
            "market",
        )
        self._settled = self._counter(
            "settled_runs", "Paid runs settled at finalized, by kind of transaction.", "market", "kind"
        )
        self._earned = self._counter("earned_nos", "NOS earned by settled runs.", "market")
        self._refunded = self._counter(
            "refunded_nos", "NOS that settled runs gave back to posters.", "market"
        )
        self._paid_seconds = self._counter(
            "paid_seconds", "Seconds that settled runs were paid for.", "market"
        )
        self._transactions = self._counter(
            "solana_transactions",
            "Transactions of our keys by outcome: landed, failed (in a block, with an error), expired.",
            "network",
            "kind",
            "outcome",
        )
        self._fees = self._counter(
            "solana_fees_lamports",
            "Fees of our keys' transactions that got into a block, with priority fees, in lamports (10^-9 SOL).",
            "network",
            "kind",
        )

    def queue(self, name: str, kind: str) -> QueueMetrics:
        """An observer for a work queue (`runtime.queue.QueueObserver`)."""
        return QueueMetrics(self, name, kind)

    def watch_queue(self, queue: WorkQueue[Any]) -> None:
        """Read a queue's depth and longest reconciliation at each scrape."""
        self._queue_depth.labels(queue.name).set_function(lambda: queue.depth)
        self._queue_longest.labels(queue.name).set_function(lambda: queue.longest_running)

    def kubernetes_request(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """A request to the API server ended (`kube.client.Observer`)."""
        self._kube_requests.labels(verb, kind, code).inc()
        self._kube_seconds.labels(verb).observe(seconds)

    def watch_event(self, kind: str, type_: str | None) -> None:
        """A watch event came in; None is one from a listing."""
        self._watch_events.labels(kind, type_ or "LISTED").inc()

    def rpc_request(self, method: str, outcome: str, seconds: float) -> None:
        """A request to a Solana endpoint ended; `outcome` is one of `chain`'s words for it."""
        self._rpc_requests.labels(method, outcome).inc()
        self._rpc_seconds.labels(method).observe(seconds)

    def leader(self, leads: bool) -> None:
        """This process became the leader, or stopped being it."""
        self._leader.set(leads)

    def loop_lag(self, seconds: float) -> None:
        """The event loop ran a timer this late."""
        self._loop_lag.observe(seconds)

    def run_to_pod(self, seconds: float) -> None:
        """A run's first pod was created this long after its run account was seen."""
        self._run_to_pod.observe(max(0.0, seconds))

    def finish_sent(self, market: str, seconds: float) -> None:
        """A settlement was sent this long after the last container was seen terminated."""
        self._end_to_finish.labels(market).observe(max(0.0, seconds))

    def start_step(self, step: str, seconds: float) -> None:
        """A job reached `step` of its start this long after the step before."""
        self._start_seconds.labels(step).observe(max(0.0, seconds))

    def matched(self, market: str) -> None:
        """A job was created for a run of the market."""
        self._matched.labels(market).inc()

    def settled(
        self, market: str, kind: str, earned: int, refunded: int, seconds: int, *, took: float
    ) -> None:
        """A run is settled at finalized, `took` seconds after its job ended; amounts in NOS base units."""
        self._settled.labels(market, kind).inc()
        self._earned.labels(market).inc(earned / BASE_UNITS)
        self._refunded.labels(market).inc(refunded / BASE_UNITS)
        self._paid_seconds.labels(market).inc(seconds)
        self._settlement_seconds.labels(market).observe(max(0.0, took))

    def funds(self, network: str, key: str, funds: Funds) -> None:
        """A key's balances were read."""
        self._balances[network, key] = Balance(funds.lamports, funds.nos, funds.xnos or 0)

    def transaction(self, network: str, kind: str, outcome: str, fee: int) -> None:
        """A transaction that this process signed has an outcome; its fee in lamports, 0 when none was paid."""
        self._transactions.labels(network, kind, outcome).inc()
        self._fees.labels(network, kind).inc(fee)

    def expose_objects(
        self, jobs: Callable[[], Iterable[Body]], markets: Callable[[], Iterable[Body]]
    ) -> None:
        """Count the cached NosanaJobs and NosanaMarkets at each scrape."""

        def begun() -> Iterable[Body]:
            for body in markets():
                self._begin_market(str((body.get("spec") or {}).get("address") or ""))
                yield body

        self.registry.register(ObjectCollector(jobs, begun, self._balances))

    def begin_network(self, name: str) -> None:
        """Start the counters of a network at zero: `increase()` ignores the first value of a series."""
        for kind in TRANSACTION_KINDS:
            self._transactions.labels(name, kind, "landed")
            self._fees.labels(name, kind)

    def _begin_market(self, address: str) -> None:
        """As `begin_network`, so that `increase()` counts the first payment too."""
        for counter in (self._matched, self._earned, self._refunded, self._paid_seconds):
            counter.labels(address)
        for kind in PAID_SETTLEMENTS:
            self._settled.labels(address, kind)
        for histogram in (self._end_to_finish, self._settlement_seconds):
            histogram.labels(address)

    def expose_watches(self, ages: Callable[[], Mapping[str, float]]) -> None:
        """Read the age of each kind's watch at each scrape, in seconds."""
        self.registry.register(_WatchCollector(ages))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        self.families.append(Family(name, "counter", text, labels))
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.families.append(Family(name, "gauge", text, labels))
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self.families.append(Family(name, "histogram", text, labels))
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


class _WatchCollector(Collector):
    """Reads the watched kinds at each scrape, because watches may begin at any time."""

    def __init__(self, ages: Callable[[], Mapping[str, float]]) -> None:
        self._ages = ages

    def collect(self) -> Iterable[Metric]:
        """The family with its current values."""
        metric = WATCH_AGE.collected()
        for kind, seconds in sorted(self._ages().items()):
            metric.add_metric((kind,), seconds)
        yield metric


class QueueMetrics:
    """Observer of one work queue whose keys are objects of one kind."""

    def __init__(self, metrics: OperatorMetrics, name: str, kind: str) -> None:
        self._adds = metrics._queue_adds.labels(name)
        self._retries = metrics._queue_retries.labels(name)
        self._wait = metrics._queue_wait.labels(name)
        self._seconds = metrics._reconcile_seconds.labels(kind)
        results: tuple[Result, ...] = ("success", "requeue", "retry")
        self._results = {result: metrics._reconciles.labels(kind, result) for result in results}

    def added(self) -> None:
        """See `QueueObserver`."""
        self._adds.inc()

    def started(self, waited: float) -> None:
        """See `QueueObserver`."""
        self._wait.observe(waited)

    def finished(self, result: Result, took: float) -> None:
        """See `QueueObserver`."""
        self._results[result].inc()
        self._seconds.observe(took)
        if result == "retry":
            self._retries.inc()
