"""Which work queue keys a change concerns. Pure, except that `CapacityWatch` remembers the last state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from nosana_operator.api import (
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_RUN,
    MARKET_KIND,
)
from nosana_operator.kube import (
    ObjectCache,
)
from nosana_operator.ports import Body
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.runtime.watching import Change

ObjectKey = tuple[str, str]
"""(namespace, name)."""


def job_key(change: Change) -> ObjectKey | None:
    """The NosanaJob to reconcile, if any: the changed object itself, or the job that owns the pod."""
    metadata = change.body["metadata"]
    if change.kind == JOB_KIND:
        return metadata["namespace"], metadata["name"]
    if change.kind == "Pod":
        owner = (metadata.get("labels") or {}).get(LABEL_JOB)
        if owner:
            return metadata["namespace"], owner
    return None


def market_key(change: Change) -> ObjectKey | None:
    """The NosanaMarket to reconcile, if any: the changed object itself, or the market that a job came through."""
    if change.kind == MARKET_KIND:
        metadata = change.body["metadata"]
        return metadata["namespace"], metadata["name"]
    if change.kind == JOB_KIND:
        spec = change.body.get("spec")
        run = spec.get("run") if isinstance(spec, dict) else None
        ref = run.get("marketRef") if isinstance(run, dict) else None
        if isinstance(ref, dict) and ref.get("namespace") and ref.get("name"):
            return str(ref["namespace"]), str(ref["name"])
    return None


def is_run(body: Mapping[str, Any]) -> bool:
    """Whether a NosanaJob claims to be a run of a market (`spec.run`)."""
    spec = body.get("spec")
    return isinstance(spec, dict) and isinstance(spec.get("run"), dict)


class CapacityWatch:
    """Reports whether a change of a node, pod or quota changes what the cluster can hold.

    Most changes do not: nodes report their health all the time, and a pod matters only when it is placed or ends.
    """

    def __init__(self) -> None:
        self._seen: dict[str, object] = {}

    def moved(self, change: Change) -> bool:
        """Remember the change; True when capacity changed."""
        if change.kind == "Pod":
            mark: object = _pod_mark(change.body)
        elif change.kind == "Node":
            mark = _node_mark(change.body)
        elif change.kind == "ResourceQuota":
            mark = repr((change.body.get("spec"), change.body.get("status")))
        else:
            return False
        uid = change.body["metadata"]["uid"]
        before = self._seen.get(uid)
        if change.deleted or mark is None:
            self._seen.pop(uid, None)
            return before is not None
        self._seen[uid] = mark
        return mark != before


def _pod_mark(pod: Mapping[str, Any]) -> object:
    """None for a pod that takes nothing from a node."""
    spec = pod.get("spec") or {}
    if not spec.get("nodeName") or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None
    return spec["nodeName"], tuple(_requests(spec))


def _requests(spec: Mapping[str, Any]) -> Iterable[str]:
    """Requests in a form that compares; they change in place since Kubernetes 1.35."""
    for owner in (spec, *spec.get("containers", ()), *spec.get("initContainers", ())):
        yield repr((owner.get("resources") or {}).get("requests"))


def _node_mark(node: Mapping[str, Any]) -> object:
    metadata = node["metadata"]
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    ready = [c.get("status") for c in status.get("conditions") or () if c.get("type") == "Ready"]
    return repr(
        (
            metadata.get("labels"),
            metadata.get("deletionTimestamp"),
            spec.get("unschedulable"),
            spec.get("taints"),
            status.get("allocatable"),
            ready,
        )
    )


def latest_epoch(jobs: Iterable[Mapping[str, Any]], markets: Iterable[Mapping[str, Any]]) -> int:
    """The latest epoch in these NosanaMarkets and in all intents; 0 when there is none."""
    return max((_epoch_of(one) for one in _bearers(jobs, markets)), default=0)


def _bearers(jobs: Iterable[Mapping[str, Any]], markets: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    for job in jobs:
        yield ((job.get("status") or {}).get("settlement") or {}).get("transaction")
    for market in markets:
        status = market.get("status") or {}
        yield from (status, *(status.get("transactions") or ()))


def _epoch_of(bearer: Any) -> int:
    epoch = bearer.get("epoch") if isinstance(bearer, dict) else None
    return epoch if isinstance(epoch, int) else 0


_CAPACITY_DEBOUNCE = 0.3
"""Seconds for which changes of capacity are collected before the markets are reconciled: pods come and go in
bursts."""


class Router:
    """Enqueues the objects that a change concerns, as soon as workers run."""

    def __init__(
        self,
        cache: ObjectCache,
        jobs: WorkQueue[ObjectKey],
        markets: WorkQueue[ObjectKey],
        runs: WorkQueue[ObjectKey],
    ) -> None:
        self._cache = cache
        self._jobs = jobs
        self._markets = markets
        self._runs = runs
        self._capacity = CapacityWatch()
        self._open = False
        self._observe_pod: Callable[[Body], None] = lambda pod: None

    def open(self, observe_pod: Callable[[Body], None] = lambda pod: None) -> None:
        """Enqueue everything in the cache, and from now on what each change concerns.

        `observe_pod` is called with every pod, now and when it changes.
        """
        self._open, self._observe_pod = True, observe_pod
        for kind in ("Pod", "Node", "ResourceQuota", JOB_KIND, MARKET_KIND):
            for body in self._cache.list(kind):
                self(Change(kind, body))

    def __call__(self, change: Change) -> None:
        """Enqueue every object that the change concerns; does nothing before `open`."""
        if not self._open:
            return
        if change.kind == "Pod":
            self._observe_pod(change.body)
        job = job_key(change)
        if job is not None:
            self._jobs.add(job)
        if change.kind == JOB_KIND and is_run(change.body):
            self._runs.add((change.body["metadata"]["namespace"], change.body["metadata"]["name"]))
        market = market_key(change)
        if change.kind == MARKET_KIND and market is not None:
            self._markets.add(market)
        elif market is not None:
            # A job of a run: it may have taken or freed a slot.
            self._markets.add_after(market, _CAPACITY_DEBOUNCE)
        if self._capacity.moved(change):
            for body in self._cache.list(MARKET_KIND):
                metadata = body["metadata"]
                self._markets.add_after((metadata["namespace"], metadata["name"]), _CAPACITY_DEBOUNCE)

    def chain_changed(self, kind: str, address: str) -> None:
        """Enqueue every object that depends on the run, job or market account that changed."""
        label = {"run": LABEL_RUN, "job": LABEL_CHAIN_JOB}.get(kind)
        jobs = self._cache.by_index(JOB_KIND, label, address) if label else []
        for body in jobs:
            self._runs.add((body["metadata"]["namespace"], body["metadata"]["name"]))
        if not jobs or kind != "job":
            for body in self._cache.list(MARKET_KIND):
                key = body["metadata"]["namespace"], body["metadata"]["name"]
                if kind != "market" or (body.get("spec") or {}).get("address") == address:
                    self._markets.add(key)
                else:
                    # This market may share nodes with the other one: a slot may have become free for it, or a
                    # job may now wait that has precedence over its place in the queue.
                    self._markets.add_after(key, _CAPACITY_DEBOUNCE)
