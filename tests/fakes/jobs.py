"""The job controller against the in-memory API, with a work queue, a kubelet and a market host that do as told."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fakes.edges import FakeClock, FakeIpfs, FakeProber, RecordedEvents, RecordedMetrics
from fakes.kube import FakeKube, FakeKubeClient, Request
from fakes.kubelet import FakeKubelet
from nosana_operator.api import (
    API_VERSION,
    FINALIZER_JOB,
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    LABEL_JOB_UID,
    Exposure,
    condition,
    condition_is_true,
    find_condition,
    micro_timestamp,
    timestamp,
)
from nosana_operator.api.result import read_result
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.results import Line, Search
from nosana_operator.errors import NosanaError
from nosana_operator.jobs import JobController, JobSettings, Key
from nosana_operator.kube import ObjectCache
from nosana_operator.workload import Fetching

NAMESPACE = "jobs"
CID = "QmTcNQ4dGq8veeg8v5cQyGoaJEPSYQnVTd1TvfckVFVzRu"
KEYS = [c * 40 for c in "ABCDEFG"]

Body = dict[str, Any]


def op(name: str, **more: Any) -> Body:
    """An op; `group`, `depends_on`, `timeout` go to `execution`, the rest to `args`."""
    execution = {k: more.pop(k) for k in ("group", "depends_on", "timeout") if k in more}
    made: Body = {"type": "container/run", "id": name, "args": {"image": "docker.io/library/x", **more}}
    return made | ({"execution": execution} if execution else {})


def definition(*ops: Body) -> Body:
    return {"version": "0.1", "type": "container", "ops": list(ops)}


def private_job(spec: Mapping[str, Any], name: str = "hello") -> Body:
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": dict(spec),
    }


def market_job(now: datetime, name: str = "run-a") -> Body:
    """As the market host makes it, definition on IPFS."""
    market, job, run, node, project, payer, run_payer = KEYS
    body = private_job({"definitionFrom": {"ipfs": CID}}, name)
    body["metadata"]["finalizers"] = [FINALIZER_JOB, FINALIZER_SETTLEMENT]
    body["spec"]["run"] = {
        "marketRef": {"namespace": "nosana-system", "name": "gpus"},
        "market": market,
        "job": job,
        "run": run,
        "node": node,
        "project": project,
        "payer": payer,
        "runPayer": run_payer,
        "price": 10,
        "startedAt": timestamp(now),
    }
    return body


@dataclass
class Lab:
    """One cluster, and the operator's processes one after the other."""

    clock: FakeClock = field(default_factory=FakeClock)
    exits: dict[int, int] = field(default_factory=dict)
    ipfs: FakeIpfs = field(default_factory=FakeIpfs)
    events: RecordedEvents = field(default_factory=RecordedEvents)
    metrics: RecordedMetrics = field(default_factory=RecordedMetrics)
    prober: FakeProber = field(default_factory=FakeProber)
    settles: bool = True
    """The market host settles what has ended."""
    expires_after: float = 3600.0
    guard: Callable[[], object] = lambda: None
    """What the process that is started next asks before each write (`kube.KubeClient`'s guard)."""
    later: Callable[[], bool] = lambda: False
    """Something that happens to the job once the time has come; True when it happened."""

    def __post_init__(self) -> None:
        self.kube = FakeKube(now=self.clock.now)
        self.kubelet = FakeKubelet(self.kube, self.clock.now, self.exits)
        self.dirty: set[Key] = set()
        self.due: dict[Key, datetime] = {}
        self.sleepers: list[tuple[datetime, asyncio.Event]] = []
        self.news = asyncio.Event()
        self.failures = 0
        self.boot()

    # ------------------------------------------------------------------ the process

    def boot(self) -> None:
        """Start a process: empty memory, a cache filled by listing."""
        self.kube.unwatch()
        self.cache = ObjectCache(("Pod", "Node", JOB_KIND), indexes={"Pod": (LABEL_JOB_UID,)})
        for kind in ("Pod", "Node", JOB_KIND):
            for body in self.kube.objects(kind):
                self.cache.put(copy.deepcopy(body))
        self.kube.watch(self._seen)
        self.dirty = {_key(body) for body in self.kube.objects(JOB_KIND)}
        self.due = {}
        self.sleepers = []
        self.controller = JobController(
            kube=FakeKubeClient(self.kube, self.guard, on_reply=self.cache.put),
            cache=self.cache,
            definitions=self.ipfs,
            events=self.events,
            metrics=self.metrics,
            clock=self.clock,
            prober=self.prober,
            settings=JobSettings("lab", Exposure(domain="test"), fetching=Fetching(image="fetcher:1")),
            match=self._match,
            wake=self.wake,
            sleep=self._sleep,
        )

    def wake(self, key: Key) -> None:
        self.dirty.add(key)
        self.news.set()

    async def _match(
        self, searches: Sequence[Search], lines: Sequence[Line], max_bytes: int, seconds: float
    ) -> Sequence[ResultValue]:
        """Python's dialect does for the tests."""
        found: list[ResultValue] = []
        for pattern, types in searches:
            captures: list[str | None] = []
            for kind, text in lines:
                if (types is None or kind in types) and (match := re.search(pattern, text)):
                    captures += [match[0], *match.groups()]
            found.append(captures)
        return found

    async def _sleep(self, seconds: float) -> None:
        """A wait of the process: over when the lab's clock is past it."""
        sleeper = (self.clock.now() + timedelta(seconds=seconds), asyncio.Event())
        self.sleepers.append(sleeper)
        self.news.set()
        await sleeper[1].wait()

    def _seen(self, kind: str, body: Body, deleted: bool) -> None:
        if kind not in ("Pod", JOB_KIND):
            return
        if deleted:
            self.cache.forget(kind, body)
        else:
            self.cache.put(body)
        if kind == JOB_KIND:
            self.wake(_key(body))
        else:
            labels = body["metadata"].get("labels") or {}
            self.wake((body["metadata"]["namespace"], labels.get("nosana.io/nosanajob", "")))

    async def work(self) -> None:
        """Reconcile until nothing is waiting."""
        while self.dirty:
            key = self.dirty.pop()
            try:
                again = await self.controller.reconcile(key)
            except NosanaError:
                self.failures += 1
                self.due[key] = self.clock.now() + timedelta(seconds=1)
                continue
            if again is None:
                self.due.pop(key, None)
            else:
                self.due[key] = self.clock.now() + timedelta(seconds=again)

    async def drive(self, until: Callable[[], bool], limit: int = 400) -> None:
        """Let the world turn until the condition holds: work, kubelet, market host, then time."""
        for _ in range(limit):
            self.news.clear()
            await self.work()
            if until():
                return
            if self.later() or self._settle() or self.kubelet.step() or self.dirty:
                continue
            if self._fetching():
                await asyncio.wait_for(self.news.wait(), 5)
                continue
            if not self.due and not self.sleepers:
                raise AssertionError(f"stuck: {json.dumps(self.statuses(), indent=1)}")
            self._pass_time()
        raise AssertionError(f"not reached: {json.dumps(self.statuses(), indent=1)}")

    def _fetching(self) -> bool:
        """Whether a task beside the queue is at work, and not merely waiting for time to pass."""
        entries = self.controller._loader._entries.values()
        tasks = [e.task for e in entries if e.task is not None]
        tasks += [
            t for job in self.controller._monitor._jobs.values() for w in job.ops.values() for t in w.tasks
        ]
        return sum(not task.done() for task in tasks) > len(self.sleepers)

    def _pass_time(self) -> None:
        moments = [*self.due.values(), *(until for until, _ in self.sleepers)]
        self.clock.moment = max(self.clock.moment, min(moments))
        for key in [k for k, at in self.due.items() if at <= self.clock.moment]:
            del self.due[key]
            self.dirty.add(key)
        for sleeper in [s for s in self.sleepers if s[0] <= self.clock.moment]:
            self.sleepers.remove(sleeper)
            sleeper[1].set()

    async def crash_and_reboot(self) -> None:
        await self.controller.close()
        self.boot()

    # ------------------------------------------------------------------ the market host

    def verify(self, name: str = "run-a") -> None:
        """Say that the run is as on chain, and when it expires."""
        end = self.clock.now() + timedelta(seconds=self.expires_after)
        self.market_says(
            name,
            "RunVerified",
            run={"timeout": 3600, "expiresAt": micro_timestamp(end)},
            timing={"matched": micro_timestamp(self.clock.now())},
        )

    def market_says(self, name: str, kind: str, *, status: bool = True, **more: Any) -> None:
        job = self.job(name)
        old = (job.get("status") or {}).get("conditions")
        new = condition(old, kind, status, "Said", "by the lab", generation=1, now=self.clock.now())
        others = [c for c in old or () if c["type"] != kind]
        timing = {**(job.get("status") or {}).get("timing", {}), **more.pop("timing", {})}
        patch = {"conditions": [*others, new], **({"timing": timing} if timing else {}), **more}
        self.kube.edit(JOB_KIND, NAMESPACE, name, {"status": patch})

    def _settle(self) -> bool:
        settled = False
        for body in list(self.kube.objects(JOB_KIND)):
            meta, conditions = body["metadata"], (body.get("status") or {}).get("conditions")
            if "run" not in body["spec"] or not self.settles:
                continue
            over = condition_is_true(conditions, "Complete") or condition_is_true(conditions, "Failed")
            if over and not condition_is_true(conditions, "Settled"):
                self.market_says(meta["name"], "Settled")
                settled = True
            elif condition_is_true(conditions, "Settled") and "deletionTimestamp" in meta:
                left = [f for f in meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
                if left != meta.get("finalizers", []):
                    self.kube.edit(JOB_KIND, NAMESPACE, meta["name"], {"metadata": {"finalizers": left}})
                    settled = True
        return settled

    # ------------------------------------------------------------------ looking

    def job(self, name: str = "hello") -> Body:
        found = self.kube.find(JOB_KIND, NAMESPACE, name)
        assert found is not None
        return found

    def status(self, name: str = "hello") -> Body:
        return dict(self.job(name).get("status") or {})

    def statuses(self) -> Body:
        return {b["metadata"]["name"]: b.get("status") for b in self.kube.objects(JOB_KIND)}

    def phase(self, name: str = "hello") -> str | None:
        body = self.kube.find(JOB_KIND, NAMESPACE, name)
        return None if body is None else (body.get("status") or {}).get("phase")

    def says(self, kind: str, name: str = "hello") -> tuple[str, str] | None:
        found = find_condition(self.status(name).get("conditions"), kind)
        return None if found is None else (found["status"], found["reason"])

    def pods(self) -> list[Body]:
        return self.kube.objects("Pod", NAMESPACE)

    def result(self, name: str = "hello") -> Body:
        secrets = [self.kube.find("Secret", NAMESPACE, s) for s in self.status(name)["resultSecrets"]]
        return dict(json.loads(read_result([s for s in secrets if s is not None])))

    def over(self, name: str = "hello") -> Callable[[], bool]:
        return lambda: self.phase(name) in ("Completed", "Failed", "Stopped")

    def written(self, *kinds: str) -> list[Request]:
        """Requests that a job costs: no log reading, and not what its namespace costs once (policies, the DNS Service)."""
        return [
            r
            for r in self.kube.requests
            if r.verb != "logs" and not r.name.startswith("nosana-jobs") and (not kinds or r.kind in kinds)
            if (r.verb, r.kind) != ("get", "Service")
        ]


def _key(body: Body) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


__all__ = ["CID", "Lab", "definition", "market_job", "op", "private_job"]
