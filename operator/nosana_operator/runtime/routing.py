"""Which keys a change concerns. Pure but for what the capacity watch remembers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.runtime.watching import Change

ObjectKey = tuple[str, str]
"""(namespace, name)."""


def job_key(change: Change) -> ObjectKey | None:
    """The NosanaJob that the job controller has to look at, if any: itself, or the one that owns the pod."""
    metadata = change.body["metadata"]
    if change.kind == JOB_KIND:
        return metadata["namespace"], metadata["name"]
    if change.kind == "Pod":
        owner = (metadata.get("labels") or {}).get(LABEL_JOB)
        if owner:
            return metadata["namespace"], owner
    return None


def market_key(change: Change) -> ObjectKey | None:
    """The NosanaMarket that the market host has to look at, if any: itself, or the one a job came through."""
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
    """Whether a NosanaJob says that it is a run's."""
    spec = body.get("spec")
    return isinstance(spec, dict) and isinstance(spec.get("run"), dict)


class CapacityWatch:
    """Tells whether a change of a node or pod moves what the cluster can hold.

    Most do not: nodes report their health all the time, and of a pod only being placed and ending count.
    """

    def __init__(self) -> None:
        self._seen: dict[str, object] = {}

    def moved(self, change: Change) -> bool:
        """Remember the change; True when it is one of capacity."""
        if change.kind == "Pod":
            mark: object = _pod_mark(change.body)
        elif change.kind == "Node":
            mark = _node_mark(change.body)
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
    """The latest epoch that stands in these NosanaMarkets, or in an intent; 0 when there is none."""
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
"""Seconds in which changes of capacity are gathered before the markets look: pods come and go in bursts."""


class Router:
    """Passes each change on to the queues, once somebody works on them."""

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

    def open(self) -> None:
        """The workers begin: with all that is known, and from now on with each change."""
        self._open = True
        for kind in ("Pod", "Node", JOB_KIND, MARKET_KIND):
            for body in self._cache.list(kind):
                self(Change(kind, body))

    def __call__(self, change: Change) -> None:
        """Enqueue every object that the change concerns; nothing before `open`."""
        if not self._open:
            return
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
        """A run, job or market account changed: whoever goes by it looks."""
        label = {"run": LABEL_RUN, "job": LABEL_CHAIN_JOB}.get(kind)
        known = self._cache.by_index(JOB_KIND, label, address) if label else []
        for body in known:
            self._runs.add((body["metadata"]["namespace"], body["metadata"]["name"]))
        if not known or kind != "job":
            for body in self._cache.list(MARKET_KIND):
                key = body["metadata"]["namespace"], body["metadata"]["name"]
                if kind != "market" or (body.get("spec") or {}).get("address") == address:
                    self._markets.add(key)
                else:
                    # It may share nodes: a slot came free for it, or a job waits that goes before its standing.
                    self._markets.add_after(key, _CAPACITY_DEBOUNCE)
