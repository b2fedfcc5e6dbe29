"""Running an op again: after a failure that its restart policy allows, and after the loss of its node. Pure.

Each run is a pod of its own, numbered by `attempt`. That an op runs again is written before its next pod is
made; the waits between are the kubelet's: 10 s, doubled each time, 5 minutes at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus, parse_timestamp
from nosana_operator.jobs.decision.ops import LIVE, OpReason, Ops, cut
from nosana_operator.jobs.decision.view import JobView, PodView

KEEP: Final = 5
"""Earlier pods of an op that are kept for their logs."""
_FIRST_WAIT: Final = 10
_LONGEST_WAIT: Final = 300


def split(pods: Iterable[PodView], ops: Sequence[OpStatus]) -> tuple[dict[int, PodView], tuple[PodView, ...]]:
    """The pods of the current attempts by op index, and those of earlier ones, oldest first."""
    wanted = {op.index: op.attempt or 0 for op in ops}
    current: dict[int, PodView] = {}
    earlier = []
    for pod in sorted(pods, key=lambda pod: (pod.op_index, pod.attempt)):
        if pod.attempt < wanted.get(pod.op_index, 0):
            earlier.append(pod)
        else:
            earlier += [current[pod.op_index]] if pod.op_index in current else []
            current[pod.op_index] = pod
    return current, tuple(earlier)


def again(view: JobView, before: Ops, after: Ops) -> Ops:
    """The ops with those that failed just now and may run again told to do so."""
    known = {op.index: op for op in before}
    return tuple(_again(view, known[op.index], op, view.pods.get(op.index)) for op in after)


def _again(view: JobView, before: OpStatus, op: OpStatus, pod: PodView | None) -> OpStatus:
    if pod is None or pod.ended is None:
        return op
    if op.state == "Stopped" and before.state == "Stopping":
        if op.reason == OpReason.UNHEALTHY:
            return _anew(op, OpReason.RESTARTING, health_restarts=(op.health_restarts or 0) + 1)
        if op.reason == OpReason.SUSPENDED:
            return _anew(op, OpReason.SUSPENDED)
    if op.state != "Failed" or before.state not in ("Waiting", *LIVE) or before.state == "Stopping":
        return op
    restarts = op.restarts or 0
    if pod.disrupted is not None:
        return op if view.spec.node_loss_policy == "Fail" else _anew(op, OpReason.NODE_LOST)
    if restarts < pod.tries and pod.ended.exit_code is not None and not pod.deleting:
        which = f" ({restarts + 1} of {pod.tries} times)"
        return _anew(op, OpReason.RESTARTING, which, restarts=restarts + 1)
    return op


def _anew(op: OpStatus, reason: OpReason, which: str = "", **counts: int) -> OpStatus:
    """The op that has ended, with another run ahead of it."""
    attempt = (op.attempt or 0) + 1
    after = f"{wait(attempt).seconds} s after its end"
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


def wait(attempt: int) -> timedelta:
    """How long after the end of the run before it the attempt (from 1) begins."""
    return timedelta(seconds=min(_FIRST_WAIT << min(attempt - 1, 10), _LONGEST_WAIT))


def due(view: JobView, op: OpStatus) -> datetime | None:
    """When an op that runs again gets its next pod; None when it waits for none."""
    pod = view.pods.get(op.index)
    has_pod = op.pod is not None or (pod is not None and pod.attempt >= (op.attempt or 0))
    if op.state != "Starting" or not op.attempt or has_pod:
        return None
    if op.ended_at is None or op.reason == OpReason.SUSPENDED:
        return view.now
    return parse_timestamp(op.ended_at) + wait(op.attempt)


def starts_again(view: JobView, op: OpStatus) -> bool:
    """Whether its next pod is due; not before the status tells of it."""
    at = due(view, op)
    written = any(known.index == op.index and known.attempt == op.attempt for known in view.status.ops)
    return at is not None and written and view.now >= at


def spent(view: JobView) -> list[PodView]:
    """Earlier pods that are more than are kept."""
    return [
        pod
        for pod in view.earlier
        if sum(1 for other in view.earlier if other.op_index == pod.op_index and other.attempt > pod.attempt)
        >= KEEP
    ]
