"""The job controller: gather → decide → act, one NosanaJob at a time.

(docs/architecture.md#two-loops-one-object)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from nosana_operator.api import (
    FINALIZER_JOB,
    JOB_KIND,
    LABEL_JOB_UID,
    ApiError,
    JobCondition,
    JobReason,
    NosanaJobSpec,
    NosanaJobStatus,
    condition,
    parse_part,
)
from nosana_operator.definition.results import Match
from nosana_operator.errors import Conflict, NotFound
from nosana_operator.jobs.act import Actor, Outcomes, owned_by
from nosana_operator.jobs.decision.captures import captured
from nosana_operator.jobs.decision.decide import decide
from nosana_operator.jobs.decision.effects import Decision, DeletePod, RecordEvent, ReleasePod
from nosana_operator.jobs.decision.events import events_of_change
from nosana_operator.jobs.decision.ops import LIVE, split_attempts
from nosana_operator.jobs.decision.status import own_part
from nosana_operator.jobs.decision.view import JobView, Loaded, PodView
from nosana_operator.jobs.definitions import DefinitionLoader
from nosana_operator.jobs.fetch_progress import READ_EVERY, Progress, is_fetching, with_progress
from nosana_operator.jobs.log_lines import log_fields, log_line, status_line
from nosana_operator.jobs.logs import LogReader
from nosana_operator.jobs.monitor import HealthMonitor, targets
from nosana_operator.jobs.observe import Observer
from nosana_operator.jobs.ports import (
    Cache,
    Clock,
    Definitions,
    Events,
    JobSettings,
    Key,
    Kube,
    Metrics,
    Prober,
)
from nosana_operator.jobs.start_steps import new_steps
from nosana_operator.ports import Body

log = logging.getLogger(__name__)

_FETCH_READ: Final = READ_EVERY.total_seconds()
_ROUNDS: Final = 8
"""How many decisions one reconcile makes at most; each round has effects that are not repeated."""


@dataclass(slots=True)
class _Memory:
    """The caches of one job; losing them costs only time."""

    uid: str
    observer: Observer = field(default_factory=Observer)
    outcomes: Outcomes = field(default_factory=Outcomes)
    fetches: dict[str, Progress] = field(default_factory=dict)


class JobController:
    """Runs NosanaJobs.

    `match` runs regular expressions on logs. `wake` puts a key into the work queue, which never runs one key
    twice at the same time.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        definitions: Definitions,
        events: Events,
        metrics: Metrics,
        clock: Clock,
        prober: Prober,
        settings: JobSettings,
        match: Match,
        wake: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._events = events
        self._metrics = metrics
        self._clock = clock
        self._logs = LogReader(kube, clock)
        self._actor = Actor(kube, cache, metrics, clock, match, settings.isolation, self._logs)
        self._loader = DefinitionLoader(kube, definitions, settings, wake, sleep)
        self._monitor = HealthMonitor(prober, clock, wake, sleep)
        self._memory: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Take NosanaJob `(namespace, name)` one step further.

        Returns the seconds after which to call again (None: when something changes). Raises the outcomes of
        `nosana_operator.errors`; calling again is always safe.
        """
        for _ in range(_ROUNDS):
            body = self._cache.get(JOB_KIND, *key)
            if body is None:
                self._forget(key)
                return None
            try:
                spec = parse_part(NosanaJobSpec, JOB_KIND, "spec", body.get("spec"))
                status = parse_part(NosanaJobStatus, JOB_KIND, "status", body.get("status"))
            except ApiError as problem:
                return await self._unreadable(key, body, str(problem))
            memory = self._remember(key, body["metadata"]["uid"])
            view = await self._gather(body, spec, status, memory)
            if isinstance(view.definition, Loaded) and view.definition.is_large:
                decision = await asyncio.to_thread(decide, view)
            else:
                decision = decide(view)
            if not decision.before:
                waits = [await self._finish(key, view, decision, memory)]
                if any(is_fetching(pod) for pod in view.pods.values()):
                    waits.append(_FETCH_READ)
                pods, now = view.pods.values(), view.now
                waits.append(await self._logs.track(view.meta["namespace"], pods, memory.outcomes.logs, now))
                return min((wait for wait in waits if wait is not None), default=None)
            for effect in decision.before:
                text, fields = log_line(effect, view)
                log.info("%s", text, extra=fields)
                await self._actor.before(view, effect, memory.outcomes)
        return 1.0

    async def close(self) -> None:
        """End the tasks that run beside the reconciles."""
        for key in list(self._memory):
            self._forget(key)
        await self._loader.close()
        await self._monitor.close()

    async def _finish(self, key: Key, view: JobView, decision: Decision, memory: _Memory) -> float | None:
        if decision.status is not None:
            try:
                await self._actor.write_status(view.body, decision.status)
            except (NotFound, Conflict):
                # The object is gone, or another one has its name: the watch will deliver that.
                return 1.0
            if news := status_line(view.body.get("status") or {}, decision.status):
                log.info("%s", news, extra=log_fields(view.body))
            for step, seconds in new_steps(view.status.timing, decision.status.get("timing") or {}):
                self._metrics.start_step(step, seconds)
            self._record_events(view.body, decision.events)
        for effect in decision.after:
            text, fields = log_line(effect, view)
            log.info("%s", text, extra=fields)
            await self._actor.after(view, effect, memory.outcomes)
        if view.over:
            memory.outcomes.logs.earlier_runs.clear()
            self._loader.forget(view.meta["uid"])
            self._monitor.forget(view.meta["uid"])
        return decision.requeue_after

    def _record_events(self, body: Body, events: tuple[RecordEvent, ...]) -> None:
        for event in events:
            self._events.event(
                body, type=event.type, reason=event.reason, action=event.action, note=event.note
            )

    # -- gathering ---------------------------------------------------------------------------------------

    async def _gather(
        self, body: Body, spec: NosanaJobSpec, status: NosanaJobStatus, memory: _Memory
    ) -> JobView:
        now = self._clock.now()
        pods, earlier = split_attempts(self._pods(body, memory, now), status.ops)
        lost = await self._lost(body, status, pods)
        if len(lost) < sum(1 for op in status.ops if op.state in LIVE and op.index not in pods):
            pods, earlier = split_attempts(self._pods(body, memory, now), status.ops)
        view = JobView(
            body=body,
            spec=spec,
            status=status,
            now=now,
            pods=pods,
            earlier=earlier,
            lost=lost,
            refused=dict(memory.outcomes.refused),
            volumes=frozenset(memory.outcomes.volumes),
            results=captured(status.ops, memory.outcomes.results),
            published_aliases=dict(memory.outcomes.published_aliases),
            result=memory.outcomes.result,
        )
        if view.over:
            return view
        fetched = await with_progress(self._kube, body["metadata"]["namespace"], pods, memory.fetches, now)
        view = replace(view, pods=fetched, definition=self._loader.state(body, spec))
        key = (view.meta["namespace"], view.meta["name"])
        return replace(view, health=self._monitor.health(view.meta["uid"], key, targets(view)))

    def _pods(self, body: Body, memory: _Memory, now: datetime) -> list[PodView]:
        meta = body["metadata"]
        # Anybody may put our label on their own pod.
        ours = [
            pod
            for pod in self._cache.by_index("Pod", LABEL_JOB_UID, meta["uid"])
            if pod["metadata"]["namespace"] == meta["namespace"] and owned_by(pod, meta["uid"])
        ]
        return memory.observer.pods(ours, now)

    async def _lost(self, body: Body, status: NosanaJobStatus, pods: dict[int, PodView]) -> frozenset[int]:
        """The ops whose pod the cache lacks and, by the API server's answer, does not exist."""
        meta = body["metadata"]
        lost = set()
        for op in status.ops:
            if op.state not in LIVE or op.index in pods or op.pod is None:
                continue
            try:
                found = await self._kube.get("Pod", meta["namespace"], op.pod)
            except NotFound:
                lost.add(op.index)
            else:
                if not owned_by(found, meta["uid"]):
                    lost.add(op.index)
        return frozenset(lost)

    def _remember(self, key: Key, uid: str) -> _Memory:
        memory = self._memory.get(key)
        if memory is None or memory.uid != uid:
            self._forget(key)
            memory = self._memory[key] = _Memory(uid)
        return memory

    def _forget(self, key: Key) -> None:
        memory = self._memory.pop(key, None)
        if memory is not None:
            self._loader.forget(memory.uid)
            self._monitor.forget(memory.uid)
            for task in memory.outcomes.capturing.values():
                task.cancel()

    # -- a NosanaJob that cannot be read -----------------------------------------------------------------

    async def _unreadable(self, key: Key, body: Body, problem: str) -> float | None:
        """Report the problem and leave the job's pods alone; when the job is deleted, stop and release them."""
        log.warning("%s", problem, extra=log_fields(body))
        meta, now = body["metadata"], self._clock.now()
        before = own_part(body.get("status"))
        values = ((JobCondition.READY, False), (JobCondition.STALLED, True))
        status: dict[str, Any] = {
            **before,
            "observedGeneration": int(meta.get("generation", 0)),
            "conditions": [
                *(c for c in before.get("conditions", ()) if c["type"] not in {kind for kind, _ in values}),
                *(
                    condition(
                        before.get("conditions"),
                        kind,
                        value,
                        JobReason.SPEC_INVALID,
                        problem,
                        generation=int(meta.get("generation", 0)),
                        now=now,
                    )
                    for kind, value in values
                ),
            ],
        }
        if status != before:
            await self._actor.write_status(body, status)
            self._record_events(body, events_of_change(before, status))
        if "deletionTimestamp" not in meta:
            return None
        memory = self._remember(key, meta["uid"])
        view = JobView(body=body, spec=NosanaJobSpec(), status=NosanaJobStatus(), now=now)
        pods = self._pods(body, memory, now)
        for pod in pods:
            if pod.ended is None and not pod.deleting:
                await self._actor.after(view, DeletePod(pod), memory.outcomes)
            elif pod.ended is not None and pod.held:
                await self._actor.after(view, ReleasePod(pod), memory.outcomes)
        if all(pod.ended is not None for pod in pods) and FINALIZER_JOB in (meta.get("finalizers") or ()):
            await self._actor.remove_finalizer(body)
        return None
