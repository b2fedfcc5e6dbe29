"""Which ops start, stop, or wait, and until when: the part of a decision about ops under way. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus, parse_timestamp
from nosana_operator.definition import DefinitionError, LiteralError, next_ops
from nosana_operator.jobs.decision.attempts import due, starts_again
from nosana_operator.jobs.decision.effects import StartOp
from nosana_operator.jobs.decision.ending import Cause, expiry
from nosana_operator.jobs.decision.ops import (
    DETAIL_AFTER,
    LIVE,
    OVER,
    OpReason,
    Ops,
    ended,
    progress,
    replace,
    silent_limit,
    stopped,
    stopping,
    told,
)
from nosana_operator.jobs.decision.start_limits import limit
from nosana_operator.jobs.decision.view import JobView, Loaded, Loading, Unusable
from nosana_operator.workload import op_objects

REFUSED_PATIENCE: Final = timedelta(seconds=60)
"""A fresh namespace refuses pods until its service account is there; a quota may free up."""


def schedule(view: JobView, ops: Ops) -> tuple[Ops, tuple[StartOp, ...]]:
    """Which ops start and stop now, by plan and time limits."""
    definition = view.definition
    if isinstance(definition, Loading):
        return ops, ()
    if isinstance(definition, Unusable) or not _same_ops(definition, ops):
        # Its ConfigMap or Secret was changed under it. What runs goes on; nothing else is started.
        message = "the definition was changed after the job had started; make another NosanaJob"
        for op in ops:
            if op.state == "Waiting" or due(view, op):
                ops = replace(ops, ended(op, "Failed", OpReason.DEFINITION_CHANGED, message, view.now))
        return ops, ()
    for op in ops:
        at = _op_limit(view, definition, op)
        if at is not None and view.now >= at:
            ops = replace(ops, _halted(view, op, OpReason.EXPIRED, "its execution.timeout is over"))
        hopeless = limit(view, op)
        if hopeless is not None and view.now >= hopeless[0]:
            said = f"given up: {op.message}"
            ops = replace(ops, stopping(op, hopeless[1], said))
    starts: list[StartOp] = []
    settled = False
    while not settled:
        settled = True
        starts = []
        by_id = {op.id: op for op in ops}
        step = next_ops(definition.plan, progress(ops, definition.checks))
        for halt in step.never:
            ops = replace(
                ops, ended(by_id[halt.op], "Failed", OpReason.DEPENDENCY_ENDED, halt.reason, view.now)
            )
            settled = False
        for halt in step.stop:
            ops = replace(ops, _halted(view, by_id[halt.op], OpReason.DEPENDENCY_ENDED, halt.reason))
        repeated = [op.id for op in ops if starts_again(view, op)]
        for name in (*step.start, *repeated):
            prepared = _prepare(view, definition, by_id[name])
            if isinstance(prepared, StartOp):
                starts.append(prepared)
            elif prepared is not by_id[name]:
                ops = replace(ops, prepared)
                settled = prepared.state == "Waiting" and settled
    return ops, tuple(starts)


def _prepare(view: JobView, definition: Loaded, op: OpStatus) -> StartOp | OpStatus:
    """Start the op, or the op as it stands when that is not possible now, or never."""
    refusal = view.refused.get(op.index)
    if refusal is not None:
        if view.now - refusal.since >= REFUSED_PATIENCE:
            return ended(op, "Failed", OpReason.POD_REFUSED, refusal.message, view.now)
        if view.now < refusal.again_at:
            return op.model_copy(update={"reason": str(OpReason.POD_REFUSED), "message": refusal.message})
    try:
        bodies = op_objects(definition.context, op.index, attempt=op.attempt or 0)
        return StartOp(op.index, tuple(bodies))
    except DefinitionError as error:
        reason = OpReason.LITERAL_INVALID if isinstance(error, LiteralError) else OpReason.ARGS_INVALID
        return ended(op, "Failed", reason, str(error), view.now)


def _same_ops(definition: Loaded, ops: Sequence[OpStatus]) -> bool:
    return [(op.id, op.stage) for op in ops] == [
        (op.id, op.group) for op in definition.context.definition.ops
    ]


def _op_limit(view: JobView, definition: Loaded, op: OpStatus) -> datetime | None:
    """When a running op's own time is up (`execution.timeout`, from its container's start)."""
    pod = view.pods.get(op.index)
    planned = next(p for s in definition.plan.stages for p in s.ops if p.index == op.index)
    start = pod.started_at if pod is not None and op.state == "Running" else None
    if op.started_at is not None and (op.attempt or op.restarts) and op.state in ("Starting", "Running"):
        # Its first container's, also when it runs again.
        start = parse_timestamp(op.started_at)
    if planned.timeout is None or start is None:
        return None
    try:
        return start + timedelta(seconds=planned.timeout)
    except OverflowError:
        return None


def _halted(view: JobView, op: OpStatus, reason: str, message: str) -> OpStatus:
    """The op told to stop; one that waits to be run again has nothing to stop."""
    told_to = stopping(op, reason, message)
    return stopped(told_to, view.now) if due(view, op) is not None else told_to


def suspend(view: JobView, ops: Ops) -> Ops:
    """What runs told to stop; what waits to be run again goes on waiting."""
    return tuple(
        stopping(op, OpReason.SUSPENDED, "spec.suspend was set")
        if op.state in LIVE and due(view, op) is None
        else op
        for op in ops
    )


def end_all(view: JobView, ops: Ops, why: Cause) -> Ops:
    """Every op told to end because of `why`."""
    for op in ops:
        if op.state == "Waiting":
            message = f"it had not started when {why.message}"
            ops = replace(ops, ended(op, "Stopped", OpReason.NEVER_STARTED, message, view.now))
        elif op.state not in OVER:
            ops = replace(ops, _halted(view, op, why.reason, why.message))
    return ops


def time_limits(view: JobView, ops: Sequence[OpStatus], why: Cause | None) -> list[datetime]:
    """The moments at which the passing of time alone changes something."""
    moments = [
        at for op in ops if (pod := view.pods.get(op.index)) is not None and (at := silent_limit(op, pod))
    ]
    if why is not None:
        return moments
    moments += [end] if (end := expiry(view)) else []
    if view.suspended:
        return moments
    if isinstance(view.definition, Loaded):
        moments += [at for op in ops if (at := _op_limit(view, view.definition, op))]
        moments += [
            view.refused[op.index].again_at
            for op in ops
            if op.index in view.refused and (op.state == "Waiting" or due(view, op))
        ]
        moments += [at for op in ops if (at := due(view, op)) and op.index not in view.refused]
    moments += [hopeless[0] for op in ops if (hopeless := limit(view, op))]
    moments += [
        pod.scheduled_at + DETAIL_AFTER
        for pod in view.pods.values()
        if pod.scheduled_at is not None and not told(pod, view.now)
    ]
    return moments
