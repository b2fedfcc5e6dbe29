"""How each op stands, from what was written before and what its pod shows now. Pure.

Waiting ──▶ Starting ──▶ Running ──▶ Succeeded | Failed
   │            └─────┬─────┘
   │               Stopping ──▶ Succeeded (its time was up) | Stopped
   └──▶ Failed (it can never start) | Stopped
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal

from nosana_operator.api import OpStatus, micro_timestamp, parse_timestamp
from nosana_operator.definition import Definition, OpProgress
from nosana_operator.jobs.decision.view import PodView

Ops = tuple[OpStatus, ...]

LIVE: Final = frozenset({"Starting", "Running", "Stopping"})
"""States in which an op has a pod that has not ended."""
OVER: Final = frozenset({"Succeeded", "Failed", "Stopped"})
DETAIL_AFTER: Final = timedelta(seconds=5)
SILENT_PATIENCE: Final = timedelta(minutes=5)
_LONGEST_MESSAGE: Final = 4096


class OpReason(StrEnum):
    """Why an op stands as it does; a kubelet's own words (OOMKilled, Evicted, …) come beside these."""

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


GIVEN_UP: Final = frozenset({OpReason.IMAGE_PULL, OpReason.NOT_CREATED, OpReason.NO_CAPACITY})
"""Reasons for which an op that never started is not waited for any longer: it has failed."""


def waiting(definition: Definition) -> Ops:
    """All ops of a definition before anything starts."""
    return tuple(
        OpStatus(id=op.id, index=index, stage=op.group, state="Waiting")
        for index, op in enumerate(definition.ops)
    )


def of_pods(pods: Mapping[int, PodView]) -> Ops:
    """The ops that have pods, where no definition tells of the others."""
    return tuple(
        OpStatus(id=pod.op_id, index=index, stage=pod.op_id, state="Starting", pod=pod.name)
        for index, pod in sorted(pods.items())
    )


def made(ops: Ops, volumes: frozenset[int], now: datetime) -> Ops:
    """The ops with those whose volume is there ended."""
    at = micro_timestamp(now)
    return tuple(
        op.model_copy(update={"state": "Succeeded", "exit_code": 0, "started_at": at, "ended_at": at})
        if op.state == "Waiting" and op.index in volumes
        else op
        for op in ops
    )


def advance(ops: Sequence[OpStatus], pods: Mapping[int, PodView], lost: frozenset[int], now: datetime) -> Ops:
    """The ops as their pods say; an op that has ended stays as it is."""
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
            f"pod {op.pod} is gone without a trace; the op is not run a second time",
            now,
        )
    op = op.model_copy(
        update={
            "pod": pod.name,
            "node": pod.node if told(pod, now) else op.node,
            "restarts": op.restarts if pod.restarts == 0 else pod.restarts,
            "started_at": op.started_at or (micro_timestamp(pod.start_stamp) if pod.start_stamp else None),
        }
    )
    if pod.ended is not None:
        return _outcome(op, pod, now)
    # Of the run before, when there was one.
    op = op.model_copy(update={"exit_code": None, "ended_at": None})
    if op.state == "Stopping":
        at = silent_limit(op, pod)
        if at is None or now < at:
            return op
        said = f"{op.message}; node {pod.node} does not report, and so whether it has stopped is not known"
        return stopped(op.model_copy(update={"message": said}), now)
    if pod.started_at is not None:
        reason, message = pod.trouble or (None, None)
        if pod.silent_since is not None:
            reason = OpReason.NODE_SILENT.value
            message = f"node {pod.node} does not report; whether the op runs is not known"
        return op.model_copy(update={"state": "Running", "reason": reason, "message": message})
    reason, message = pod.trouble or (None, None)
    return op.model_copy(update={"state": "Starting", "reason": reason, "message": cut(message)})


def silent_limit(op: OpStatus, pod: PodView) -> datetime | None:
    """When an op that was told to stop is no longer waited for: its node is silent, and its time is paid for.

    Whoever asks for the end of a job wants it also when nobody can see the pod end. It is stopped as soon as
    its node is back.
    """
    if op.state != "Stopping" or pod.silent_since is None or pod.ended is not None:
        return None
    return pod.silent_since + SILENT_PATIENCE


def told(pod: PodView, now: datetime) -> bool:
    """Whether the pod's way to its start is worth a write of the status by itself.

    Being placed and started lie a moment apart as a rule, and one write then tells both; when an image is
    pulled in between, people want to know where.
    """
    if pod.started_at is not None or pod.ended is not None:
        return True
    return pod.scheduled_at is not None and now - pod.scheduled_at >= DETAIL_AFTER


def _outcome(op: OpStatus, pod: PodView, now: datetime) -> OpStatus:
    end = pod.ended
    assert end is not None  # noqa: S101 - the caller looked
    op = op.model_copy(update={"exit_code": end.exit_code})
    if op.state == "Stopping":
        return stopped(op, end.by)
    if pod.disrupted is not None:
        message = f"pod {pod.name} was taken off node {pod.node}: {pod.disrupted}"
        return ended(op, "Failed", OpReason.NODE_LOST, message, end.by)
    if pod.deleting:
        message = f"pod {pod.name} was deleted by somebody else; delete or stop the NosanaJob instead"
        return ended(op, "Failed", OpReason.POD_DELETED, message, end.by)
    if end.exit_code == 0 and end.reason is None:
        return ended(op, "Succeeded", None, None, end.by)
    code = f"exit code {end.exit_code}" if end.exit_code is not None else "its container never ran"
    said = f"{code}: {end.message}" if end.message else code
    return ended(op, "Failed", end.reason or OpReason.EXIT_CODE, said, end.by)


def stopped(op: OpStatus, at: datetime) -> OpStatus:
    """An op that was told to stop, and has."""
    if op.reason == OpReason.EXPIRED and op.started_at is not None:
        return ended(op, "Succeeded", op.reason, op.message, at)
    if op.reason in GIVEN_UP:
        return ended(op, "Failed", op.reason, op.message, at)
    return ended(op, "Stopped", op.reason, op.message, at)


def stopping(op: OpStatus, reason: str, message: str) -> OpStatus:
    """Tell a live op to stop; the first reason counts."""
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
    """The op at its end; never before its start."""
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
    """What the plan has to know of ops that were started or ended.

    An op is ready once its container ran; one of `checked` (op indexes) once its health checks have passed.
    """
    return {
        op.id: OpProgress(
            ready=(op.ready_at if op.index in checked else op.started_at) is not None, ended=op.state in OVER
        )
        for op in ops
        if op.state != "Waiting"
    }


def replace(ops: Sequence[OpStatus], changed: OpStatus) -> Ops:
    """The ops with that one changed."""
    return tuple(changed if op.index == changed.index else op for op in ops)


def cut(message: str | None) -> str | None:
    """A message as long as a status takes it."""
    return message[:_LONGEST_MESSAGE] if message else None
