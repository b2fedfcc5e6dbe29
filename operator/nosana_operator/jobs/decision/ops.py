"""The state of each op, from the previous status and its pod, and its further attempts. Pure.

Waiting ──▶ Starting ──▶ Running ──▶ Succeeded | Failed
   │            └─────┬─────┘
   │               Stopping ──▶ Succeeded (its time was up) | Stopped
   └──▶ Failed (it can never start) | Stopped

An op can run again after a failure that its restart policy allows, and after the loss of its node. Each attempt
is a pod of its own. The status names the next attempt before its pod is created; the delays between attempts are
the kubelet's: 10 s, doubled each time, 5 minutes at most.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from typing import Final, Literal

from nosana_operator.api import OpStatus, micro_timestamp, parse_timestamp
from nosana_operator.definition import Definition, OpProgress
from nosana_operator.definition.limits import MAX_MESSAGE
from nosana_operator.jobs.decision.view import JobView, PodView

Ops = tuple[OpStatus, ...]

LIVE: Final = frozenset({"Starting", "Running", "Stopping"})
"""States of an op whose pod has not ended."""
OVER: Final = frozenset({"Succeeded", "Failed", "Stopped"})
DETAIL_AFTER: Final = timedelta(seconds=5)
SILENT_NODE_LIMIT: Final = timedelta(minutes=5)
MAX_REFUSALS: Final = 5
"""How many attempts in a row kubelets may refuse before the op fails; not more than KEPT_PODS."""
KEPT_PODS: Final = 5
"""How many earlier pods of an op are kept for their logs."""
_FIRST_WAIT: Final = 10
_LONGEST_WAIT: Final = 300


class OpReason(StrEnum):
    """Our reasons for the state of an op; `reason` may also hold a kubelet's (OOMKilled, Evicted, …)."""

    FETCHING = "Fetching"
    RESOURCE_FETCH_FAILED = "ResourceFetchFailed"
    EXIT_CODE = "ExitCode"
    NEVER_STARTED = "NeverStarted"
    EXPIRED = "Expired"
    DEPENDENCY_ENDED = "DependencyEnded"
    LITERAL_INVALID = "LiteralInvalid"
    ARGS_INVALID = "ArgsInvalid"
    POD_REFUSED = "PodRefused"
    POD_LOST = "PodLost"
    POD_DELETED = "PodDeleted"
    DEFINITION_CHANGED = "DefinitionChanged"
    RESTARTING = "Restarting"
    NODE_LOST = "NodeLost"
    UNHEALTHY = "Unhealthy"
    SUSPENDED = "Suspended"
    NODE_SILENT = "NodeSilent"
    IMAGE_PULL = "ImagePull"
    NOT_CREATED = "ContainerNotCreated"
    NO_CAPACITY = "NoCapacity"


_UNSTARTED: Final = {
    "Unschedulable": OpReason.NO_CAPACITY,
    OpReason.IMAGE_PULL: OpReason.IMAGE_PULL,
    OpReason.NOT_CREATED: OpReason.NOT_CREATED,
}
"""The reason of a pod's trouble → the reason that its op ends with."""
GIVEN_UP: Final = frozenset(_UNSTARTED.values())
"""Reasons for which the operator stops waiting for an op that never started; the op has failed."""


def initial_ops(definition: Definition) -> Ops:
    """All ops of a definition before anything starts."""
    return tuple(
        OpStatus(id=op.id, index=index, stage=op.group, state="Waiting")
        for index, op in enumerate(definition.ops)
    )


def ops_of_pods(pods: Mapping[int, PodView]) -> Ops:
    """The ops that have pods, for a job whose definition is not loaded."""
    return tuple(
        OpStatus(id=pod.op_id, index=index, stage=pod.op_id, state="Starting", pod=pod.name)
        for index, pod in sorted(pods.items())
    )


