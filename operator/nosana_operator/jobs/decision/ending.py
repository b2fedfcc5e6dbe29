"""Decides what ends a job and how it counts then (docs/architecture.md#what-ends-a-job). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from nosana_operator.api import JobCondition, JobReason, OpStatus, Phase, find_condition, parse_timestamp
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.jobs.decision.view import Cause, JobView, Unusable

STOPS: Final = frozenset({JobReason.OWNER_ENDED, JobReason.RUN_GONE, JobReason.STOPPED, JobReason.DELETED})
"""Causes after which the job counts as stopped, whatever its ops did."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an ended job counts."""

    condition: Literal[JobCondition.COMPLETE, JobCondition.FAILED]
    reason: JobReason
    message: str
    flow_status: FlowStatus


_OWNER_ENDED: Final = Cause(JobReason.OWNER_ENDED, "the owner ended the job on chain")
_RUN_GONE: Final = Cause(JobReason.RUN_GONE, "the run was closed on chain by somebody else")
_DELETED: Final = Cause(JobReason.DELETED, "the NosanaJob was deleted")
_STOPPED: Final = Cause(JobReason.STOPPED, "spec.stop was set")
_EXPIRED: Final = Cause(JobReason.EXPIRED, "the job's time is up")


def recorded_cause(view: JobView) -> Cause | None:
    """The cause that was written before the pods were stopped; the first cause counts, also after a restart."""
    if view.unwritten_cause is not None:
        return view.unwritten_cause
    ready = find_condition(view.conditions, JobCondition.READY)
    if view.status.phase != "Stopping" or ready is None:
        return None
    try:
        return Cause(JobReason(ready["reason"]), str(ready["message"]))
    except ValueError:
        return None


def new_cause(view: JobView) -> Cause | None:
    """Why the job has to end now although its ops are not done; None: it goes on."""
    run = view.status.run
    if run is not None and run.ended is not None:
        return _OWNER_ENDED if run.ended == "OwnerEnded" else _RUN_GONE
    if view.deleting:
        return _DELETED
    if view.spec.stop:
        return _STOPPED
    moment = expiry(view)
    if moment is not None and view.now >= moment:
        if run is not None and run.max_timeout is not None:
            return Cause(JobReason.EXPIRED, f"this host serves a job for {run.max_timeout} s at most")
        return _EXPIRED
    return None


def expiry(view: JobView) -> datetime | None:
    """When the job expires, by our clock; None: never, or not known yet (docs/architecture.md#clocks)."""
    if view.is_market_job:
        run = view.status.run
        return parse_timestamp(run.expires_at) if run is not None and run.expires_at else None
    start = view.first_start
    if view.spec.timeout is None or start is None:
        return None
    try:
        return start + timedelta(seconds=view.spec.timeout)
    except OverflowError:
        return None


def verdict(cause: Cause | None, ops: Sequence[OpStatus]) -> Verdict:
    """How a job counts whose ops have all ended, by themselves or because of `cause`."""
    if cause is not None and cause.reason in STOPS:
        return Verdict(JobCondition.COMPLETE, cause.reason, cause.message, FlowStatus.STOPPED)
    failed = [op for op in ops if op.state == "Failed"]
    if failed:
        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        detail = failed[0].message or failed[0].reason or "failed"
        message = f"op {failed[0].id!r} failed{more}: {detail}"
        if failed[0].reason == JobReason.NO_CAPACITY and not any(op.started_at for op in ops):
            return Verdict(JobCondition.FAILED, JobReason.NO_CAPACITY, message[:4096], FlowStatus.FAILED)
        return Verdict(JobCondition.FAILED, JobReason.OP_FAILED, message[:4096], FlowStatus.FAILED)
    if cause is not None:
        return Verdict(JobCondition.COMPLETE, cause.reason, cause.message, FlowStatus.SUCCESS)
    return Verdict(JobCondition.COMPLETE, JobReason.SUCCEEDED, "all ops succeeded", FlowStatus.SUCCESS)


def unusable_verdict(definition: Unusable) -> Verdict:
    """How a job counts whose definition can never run."""
    return Verdict(JobCondition.FAILED, definition.reason, definition.message, definition.flow_status)


def final_phase(view: JobView) -> Phase:
    """The phase of an ended job that has nothing left to settle."""
    complete = find_condition(view.conditions, JobCondition.COMPLETE)
    if complete is None or complete["status"] != "True":
        return "Failed"
    return "Stopped" if complete["reason"] in STOPS else "Completed"
