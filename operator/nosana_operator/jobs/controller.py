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
    JOB_KIND,
    LABEL_JOB_UID,
    ApiError,
    JobReason,
    NosanaJobSpec,
    NosanaJobStatus,
    parse_part,
)
from nosana_operator.definition.results import Match
from nosana_operator.errors import Conflict, NosanaError, NotFound, Unavailable
from nosana_operator.jobs.act import Actor, Outcomes, owned_by
from nosana_operator.jobs.decision.captures import captured
from nosana_operator.jobs.decision.decide import decide, stop_or_delete
from nosana_operator.jobs.decision.effects import STOPS, After, Decision, RecordEvent
from nosana_operator.jobs.decision.ending import expiry, new_cause, recorded_cause
from nosana_operator.jobs.decision.events import events_of_change
from nosana_operator.jobs.decision.forced_end import (
    RETRY_AFTER,
    end_cause,
    force_end,
    readable_spec,
    readable_status,
)
from nosana_operator.jobs.decision.ops import LIVE, split_attempts
from nosana_operator.jobs.decision.status import all_over, own_part, stalled_status
from nosana_operator.jobs.decision.view import Cause, JobView, Loaded, PodView
from nosana_operator.jobs.definitions import DefinitionLoader
from nosana_operator.jobs.errors import NameTaken
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
    failing_since: datetime | None = None
    """Since when each reconcile has raised."""
    problem: str | None = None
    """Why the last one raised, as it was reported on the object."""
    unreadable: bool = False
    """Whether spec or status cannot be read by this version."""
    refused_status: dict[str, Any] | None = None
    """The status that the API server refused, and of which a shorter form was written."""
    unwritten_cause: Cause | None = None
    """See `JobView.unwritten_cause`."""


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
        `nosana_operator.errors`; calling again is always safe. A job whose time is over is stopped and ended also
        when this raises (`decision/forced_end.py`).
        """
        try:
            wait = await self._reconcile(key)
        except Exception as error:
            await self._after_failure(key, error)
            raise
        memory = self._memory.get(key)
        if memory is not None and not memory.unreadable:
            memory.failing_since = None
            if memory.problem is not None:
                memory.problem, wait = None, 0.0  # The next reconcile takes the report back.
        return wait

    async def _reconcile(self, key: Key) -> float | None:
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
            memory.unreadable = False
            view = await self._gather(body, spec, status, memory)
            if isinstance(view.definition, Loaded) and view.definition.is_large:
                decision = await asyncio.to_thread(decide, view)
            else:
                decision = decide(view)
            decision = self._with_report(view, decision, memory)
            if not decision.before:
                waits = [await self._finish(view, decision, memory)]
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

    async def _finish(self, view: JobView, decision: Decision, memory: _Memory) -> float | None:
        failure: Exception | None = None
        try:
            if decision.status is not None and not await self._write(view, decision, memory):
                return 1.0
        except Exception as error:  # noqa: BLE001 - a stop does not wait for a write
            failure = error
            memory.unwritten_cause = recorded_cause(view) or new_cause(view)
        for effect in decision.after:
            if not isinstance(effect, STOPS):
                continue
            try:
                await self._act(view, effect, memory)
            except Exception as error:  # noqa: BLE001 - nor for the stop of another pod
                failure = failure or error
        if failure is not None:
            raise failure
        for effect in decision.after:
            if not isinstance(effect, STOPS):
                await self._act(view, effect, memory)
        if view.over:
            memory.outcomes.logs.earlier_runs.clear()
            self._loader.forget(view.meta["uid"])
            self._monitor.forget(view.meta["uid"])
        return decision.requeue_after

    def _with_report(self, view: JobView, decision: Decision, memory: _Memory) -> Decision:
        """The decision, with a reported problem kept: writing it in turns with its absence would never end."""
        if memory.problem is None or decision.status is None:
            return decision
        status = stalled_status(view, decision.status, JobReason.RECONCILE_FAILED, memory.problem)
        return replace(decision, status=None if status == own_part(view.body.get("status")) else status)

    async def _write(self, view: JobView, decision: Decision, memory: _Memory) -> bool:
        """Write the status; False: the object has changed or is gone, and the watch will deliver that."""
        status = decision.status or {}
        if status == memory.refused_status:
            return True
        try:
            refusal = await self._actor.write_status(view.body, status)
        except (NotFound, Conflict):
            return False
        events = decision.events
        memory.refused_status, memory.unwritten_cause = None, None
        if refusal is not None:
            memory.refused_status = status
            note = f"the API server refused the whole status, so a shorter one was written: {refusal}"
            log.warning("%s", note, extra=log_fields(view.body))
            events = (*events, RecordEvent("Warning", JobReason.RECONCILE_FAILED, "Write", note))
        if news := status_line(view.body.get("status") or {}, status):
            log.info("%s", news, extra=log_fields(view.body))
        for step, seconds in new_steps(view.status.timing, status.get("timing") or {}):
            self._metrics.start_step(step, seconds)
        self._record_events(view.body, events)
        return True

    async def _act(self, view: JobView, effect: After, memory: _Memory) -> None:
        text, fields = log_line(effect, view)
        log.info("%s", text, extra=fields)
        await self._actor.after(view, effect, memory.outcomes)

    def _record_events(self, body: Body, events: tuple[RecordEvent, ...]) -> None:
        for event in events:
            self._events.event(
                body, type=event.type, reason=event.reason, action=event.action, note=event.note
            )

    # -- the end of a job whose reconcile fails ----------------------------------------------------------

    async def _after_failure(self, key: Key, error: Exception) -> None:
        """Report the failure on the object; stop and end the job when its time is over."""
        body = self._cache.get(JOB_KIND, *key)
        if body is None:
            return
        memory = self._remember(key, body["metadata"]["uid"])
        now = self._clock.now()
        memory.failing_since = memory.failing_since or now
        # Other exceptions are defects of ours, and their text may quote anything.
        problem = str(error) if isinstance(error, NosanaError) else f"internal error: {type(error).__name__}"
        passing = isinstance(error, Unavailable | Conflict) and not isinstance(error, NameTaken)
        try:
            await self._end_or_report(body, memory, problem, report=not passing)
        except Exception as second:  # noqa: BLE001 - the pods are stopped all the same
            log.warning("ending the job failed too: %s", second, extra=log_fields(body))
            await self._stop_pods(body, memory)

    async def _stop_pods(self, body: Body, memory: _Memory) -> None:
        """Stop the pods of a job whose time is over, whatever else is wrong with it."""
        view = self._readable_view(body, memory, self._clock.now())
        if end_cause(view) is None:
            return
        for pod in (*view.earlier, *view.pods.values()):
            if pod.ended is None and not pod.stopping:
                await self._actor.after(view, stop_or_delete(pod), memory.outcomes)

    async def _end_or_report(self, body: Body, memory: _Memory, problem: str, *, report: bool) -> None:
        now = self._clock.now()
        view = self._readable_view(body, memory, now)
        if view.over or not (view.may_run or view.status.ops):
            return
        due = end_cause(view) is not None or all_over(view.status.ops)
        if not due and not report:
            return
        since = memory.failing_since or now
        memory.problem = problem if report else memory.problem
        decision = force_end(view, since, problem, report=report)
        for effect in decision.before:
            stored = True
            try:
                await self._actor.before(view, effect, memory.outcomes)
            except Exception as error:  # noqa: BLE001 - the job ends all the same
                log.warning("the job ends without a result: %s", error, extra=log_fields(body))
                stored = False
            view = replace(view, result=memory.outcomes.result)
            decision = force_end(view, since, problem, keep_result=stored)
        await self._finish(view, decision, memory)

    def _readable_view(self, body: Body, memory: _Memory, now: datetime) -> JobView:
        """What of a job and its pods can be read without its definition, its logs or a request."""
        status = readable_status(body)
        pods, earlier = split_attempts(self._pods(body, memory, now), status.ops)
        return JobView(
            body=body,
            spec=readable_spec(body),
            status=status,
            now=now,
            pods=pods,
            earlier=earlier,
            results=captured(status.ops, memory.outcomes.results),
            result=memory.outcomes.result,
            unwritten_cause=memory.unwritten_cause,
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
            unwritten_cause=memory.unwritten_cause,
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
        """Report the problem and leave the job's pods alone until its time is over; then end it."""
        log.warning("%s", problem, extra=log_fields(body))
        meta, now = body["metadata"], self._clock.now()
        memory = self._remember(key, meta["uid"])
        memory.unreadable = True
        view = self._readable_view(body, memory, now)
        if view.over:
            await self._finish(view, decide(view), memory)
            return None
        if end_cause(view) is not None and (view.may_run or view.status.ops):
            memory.failing_since = memory.failing_since or now
            await self._end_or_report(body, memory, problem, report=True)
            return RETRY_AFTER
        before = own_part(body.get("status"))
        status = stalled_status(view, before, JobReason.SPEC_INVALID, problem, ready=False)
        events = events_of_change(before, status)
        await self._finish(view, Decision(status=None if status == before else status, events=events), memory)
        if view.deleting and view.held and not view.pods:
            await self._actor.remove_finalizer(body)
        at = expiry(view)
        return None if at is None else max(0.0, (at - now).total_seconds())