def with_volumes(ops: Ops, volumes: frozenset[int], now: datetime) -> Ops:
    """The ops, with each `create-volume` op ended whose claim exists."""
    at = micro_timestamp(now)
    return tuple(
        op.model_copy(update={"state": "Succeeded", "exit_code": 0, "started_at": at, "ended_at": at})
        if op.state == "Waiting" and op.index in volumes
        else op
        for op in ops
    )


def advance(ops: Sequence[OpStatus], pods: Mapping[int, PodView], lost: frozenset[int], now: datetime) -> Ops:
    """The ops updated from their pods; an op that has ended does not change."""
    return tuple(_advance(op, pods.get(op.index), op.index in lost, now) for op in ops)


def _advance(op: OpStatus, pod: PodView | None, lost: bool, now: datetime) -> OpStatus:
    if op.state in OVER:
        return op
    if pod is None:
        if not lost:
            return op
        if op.state == "Stopping":
            return stopped(op, now)
        return ended(
            op,
            "Failed",
            OpReason.POD_LOST,
            f"pod {op.pod} is gone and left no exit code; the op is not run a second time",
            now,
        )
    op = op.model_copy(
        update={
            "pod": pod.name,
            "node": pod.node if worth_a_write(pod, now) else op.node,
            "restarts": op.restarts if pod.restarts == 0 else pod.restarts,
            "started_at": op.started_at or (micro_timestamp(pod.start_stamp) if pod.start_stamp else None),
        }
    )
    if pod.ended is not None:
        return _outcome(op, pod, now)
    # These belong to the previous attempt.
    op = op.model_copy(update={"exit_code": None, "ended_at": None})
    if op.state == "Stopping":
        at = silent_limit(op, pod)
        if at is None or now < at:
            return op
        unknown = f"{op.message}; node {pod.node} does not report, so whether the op has stopped is unknown"
        return stopped(op.model_copy(update={"message": unknown}), now)
    if pod.started_at is not None:
        reason, message = pod.trouble or (None, None)
        if pod.silent_since is not None:
            reason = OpReason.NODE_SILENT.value
            message = f"node {pod.node} does not report; whether the op still runs is unknown"
        return op.model_copy(update={"state": "Running", "reason": reason, "message": message})
    reason, message = pod.trouble or (None, None)
    return op.model_copy(update={"state": "Starting", "reason": reason, "message": cut(message)})


def silent_limit(op: OpStatus, pod: PodView) -> datetime | None:
    """When the operator stops waiting for an op that was told to stop and whose node does not report.

    A job has to end although nobody can see its pod end. The kubelet stops the pod once the node is back.
    """
    if op.state != "Stopping" or pod.silent_since is None or pod.ended is not None:
        return None
    return pod.silent_since + SILENT_NODE_LIMIT


def worth_a_write(pod: PodView, now: datetime) -> bool:
    """Whether the pod's progress towards its start deserves a status write of its own.

    Usually a pod is scheduled and started within a moment, and one write covers both. When an image is pulled
    in between, people want to see the node.
    """
    if pod.started_at is not None or pod.ended is not None:
        return True
    return pod.scheduled_at is not None and now - pod.scheduled_at >= DETAIL_AFTER


def _outcome(op: OpStatus, pod: PodView, now: datetime) -> OpStatus:
    end = pod.ended
    assert end is not None  # noqa: S101 - the caller checked
    op = op.model_copy(update={"exit_code": end.exit_code})
    if op.state == "Stopping":
        return stopped(op, end.by)
    if pod.refused:
        message = f"node {pod.node} refused pod {pod.name}: {pod.disrupted}"
        return ended(op, "Failed", OpReason.NODE_LOST, message, end.by)
    if pod.disrupted is not None:
        message = f"pod {pod.name} was removed from node {pod.node}: {pod.disrupted}"
        return ended(op, "Failed", OpReason.NODE_LOST, message, end.by)
    if pod.deleting:
        message = f"pod {pod.name} was deleted by somebody else; delete or stop the NosanaJob instead"
        return ended(op, "Failed", OpReason.POD_DELETED, message, end.by)
    if end.exit_code == 0 and end.reason is None:
        return ended(op, "Succeeded", None, None, end.by)
    code = f"exit code {end.exit_code}" if end.exit_code is not None else "its container never ran"
    message = f"{code}: {end.message}" if end.message else code
    return ended(op, "Failed", end.reason or OpReason.EXIT_CODE, message, end.by)


