"""What Prometheus sees. One registry of our own; the other rooms get small observers and know nothing of it.

Names begin with `nosana_operator_`; durations are seconds, NOS amounts base units (10^-6 NOS). There is no
series per job: labels are bounded by markets, kinds and phases.
"""

from __future__ import annotations

import platform
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

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
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nosana_operator.runtime.queue import Result, WorkQueue

_PREFIX = "nosana_operator"
_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PROMISED = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
"""Buckets around the bounds that are promised: 1 s from run to pod, 2 s from the end to `finish`."""
_RPC = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

Body = Mapping[str, Any]


class OperatorMetrics:
    """All metrics of the process. Build one per process, or one per test."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self._gauge("build_info", "1, with the versions as labels.", "version", "python_version")
        build.labels(metadata.version("nosana-operator"), platform.python_version()).set(1)

        self._reconciles = self._counter(
            "reconcile",
            "Reconciliations by how they ended: success, requeue (asked to be called again), retry (failed).",
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
            "workqueue_longest_running_processor_seconds", "Age of the oldest work at hand.", "queue"
        )

        self._kube_requests = self._counter(
            "kubernetes_requests",
            'Requests to the Kubernetes API, watches left out; code "none" is no answer.',
            "verb",
            "kind",
            "code",
        )
        self._kube_seconds = self._histogram(
            "kubernetes_request_duration_seconds", "Duration of such requests.", _FAST, "verb"
        )
        self._watch_events = self._counter(
            "watch_events", "Watch events by kind and type (LISTED is from a listing).", "kind", "type"
        )

        self._rpc_requests = self._counter(
            "solana_rpc_requests", "Requests to Solana RPC endpoints by outcome.", "method", "outcome"
        )
        self._rpc_seconds = self._histogram(
            "solana_rpc_request_duration_seconds", "Duration of such requests.", _RPC, "method"
        )

        self._leader = self._gauge(
            "leader", "1 in the process that works, 0 in one that stands by to take over."
        )
        self._loop_lag = self._gauge(
            "event_loop_lag_seconds", "How late the event loop ran a timer, when last looked at."
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
        self._settled = self._counter(
            "settled_runs", "Runs settled at finalized, by kind of transaction.", "market", "kind"
        )
        self._earned = self._counter("nos_earned", "NOS base units earned by settled runs.", "market")
        self._refunded = self._counter(
            "nos_refunded", "NOS base units that settled runs gave back to posters.", "market"
        )
        self._paid_seconds = self._counter(
            "paid_seconds", "Seconds that settled runs were paid for.", "market"
        )

    def queue(self, name: str, kind: str) -> QueueMetrics:
        """An observer for a work queue (`runtime.queue.QueueObserver`)."""
        return QueueMetrics(self, name, kind)

    def watch_queue(self, queue: WorkQueue[Any]) -> None:
        """Have a queue's depth and oldest work read at each scrape."""
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
        """A request to a Solana endpoint ended; `outcome` is a word of the chain room's."""
        self._rpc_requests.labels(method, outcome).inc()
        self._rpc_seconds.labels(method).observe(seconds)

    def leader(self, leads: bool) -> None:
        """This process leads from now on, or does not."""
        self._leader.set(leads)

    def loop_lag(self, seconds: float) -> None:
        """The event loop ran a timer so late."""
        self._loop_lag.set(seconds)

    def run_to_pod(self, seconds: float) -> None:
        """A run's first pod was created so long after its run account was seen."""
        self._run_to_pod.observe(max(0.0, seconds))

    def finish_sent(self, market: str, seconds: float) -> None:
        """A settlement was sent so long after the last container was seen terminated."""
        self._end_to_finish.labels(market).observe(max(0.0, seconds))

    def settled(self, market: str, kind: str, earned: int, refunded: int, seconds: int) -> None:
        """A run is settled at finalized; amounts in NOS base units."""
        self._settled.labels(market, kind).inc()
        self._earned.labels(market).inc(earned)
        self._refunded.labels(market).inc(refunded)
        self._paid_seconds.labels(market).inc(seconds)

    def expose_objects(
        self, jobs: Callable[[], Iterable[Body]], markets: Callable[[], Iterable[Body]]
    ) -> None:
        """Have jobs and slots counted at each scrape from the cached NosanaJobs and NosanaMarkets."""
        self.registry.register(_ObjectCollector(jobs, markets))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)


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


class _ObjectCollector(Collector):
    """Counts at scrape time, so that a series goes when its last object goes."""

    def __init__(self, jobs: Callable[[], Iterable[Body]], markets: Callable[[], Iterable[Body]]) -> None:
        self._jobs = jobs
        self._markets = markets

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        phases: Tally[tuple[str, str]] = Tally()
        for job in self._jobs():
            market = str(((job.get("spec") or {}).get("run") or {}).get("market") or "")
            phases[market, str((job.get("status") or {}).get("phase") or "Pending")] += 1
        jobs = GaugeMetricFamily(
            f"{_PREFIX}_jobs",
            "NosanaJobs by the address of their market (empty: private jobs) and phase.",
            labels=("market", "phase"),
        )
        for labels, count in sorted(phases.items()):
            jobs.add_metric(labels, count)
        yield jobs

        slots = GaugeMetricFamily(
            f"{_PREFIX}_slots", "Slots of a market by state.", labels=("namespace", "name", "market", "state")
        )
        for market_body in self._markets():
            meta = market_body["metadata"]
            address = str((market_body.get("spec") or {}).get("address") or "")
            status = (market_body.get("status") or {}).get("slots") or {}
            for state in ("total", "free", "standing", "running"):
                if state in status:
                    slots.add_metric((meta["namespace"], meta["name"], address, state), status[state])
        yield slots

    def describe(self) -> Iterable[Metric]:
        """Nothing: asking for the families at registration would read a cache that is not filled yet."""
        return ()
