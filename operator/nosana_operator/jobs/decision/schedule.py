"""Decides which ops start, stop or wait, and until when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import JobReason, OpStatus, parse_timestamp
from nosana_operator.definition import DefinitionError, LiteralError, next_ops
from nosana_operator.jobs.decision.effects import StartOp
from nosana_operator.jobs.decision.ending import expiry
from nosana_operator.jobs.decision.ops import (
    DETAIL_AFTER,
    LIVE,
    OVER,
    OpReason,
    Ops,
    cut,
    ended,
    next_start,
    progress,
    replace,
    silent_limit,
    starts_now,
    stopped,
    stopping,
    unstarted,
    worth_a_write,
)
from nosana_operator.jobs.decision.start_limits import capacity_limit, give_up_limit
from nosana_operator.jobs.decision.view import Cause, JobView, Loaded, Loading, PodView, Unusable
from nosana_operator.workload import build_op_objects

REFUSED_LIMIT: Final = timedelta(seconds=60)
"""A new namespace refuses pods until its service account exists."""


def schedule(view: JobView, ops: Ops) -> tuple[Ops, tuple[StartOp, ...]]:
    """The ops that start and stop now, by the plan and the time limits."""
    definition = view.definition
    if isinstance(definition, Loading):
        return ops, ()
    if isinstance(definition, Unusable) or not _same_ops(definition, ops):
        # Somebody changed the ConfigMap or Secret. Running ops go on; no further op starts.
        message = "the definition was changed after the job had started; create another NosanaJob"
        for op in ops:
            if op.state == "Waiting" or next_start(view, op):
                ops = replace(ops, ended(op, "Failed", OpReason.DEFINITION_CHANGED, message, view.now))
        return ops, ()
    for op in ops:
        at = _op_limit(view, definition, op)
        if at is not None and view.now >= at:
            ops = replace(ops, _with_stop(view, op, OpReason.EXPIRED, "its execution.timeout is over"))
        given_up = give_up_limit(view, op)
        if given_up is not None and view.now >= given_up[0]:
            message = f"given up: {op.message}"
            ops = replace(ops, stopping(op, given_up[1], message))
    starts: list[StartOp] = []
    stable = False
    while not stable:
        stable = True
        starts = []
        by_id = {op.id: op for op in ops}
        step = next_ops(definition.plan, progress(ops, definition.checks))
        for ended_op in step.never:
            ops = replace(
                ops, ended(by_id[ended_op.op], "Failed", OpReason.DEPENDENCY_ENDED, ended_op.reason, view.now)
            )
            stable = False
        for ended_op in step.stop:
            ops = replace(
                ops, _with_stop(view, by_id[ended_op.op], OpReason.DEPENDENCY_ENDED, ended_op.reason)
            )
        repeated = [op.id for op in ops if starts_now(view, op)]
        for name in (*step.start, *repeated):
            prepared = _prepare(view, definition, by_id[name])
            if isinstance(prepared, StartOp):
                starts.append(prepared)
            elif prepared is not by_id[name]:
                ops = replace(ops, prepared)
                stable = prepared.state == "Waiting" and stable
    return ops, tuple(starts)


def _prepare(view: JobView, definition: Loaded, op: OpStatus) -> StartOp | OpStatus:
    """The start of the op; or the updated op when it cannot start now, or never can."""
    refusal = view.refused.get(op.index)
    if refusal is not None:
        reason = OpReason.NO_CAPACITY if refusal.no_room else OpReason.POD_REFUSED
        limit = capacity_limit(view) if refusal.no_room else REFUSED_LIMIT
        if limit is not None and view.now - refusal.since >= limit:
            return ended(op, "Failed", reason, refusal.message, view.now)
        if view.now < refusal.again_at:
            return op.model_copy(update={"reason": str(reason), "message": cut(refusal.message)})
    try:
        refusing = tuple(sorted({pod.node for pod in view.earlier if pod.refused and pod.node}))
        bodies = build_op_objects(definition.context, op.index, attempt=op.attempt or 0, avoid_nodes=refusing)
        return StartOp(op.index, tuple(bodies))
    except DefinitionError as error:
        reason = OpReason.LITERAL_INVALID if isinstance(error, LiteralError) else OpReason.ARGS_INVALID
        return ended(op, "Failed", reason, str(error), view.now)


def _same_ops(definition: Loaded, ops: Sequence[OpStatus]) -> bool:
    return [(op.id, op.stage) for op in ops] == [
        (op.id, op.group) for op in definition.context.definition.ops
    ]


def _op_limit(view: JobView, definition: Loaded, op: OpStatus) -> datetime | None:
    """When a running op's `execution.timeout` ends; it counts from the container's start."""
    pod = view.pods.get(op.index)
    planned = next(p for s in definition.plan.stages for p in s.ops if p.index == op.index)
    start = pod.started_at if pod is not None and op.state == "Running" else None
    if op.started_at is not None and (op.attempt or op.restarts) and op.state in ("Starting", "Running"):
        # All attempts share the time that began with the first container.
        start = parse_timestamp(op.started_at)
    if planned.timeout is None or start is None:
        return None
    try:
        return start + timedelta(seconds=planned.timeout)
    except OverflowError:
        return None


def _with_stop(view: JobView, op: OpStatus, reason: str, message: str) -> OpStatus:
    """The op, told to stop; an op that waits for its next attempt stops at once."""
    asked_to_stop = stopping(op, reason, message)
    return stopped(asked_to_stop, view.now) if next_start(view, op) is not None else asked_to_stop


def suspend(view: JobView, ops: Ops) -> Ops:
    """The ops, with the running ones told to stop; those that wait for their next attempt go on waiting."""
    return tuple(
        stopping(op, OpReason.SUSPENDED, "spec.suspend was set")
        if op.state in LIVE and next_start(view, op) is None
        else op
        for op in ops
    )


def end_all(view: JobView, ops: Ops, cause: Cause) -> Ops:
    """The ops, all told to stop because of `cause`."""
    for op in ops:
        pod = view.pods.get(op.index)
        if cause.reason is JobReason.EXPIRED and op.state not in OVER and not _has_run(op, pod):
            # Only an op that ran until the time was up has done what its poster asked for.
            reason, detail = unstarted(op, pod)
            message = f"the op had not started when {cause.message}: {detail}"
            ops = replace(ops, _failed_unstarted(view, op, pod, reason, message))
        elif op.state == "Waiting":
            message = f"the op had not started when {cause.message}"
            ops = replace(ops, ended(op, "Stopped", OpReason.NEVER_STARTED, message, view.now))
        elif op.state not in OVER:
            ops = replace(ops, _with_stop(view, op, cause.reason, cause.message))
    return ops


def _has_run(op: OpStatus, pod: PodView | None) -> bool:
    return op.started_at is not None or (pod is not None and pod.started_at is not None)


def _failed_unstarted(
    view: JobView, op: OpStatus, pod: PodView | None, reason: OpReason, message: str
) -> OpStatus:
    has_pod = op.pod is not None or (pod is not None and pod.ended is None)
    if op.state == "Waiting" or not has_pod or next_start(view, op) is not None:
        return ended(op, "Failed", reason, message, view.now)
    return stopping(op, reason, message)


def time_limits(view: JobView, ops: Sequence[OpStatus], cause: Cause | None) -> list[datetime]:
    """The moments at which the passing of time alone changes the decision."""
    moments = [
        at for op in ops if (pod := view.pods.get(op.index)) is not None and (at := silent_limit(op, pod))
    ]
    if cause is not None:
        return moments
    moments += [end] if (end := expiry(view)) else []
    if view.suspended:
        return moments
    if isinstance(view.definition, Loaded):
        moments += [at for op in ops if (at := _op_limit(view, view.definition, op))]
        moments += [
            view.refused[op.index].again_at
            for op in ops
            if op.index in view.refused and (op.state == "Waiting" or next_start(view, op))
        ]
        moments += [at for op in ops if (at := next_start(view, op)) and op.index not in view.refused]
    moments += [given_up[0] for op in ops if (given_up := give_up_limit(view, op))]
    moments += [
        pod.scheduled_at + DETAIL_AFTER
        for pod in view.pods.values()
        if pod.scheduled_at is not None and not worth_a_write(pod, view.now)
    ]
    return moments
