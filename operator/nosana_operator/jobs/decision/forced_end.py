"""Decides how a job ends whose reconcile keeps failing. Pure.

Much of a reconcile can fail because of a poster or the cluster: rendering pods, capturing results, reading logs,
building the result, writing the status. The end of a job must not depend on any of it:

    reconcile raises ─▶ is the job's end due? ── no ──▶ report the problem on the object
                                 │ yes
                                 ▼
                  stop its pods at once, as the normal way would
                                 │ its pods have ended, and the reconcile has failed for FORCE_AFTER
                                 ▼
                  minimal result (the ops without logs) ─▶ Complete or Failed ─▶ the normal way releases the pods

A job's end is due when it expired, was stopped, deleted or ended on chain, or when all its ops have ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from nosana_operator.api import JobReason, NosanaJobSpec, NosanaJobStatus, OpStatus
from nosana_operator.jobs.decision.decide import end_job, under_way
from nosana_operator.jobs.decision.effects import Decision, RecordEvent
from nosana_operator.jobs.decision.ending import new_cause, recorded_cause
from nosana_operator.jobs.decision.events import events_of_change
from nosana_operator.jobs.decision.ops import OVER, advance, ops_of_pods, stopped
from nosana_operator.jobs.decision.schedule import end_all
from nosana_operator.jobs.decision.status import all_over, own_part, stalled_status
from nosana_operator.jobs.decision.view import Cause, JobView

FORCE_AFTER: Final = timedelta(minutes=5)
"""How long the normal way may fail past the job's end: logs and API servers have outages of a minute."""
_GIVE_UP_PODS: Final = timedelta(minutes=10)
"""How long a pod that does not end keeps the job from ending."""
RETRY_AFTER: Final = 15.0
"""Seconds between two attempts."""

Model = TypeVar("Model", bound=BaseModel)


def readable_spec(body: Mapping[str, Any]) -> NosanaJobSpec:
    """The fields of the spec that this version can read; the others have their defaults."""
    return _readable(NosanaJobSpec, body.get("spec") or {})


def readable_status(body: Mapping[str, Any]) -> NosanaJobStatus:
    """The fields of the status that this version can read; the others have their defaults."""
    return _readable(NosanaJobStatus, body.get("status") or {})


def end_cause(view: JobView) -> Cause | None:
    """Why the job's end is due, other than by the end of its ops."""
    return recorded_cause(view) or new_cause(view)


def force_end(
    view: JobView, failing_since: datetime, problem: str, *, report: bool = True, keep_result: bool = True
) -> Decision:
    """The step of a job whose reconcile fails because of `problem`.

    `report=False` for a problem that usually passes by itself: it is then reported after FORCE_AFTER only.
    `keep_result=False` when the result cannot be stored either; the job then ends without one.
    """
    cause = end_cause(view)
    ops = view.status.ops or ops_of_pods(view.pods)
    if view.unwritten_cause is not None:
        ops = end_all(view, ops, view.unwritten_cause)
    ops = advance(ops, view.pods, frozenset(), view.now)
    failing = view.now - failing_since
    alive = any(pod.ended is None for pod in (*view.earlier, *view.pods.values()))
    if cause is None and not (ops and all_over(ops)):
        return _reported(view, Decision(), problem) if report else Decision()
    if failing < FORCE_AFTER or (alive and failing < _GIVE_UP_PODS):
        decision = Decision() if cause is None else under_way(view, end_all(view, ops, cause), cause)
        decision = replace(decision, requeue_after=RETRY_AFTER)
        return _reported(view, decision, problem) if report else decision
    message = f"{problem}; the result has no logs"
    if cause is not None:
        ops = end_all(view, ops, cause)
    ended_ops = tuple(op if op.state in OVER else stopped(op, view.now) for op in ops)
    decision = end_job(view, ended_ops, cause, problem=message, keep_result=keep_result)
    if decision.before:
        return decision
    warning = RecordEvent("Warning", JobReason.RECONCILE_FAILED, "End", message)
    return replace(decision, events=(warning, *decision.events), requeue_after=RETRY_AFTER)


def _reported(view: JobView, decision: Decision, problem: str) -> Decision:
    """The decision, with the problem in the Stalled condition."""
    before = own_part(view.body.get("status"))
    planned = decision.status if decision.status is not None else before
    status = stalled_status(view, planned, JobReason.RECONCILE_FAILED, problem)
    if status == before:
        return replace(decision, status=None)
    return replace(decision, status=status, events=events_of_change(before, status))


def _readable(model: type[Model], data: Mapping[str, Any]) -> Model:
    fields = {name: value for name, value in data.items() if _accepts(model, {name: value})}
    if model is NosanaJobStatus and "ops" not in fields:
        fields["ops"] = [op for op in data.get("ops") or () if _accepts(OpStatus, op)]
    return model.model_validate(fields)


def _accepts(model: type[BaseModel], data: Any) -> bool:
    try:
        model.model_validate(data)
    except ValidationError:
        return False
    return True