def stopped(op: OpStatus, at: datetime) -> OpStatus:
    """The op, which was told to stop, at its end."""
    if op.started_at is not None and op.reason in (OpReason.EXPIRED, OpReason.NEVER_STARTED):
        # NeverStarted: its container started while it was being stopped.
        return ended(op, "Succeeded", OpReason.EXPIRED, op.message, at)
    if op.reason in GIVEN_UP or op.reason == OpReason.NEVER_STARTED:
        return ended(op, "Failed", op.reason, op.message, at)
    return ended(op, "Stopped", op.reason, op.message, at)


def unstarted(op: OpStatus, pod: PodView | None) -> tuple[OpReason, str]:
    """Why an op without a container that ran did not start: the reason that it ends with, and a message."""
    detail = op.message or (f"its pod waits on node {pod.node}" if pod is not None and pod.node else None)
    reason = (
        _UNSTARTED.get(pod.trouble[0], OpReason.NEVER_STARTED) if pod is not None and pod.trouble else None
    )
    if op.reason == OpReason.NO_CAPACITY:
        reason = OpReason.NO_CAPACITY
    return reason or OpReason.NEVER_STARTED, detail or "its turn had not come"


def stopping(op: OpStatus, reason: str, message: str) -> OpStatus:
    """The live op, told to stop; the first reason counts."""
    if op.state == "Stopping":
        return op
    return op.model_copy(update={"state": "Stopping", "reason": str(reason), "message": cut(message)})


def ended(
    op: OpStatus,
    state: Literal["Succeeded", "Failed", "Stopped"],
    reason: str | None,
    message: str | None,
    at: datetime,
) -> OpStatus:
    """The op at its end; the end is never before the start."""
    if op.started_at is not None:
        at = max(at, parse_timestamp(op.started_at))
    return op.model_copy(
        update={
            "state": state,
            "reason": None if reason is None else str(reason),
            "message": cut(message),
            "ended_at": micro_timestamp(at),
        }
    )


def progress(ops: Sequence[OpStatus], checked: Container[int] = ()) -> dict[str, OpProgress]:
    """The progress of ops that were started or have ended, for the plan.

    An op is ready once its container ran; an op in `checked` (op indexes) once its health checks passed.
    """
    return {
        op.id: OpProgress(
            ready=(op.ready_at if op.index in checked else op.started_at) is not None, ended=op.state in OVER
        )
        for op in ops
        if op.state != "Waiting"
    }


def replace(ops: Sequence[OpStatus], changed: OpStatus) -> Ops:
    """The ops with one of them replaced by `changed`."""
    return tuple(changed if op.index == changed.index else op for op in ops)


def cut(message: str | None) -> str | None:
    """The message, cut to the length that the CRD allows."""
    return message[:MAX_MESSAGE] if message else None


# -- further attempts --------------------------------------------------------------------------------------


def split_attempts(
    pods: Iterable[PodView], ops: Sequence[OpStatus]
) -> tuple[dict[int, PodView], tuple[PodView, ...]]:
    """The pods of the current attempts by op index, and those of earlier ones, oldest first."""
    attempts = {op.index: op.attempt or 0 for op in ops}
    current: dict[int, PodView] = {}
    earlier = []
    for pod in sorted(pods, key=lambda pod: (pod.op_index, pod.attempt)):
        if pod.attempt < attempts.get(pod.op_index, 0):
            earlier.append(pod)
        else:
            earlier += [current[pod.op_index]] if pod.op_index in current else []
            current[pod.op_index] = pod
    return current, tuple(earlier)


