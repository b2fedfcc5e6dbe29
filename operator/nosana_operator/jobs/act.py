"""Carries out effects. Each may have been done before: by an earlier process, or by a request without an answer.

A reply is in the cache when a request returns (`ports.Kube`), so the next decision sees what this one did.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from nosana_operator.api import (
    API_VERSION,
    FINALIZER_JOB,
    FINALIZER_OP,
    JOB_KIND,
    LABEL_OP,
    MANAGER_JOBS,
    parse_timestamp,
)
from nosana_operator.api.result import result_names
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.results import MAX_RESULT_SECONDS, Match, extract
from nosana_operator.errors import Conflict, NotFound, Refused
from nosana_operator.jobs.decision.effects import (
    AddFinalizer,
    After,
    Before,
    CaptureResults,
    DeleteChild,
    DeletePod,
    PublishAliases,
    ReleasePod,
    RemoveFinalizer,
    StartOp,
    StopPod,
    StoreResult,
)
from nosana_operator.jobs.decision.status import bare_status, minimal_status, within_limits
from nosana_operator.jobs.decision.view import JobView, PodView, Refusal
from nosana_operator.jobs.errors import NameTaken, NoStorageClass, ResultsNotCapturedYet
from nosana_operator.jobs.logs import LogMemory, LogReader
from nosana_operator.jobs.policies import PolicyApplier
from nosana_operator.jobs.ports import Cache, Clock, JsonPatch, Kube, Metrics
from nosana_operator.jobs.result import Log, op_log_share, result_parts, retained
from nosana_operator.ports import Body
from nosana_operator.workload import Isolation

log = logging.getLogger(__name__)

_AGAIN_AFTER_REFUSAL: Final = timedelta(seconds=2)
_QUOTA: Final = "exceeded quota"
"""In the message of the API server's quota admission, which has no reason of its own."""
_AGAIN_AFTER_QUOTA: Final = timedelta(seconds=10)
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_RESULTS_AT_ONCE: Final = 2
"""Results built at the same time over all jobs, each with up to `MAX_JOB_LOGS` of log. First come, first served."""
_CAPTURES_AT_ONCE: Final = 2
"""Captures at the same time over all jobs; a job has one under way, so the others are served in turn."""
CAPTURE_SECONDS: Final = 2.0
"""How long a reconcile waits until the results of an op are captured."""
_TOOK_TOO_LONG: Final = (
    f"not tried: the results of this job took longer than {MAX_RESULT_SECONDS:g} s together"
)


@dataclass(slots=True)
class Outcomes:
    """The outcomes of one job's effects, for the next decision; losing them costs only time."""

    refused: dict[int, Refusal] = field(default_factory=dict)
    shared: set[tuple[str, str]] = field(default_factory=set)
    volumes: set[int] = field(default_factory=set)
    results: dict[int, dict[str, ResultValue]] = field(default_factory=dict)
    capturing: dict[int, asyncio.Task[dict[str, ResultValue]]] = field(default_factory=dict)
    capture_seconds: float = 0.0
    """How long the engine has worked for this job."""
    published_aliases: dict[int, str | None] = field(default_factory=dict)
    result: tuple[str, ...] = ()
    logs: LogMemory = field(default_factory=LogMemory)


