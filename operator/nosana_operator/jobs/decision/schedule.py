"""Decides which ops start, stop or wait, and until when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus, parse_timestamp
from nosana_operator.definition import DefinitionError, LiteralError, next_ops
from nosana_operator.jobs.decision.effects import StartOp
from nosana_operator.jobs.decision.ending import expiry
from nosana_operator.jobs.decision.ops import (
    DETAIL_AFTER,
    LIVE,
    OVER,
    OpReason,
    Ops,
    ended,
    next_start,
    progress,
    replace,
    silent_limit,
    starts_now,
    stopped,
    stopping,
    worth_a_write,
)
from nosana_operator.jobs.decision.start_limits import give_up_limit
from nosana_operator.jobs.decision.view import Cause, JobView, Loaded, Loading, Unusable
from nosana_operator.workload import build_op_objects

REFUSED_LIMIT: Final = timedelta(seconds=60)
"""A new namespace refuses pods until its service account exists; a quota may free up."""


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
        if view.now - refusal.since >= REFUSED_LIMIT:
            return ended(op, "Failed", OpReason.POD_REFUSED, refusal.message, view.now)
        if view.now < refusal.again_at:
            return op.model_copy(update={"reason": str(OpReason.POD_REFUSED), "message": refusal.message})
    try:
        bodies = build_op_objects(definition.context, op.index, attempt=op.attempt or 0)
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
        if op.state == "Waiting":
            message = f"the op had not started when {cause.message}"
            ops = replace(ops, ended(op, "Stopped", OpReason.NEVER_STARTED, message, view.now))
        elif op.state not in OVER:
            ops = replace(ops, _with_stop(view, op, cause.reason, cause.message))
    return ops


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