def restarted(view: JobView, before: Ops, after: Ops) -> Ops:
    """The ops, with a further attempt for those that failed just now and may run again."""
    previous = {op.index: op for op in before}
    return tuple(_restarted(view, previous[op.index], op, view.pods.get(op.index)) for op in after)


def _restarted(view: JobView, before: OpStatus, op: OpStatus, pod: PodView | None) -> OpStatus:
    if pod is None or pod.ended is None:
        return op
    if op.state == "Stopped" and before.state == "Stopping":
        if op.reason == OpReason.UNHEALTHY:
            return _next_attempt(op, OpReason.RESTARTING, health_restarts=(op.health_restarts or 0) + 1)
        if op.reason == OpReason.SUSPENDED:
            return _next_attempt(op, OpReason.SUSPENDED)
    if op.state != "Failed" or before.state not in ("Waiting", *LIVE) or before.state == "Stopping":
        return op
    restarts = op.restarts or 0
    if pod.refused and _refusals(view, op) >= MAX_REFUSALS:
        return op.model_copy(update={"message": cut(f"{op.message}; so did {MAX_REFUSALS} earlier attempts")})
    if pod.disrupted is not None:
        return op if view.spec.node_loss_policy == "Fail" else _next_attempt(op, OpReason.NODE_LOST)
    if restarts < pod.tries and pod.ended.exit_code is not None and not pod.deleting:
        which = f" ({restarts + 1} of {pod.tries} times)"
        return _next_attempt(op, OpReason.RESTARTING, which, restarts=restarts + 1)
    return op


def _refusals(view: JobView, op: OpStatus) -> int:
    """How many attempts in a row, before the current one, failed because a kubelet refused their pods."""
    earlier = [pod for pod in view.earlier if pod.op_index == op.index]
    return len(list(takewhile(lambda pod: pod.refused, reversed(earlier))))


def _next_attempt(op: OpStatus, reason: OpReason, which: str = "", **counts: int) -> OpStatus:
    """The ended op, set to its next attempt."""
    attempt = (op.attempt or 0) + 1
    after = f"{restart_delay(attempt).seconds} s after its end"
    if reason is OpReason.SUSPENDED:
        after = "when spec.suspend is false again"
    return op.model_copy(
        update={
            "state": "Starting",
            "attempt": attempt,
            "pod": None,
            "node": None,
            "reason": str(reason),
            "message": cut(f"{op.message}; the op is run again{which} {after}"),
            **counts,
        }
    )


def restart_delay(attempt: int) -> timedelta:
    """The delay between the end of the previous attempt and the start of this one (from 1)."""
    return timedelta(seconds=min(_FIRST_WAIT << min(attempt - 1, 10), _LONGEST_WAIT))


def next_start(view: JobView, op: OpStatus) -> datetime | None:
    """When the op's next attempt starts; None when no attempt is pending."""
    pod = view.pods.get(op.index)
    has_pod = op.pod is not None or (pod is not None and pod.attempt >= (op.attempt or 0))
    if op.state != "Starting" or not op.attempt or has_pod:
        return None
    if op.ended_at is None or op.reason == OpReason.SUSPENDED:
        return view.now
    return parse_timestamp(op.ended_at) + restart_delay(op.attempt)


def starts_now(view: JobView, op: OpStatus) -> bool:
    """Whether the op's next attempt starts now; never before the status names it."""
    at = next_start(view, op)
    written = any(
        previous.index == op.index and previous.attempt == op.attempt for previous in view.status.ops
    )
    return at is not None and written and view.now >= at


def beyond_kept(view: JobView) -> list[PodView]:
    """The earlier pods beyond the number that is kept."""
    return [
        pod
        for pod in view.earlier
        if sum(1 for other in view.earlier if other.op_index == pod.op_index and other.attempt > pod.attempt)
        >= KEPT_PODS
    ]