class Actor:
    """Carries out effects through the API server."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        metrics: Metrics,
        clock: Clock,
        match: Match,
        isolation: Isolation,
        logs: LogReader,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._metrics = metrics
        self._clock = clock
        self._match = match
        self._captures = asyncio.Semaphore(_CAPTURES_AT_ONCE)
        self._logs = logs
        self._storing = asyncio.Semaphore(_RESULTS_AT_ONCE)
        self._policies = PolicyApplier(kube, cache, clock, isolation)

    async def before(self, view: JobView, effect: Before, outcomes: Outcomes) -> None:
        """Carry out an effect that precedes the status write."""
        match effect:
            case AddFinalizer():
                await self._add_finalizer(view)
            case StartOp():
                await self._start(view, effect, outcomes)
            case CaptureResults():
                await self._capture(view, effect, outcomes)
            case StoreResult():
                outcomes.result = await self._store(view, effect, outcomes)

    async def after(self, view: JobView, effect: After, outcomes: Outcomes) -> None:
        """Carry out an effect that follows the status write."""
        match effect:
            case StopPod(pod):
                await self._stop(view, pod)
            case DeletePod(pod):
                await self._kube.delete("Pod", view.meta["namespace"], pod.name, uid=pod.uid)
            case ReleasePod(pod):
                await self._drop_finalizer("Pod", view.meta["namespace"], pod.name, pod.uid, FINALIZER_OP)
            case DeleteChild(kind, name):
                await self._kube.delete(kind, view.meta["namespace"], name)
            case PublishAliases():
                await self._publish(effect, outcomes)
            case RemoveFinalizer():
                await self.remove_finalizer(view.body)

    async def write_status(self, body: Body, status: Mapping[str, Any]) -> Refused | None:
        """Write the job controller's part of the status, as a compare-and-swap on the object it was decided from.

        A write of a former leader may arrive late, and must not revert the status of a job that ended meanwhile.
        The uid protects another job of the same name. Raises Conflict.

        An end must not get lost because the API server refuses something else in the status: then less of it is
        written, and the refusal is returned. Raises Refused when the API server refuses even `bare_status`.
        """
        refusal: Refused | None = None
        for attempt in (status, minimal_status(status), bare_status(status)):
            try:
                await self._apply_status(body["metadata"], within_limits(attempt))
            except Refused as error:
                refusal = refusal or error
            else:
                return refusal
        assert refusal is not None  # noqa: S101 - each attempt was refused
        raise refusal

    async def _apply_status(self, meta: Body, status: Mapping[str, Any]) -> None:
        desired = {
            "apiVersion": API_VERSION,
            "kind": JOB_KIND,
            "metadata": {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion")},
            "status": status,
        }
        await self._kube.apply(desired, manager=MANAGER_JOBS, subresource="status")

    async def remove_finalizer(self, body: Body) -> None:
        """Remove our finalizer from a NosanaJob."""
        meta = body["metadata"]
        await self._drop_finalizer(JOB_KIND, meta["namespace"], meta["name"], meta["uid"], FINALIZER_JOB)

    async def _add_finalizer(self, view: JobView) -> None:
        meta = view.meta
        patch = {
            "metadata": {
                "resourceVersion": meta["resourceVersion"],
                "finalizers": [*(meta.get("finalizers") or ()), FINALIZER_JOB],
            }
        }
        await self._kube.patch(JOB_KIND, meta["namespace"], meta["name"], patch)

    # -- starting ----------------------------------------------------------------------------------------

    async def _start(self, view: JobView, effect: StartOp, outcomes: Outcomes) -> None:
        try:
            if effect.bodies[-1]["kind"] == "Pod":
                await self._policies.ensure(view.meta["namespace"])
            for body in effect.bodies:
                if body["kind"] == "PersistentVolumeClaim":
                    await self._check_class(body)
                await self._create_once(view, body, outcomes)
        except (Refused, NameTaken) as error:
            now = self._clock.now()
            before = outcomes.refused.get(effect.op_index)
            since = before.since if before else now
            no_room = isinstance(error, Refused) and _QUOTA in str(error)
            again_at = now + (_AGAIN_AFTER_QUOTA if no_room else _AGAIN_AFTER_REFUSAL)
            outcomes.refused[effect.op_index] = Refusal(since, again_at, str(error), no_room)
        else:
            outcomes.refused.pop(effect.op_index, None)
            if effect.bodies[-1]["kind"] == "PersistentVolumeClaim":
                outcomes.volumes.add(effect.op_index)

    async def _create_once(self, view: JobView, body: Body, outcomes: Outcomes) -> None:
        """Create the object; an object that the ops of the job share is created only with the first of them."""
        identity = body["kind"], body["metadata"]["name"]
        if identity in outcomes.shared:
            return
        await self._create(view, body)
        if LABEL_OP not in body["metadata"]["labels"]:
            outcomes.shared.add(identity)

    async def _check_class(self, claim: Body) -> None:
        """Refuse a claim without a class when no class is the default: it would stay Pending without an error."""
        if "storageClassName" in claim["spec"]:
            return
        for storage_class in await self._kube.list("StorageClass"):
            if (storage_class["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true":
                return
        raise NoStorageClass(
            "the cluster has no default StorageClass for the job's volume; mark one as the default, or set "
            "volumes.storageClass in the operator's settings"
        )

    async def _create(self, view: JobView, body: Body) -> None:
        try:
            await self._kube.create(body)
        except Conflict:
            await self._existing(view, body)
        else:
            if body["kind"] == "Pod" and not view.pods and view.status.timing and view.status.timing.matched:
                matched = parse_timestamp(view.status.timing.matched)
                self._metrics.run_to_pod((self._clock.now() - matched).total_seconds())

    async def _existing(self, view: JobView, body: Body) -> Body:
        """The existing object of that name. Raises NameTaken when it is not this job's."""
        meta = body["metadata"]
        found = await self._kube.get(body["kind"], meta["namespace"], meta["name"])
        if not owned_by(found, view.meta["uid"]):
            raise NameTaken(
                f"{body['kind']} {meta['namespace']}/{meta['name']} exists and belongs to something else; "
                "delete it, or give the NosanaJob another name"
            )
        return found

    async def _publish(self, effect: PublishAliases, outcomes: Outcomes) -> None:
        meta = effect.body["metadata"]
        if effect.address is None:
            await self._kube.delete(effect.body["kind"], meta["namespace"], meta["name"])
        else:
            await self._kube.apply(effect.body, manager=MANAGER_JOBS)
        outcomes.published_aliases[effect.op_index] = effect.address

    # -- the result --------------------------------------------------------------------------------------

    async def _store(self, view: JobView, plan: StoreResult, outcomes: Outcomes) -> tuple[str, ...]:
        async with self._storing:
            return await self._stored(view, plan, outcomes)

    async def _stored(self, view: JobView, plan: StoreResult, outcomes: Outcomes) -> tuple[str, ...]:
        namespace, share = view.meta["namespace"], op_log_share(len(plan.ops))
        if plan.without_logs is not None:
            logs = {op.index: Log(problem=plan.without_logs) for op in plan.ops}
        else:
            logs = {
                op.index: await self._logs.read(namespace, plan.pods, op, outcomes.logs, share)
                for op in plan.ops
            }
        # Parsing and compressing megabytes of log must not block the event loop.
        first, *rest = await asyncio.to_thread(result_parts, view.body, plan, logs)
        for part in reversed(rest):
            await self._kube.apply(part, manager=MANAGER_JOBS)
        try:
            return result_names(await self._kube.create(first))
        except Conflict:
            return result_names(await self._existing(view, first))

    async def _capture(self, view: JobView, effect: CaptureResults, outcomes: Outcomes) -> None:
        """Capture in a task, because strangers' patterns may take long; the work queue goes on meanwhile."""
        index = effect.op.index
        task = outcomes.capturing.get(index)
        if task is None:
            task = asyncio.create_task(self._captured(view, effect, outcomes), name=f"results of op {index}")
            outcomes.capturing[index] = task
        await asyncio.wait([task], timeout=CAPTURE_SECONDS)
        if not task.done():
            raise ResultsNotCapturedYet(f"the results of op {effect.op.id!r} are still being captured")
        del outcomes.capturing[index]
        outcomes.results[index] = task.result()

    async def _captured(
        self, view: JobView, effect: CaptureResults, outcomes: Outcomes
    ) -> dict[str, ResultValue]:
        loop = asyncio.get_running_loop()
        async with self._captures:
            left = MAX_RESULT_SECONDS - outcomes.capture_seconds
            if left <= 0:
                return dict.fromkeys(effect.patterns, _TOOK_TOO_LONG)
            log = await self._logs.read(view.meta["namespace"], effect.pods, effect.op, outcomes.logs)
            lines = (await asyncio.to_thread(retained, log)).lines
            began = loop.time()
            try:
                return await extract(
                    effect.patterns,
                    lines,
                    self._match,
                    streams_apart=log.streams_apart,
                    max_bytes=effect.max_bytes,
                    seconds=left,
                )
            finally:
                outcomes.capture_seconds += loop.time() - began

    # -- stopping pods and releasing objects -------------------------------------------------------------

    async def _stop(self, view: JobView, pod: PodView) -> None:
        """Stop the pod by a deadline in the past: the kubelet then grants the grace period and keeps the log."""
        patch = {"metadata": {"uid": pod.uid}, "spec": {"activeDeadlineSeconds": 1}}
        try:
            await self._kube.patch("Pod", view.meta["namespace"], pod.name, patch)
        except (NotFound, Conflict):
            log.info("pod %s is already gone", pod.name, extra={"job": view.meta["name"]})

    async def _drop_finalizer(self, kind: str, namespace: str, name: str, uid: str, finalizer: str) -> None:
        body = self._cache.get(kind, namespace, name)
        for attempt in range(3):
            try:
                if body is None or attempt > 0:
                    body = await self._kube.get(kind, namespace, name)
                finalizers = body["metadata"].get("finalizers") or []
                if body["metadata"]["uid"] != uid or finalizer not in finalizers:
                    return
                path = f"/metadata/finalizers/{finalizers.index(finalizer)}"
                patch: JsonPatch = [
                    {"op": "test", "path": path, "value": finalizer},
                    {"op": "remove", "path": path},
                ]
                await self._kube.patch(kind, namespace, name, patch)
                return
            except NotFound:
                return
            except (Refused, Conflict):
                # Somebody changed the list in between; the last Refused has another cause.
                if attempt == 2:
                    raise


def owned_by(body: Mapping[str, Any], uid: str) -> bool:
    """Whether the object with that uid owns `body`."""
    return any(ref.get("uid") == uid for ref in body["metadata"].get("ownerReferences") or ())
