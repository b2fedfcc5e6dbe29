"""Decides what to do next for a NosanaJob: from one frozen view to effects and a status. Pure.

A decision either asks for effects first (`before`), after which the controller decides again, or it states the
whole status and the effects that follow it (`after`):

    view ─▶ decide ─▶ before: create pods, capture results, store the result ─▶ new view ─▶ decide …
                  └─▶ status ─▶ after: stop pods, release pods, remove the finalizer

Pods are created before the status names them: their names are fixed and they carry our finalizer, so a process
that crashed in between finds them again. Pods are stopped only after the status says why. Results are stored
before the job counts as ended, and pods are released after that, because until then their logs may be needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as altered
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import (
    JobCondition,
    JobReason,
    OpStatus,
    Phase,
    condition_is_true,
    find_condition,
    micro_timestamp,
    parse_timestamp,
)
from nosana_operator.definition import Problem
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.jobs.decision.aliases import changed_aliases
from nosana_operator.jobs.decision.captures import (
    may_have_results,
    to_capture,
    with_known_results,
    with_results,
)
from nosana_operator.jobs.decision.effects import (
    AddFinalizer,
    After,
    Decision,
    DeleteChild,
    DeletePod,
    ReleasePod,
    RemoveFinalizer,
    StartOp,
    StopPod,
    StoreResult,
)
from nosana_operator.jobs.decision.ending import (
    Verdict,
    expiry,
    final_phase,
    new_cause,
    recorded_cause,
    unusable_verdict,
    verdict,
)
from nosana_operator.jobs.decision.events import events_of_change
from nosana_operator.jobs.decision.health import unhealthy, with_health
from nosana_operator.jobs.decision.ops import (
    OVER,
    OpReason,
    Ops,
    advance,
    beyond_kept,
    initial_ops,
    ops_of_pods,
    restarted,
    with_volumes,
)
from nosana_operator.jobs.decision.schedule import end_all, schedule, suspend, time_limits
from nosana_operator.jobs.decision.status import ConditionValue, all_over, current_condition, own_part, render
from nosana_operator.jobs.decision.view import (
    Cause,
    JobView,
    Loaded,
    Loading,
    PodView,
    Unusable,
    UnusableFlow,
)

QUIET_FETCH: Final = timedelta(seconds=2)
"""Usually the definition is loaded sooner, and then one write covers both."""
QUIET_UNVERIFIED: Final = timedelta(seconds=10)
GIVE_UP_DEFINITION: Final = timedelta(minutes=2)
"""The limit for a market's job, because its poster pays meanwhile."""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""The wall clock may be set while a timer runs, and a decision costs no request."""


def decide(view: JobView) -> Decision:
    """The next step of the job."""
    if view.over:
        return _after_the_end(view)
    if not view.may_run and not view.status.ops:
        return _unverified(view)
    view = with_known_results(_with_deadline(view))
    before = _current_ops(view)
    if view.unwritten_cause is not None:
        before = end_all(view, before, view.unwritten_cause)
    ops = with_volumes(advance(before, view.pods, view.lost, view.now), view.volumes, view.now)
    starts: tuple[StartOp, ...] = ()
    cause = recorded_cause(view)
    if cause is None:
        ongoing = restarted(view, before, ops)
        if not _nothing_left(view, ongoing):
            cause = new_cause(view)
            if cause is None and view.suspended:
                ops = suspend(view, ongoing)
            elif cause is None:
                ops, starts = schedule(view, with_health(view, ongoing))
    if cause is not None:
        ops = end_all(view, ops, cause)
    # A stop waits for nothing: neither for the captures of other ops nor for the pods of new ones.
    stops = _stops(view, ops)
    captures = () if stops else to_capture(view, ops)
    if captures:
        return Decision(before=captures)
    if starts and not stops:
        return Decision(before=(*(() if view.held else (AddFinalizer(),)), *starts))
    ops = with_results(view, ops)
    if all_over(ops) and may_have_results(view, ops):
        return Decision(requeue_after=QUIET_FETCH.total_seconds())
    if all_over(ops) and (cause is not None or _nothing_left(view, ops)):
        return end_job(view, ops, cause)
    if not ops and isinstance(view.definition, Loading):
        return _pending(view, view.definition)
    return under_way(view, ops, cause)


# -- before anything runs ---------------------------------------------------------------------------------


def _unverified(view: JobView) -> Decision:
    """The step of a market's job that the market host has not verified: such a job never runs."""
    if view.deleting:
        return Decision(after=(RemoveFinalizer(),) if view.held else ())
    verified = find_condition(view.conditions, JobCondition.RUN_VERIFIED)
    if verified is not None and verified["status"] == "False":
        reason, message = verified["reason"], verified["message"]
        conditions = [
            ConditionValue(JobCondition.READY, False, reason, message),
            ConditionValue(JobCondition.STALLED, True, reason, message),
        ]
        return _state(view, "Pending", conditions)
    wait = QUIET_UNVERIFIED - (view.now - view.created)
    if wait > timedelta(0):
        return Decision(requeue_after=wait.total_seconds())
    message = "the market host has not verified the run on chain yet; check that its NosanaMarket exists and is ready"
    conditions = [
        ConditionValue(JobCondition.READY, False, JobReason.WAITING_FOR_RUN, message),
        ConditionValue(JobCondition.RECONCILING, True, JobReason.WAITING_FOR_RUN, message),
    ]
    return _state(view, "Pending", conditions)


def _pending(view: JobView, loading: Loading) -> Decision:
    """The step of a job whose definition is not loaded yet."""
    wait = QUIET_FETCH - (view.now - _may_run_since(view))
    if (
        loading.problem is None
        and find_condition(view.conditions, JobCondition.ACCEPTED) is None
        and wait > timedelta(0)
    ):
        return Decision(requeue_after=wait.total_seconds())
    message = loading.problem or "the definition is being fetched"
    conditions = [
        ConditionValue(JobCondition.ACCEPTED, None, loading.reason, message),
        ConditionValue(JobCondition.READY, False, JobReason.WAITING, message),
        ConditionValue(JobCondition.RECONCILING, True, JobReason.WAITING, message),
    ]
    limits = [end] if (end := expiry(view)) else []
    if view.is_market_job:
        limits.append(_give_up_at(view) or view.now + GIVE_UP_DEFINITION)
    return _state(view, "Pending", conditions, limits=limits)


def _may_run_since(view: JobView) -> datetime:
    verified = find_condition(view.conditions, JobCondition.RUN_VERIFIED)
    return parse_timestamp(verified["lastTransitionTime"]) if verified else view.created


def _give_up_at(view: JobView) -> datetime | None:
    """When a market's job gives up loading its definition, counted from the first report that it is missing."""
    accepted = find_condition(view.conditions, JobCondition.ACCEPTED)
    if accepted is None or accepted["status"] != "Unknown":
        return None
    return parse_timestamp(accepted["lastTransitionTime"]) + GIVE_UP_DEFINITION


def _with_deadline(view: JobView) -> JobView:
    """The view; a definition that could not be loaded in time counts as unusable."""
    loading, at, end = view.definition, _give_up_at(view), expiry(view)
    if not isinstance(loading, Loading) or view.status.ops or view.pods or not view.is_market_job:
        return view
    expired = end is not None and view.now >= end
    if not expired and (loading.problem is None or at is None or view.now < at):
        return view
    when = "when the job's time was up" if expired else f"after {GIVE_UP_DEFINITION.seconds} s"
    message = f"given up {when}: {loading.problem or 'the definition was still being fetched'}"
    untyped = loading.reason in (JobReason.FETCHING_DEFINITION, JobReason.WAITING_FOR_POSTER)
    reason = JobReason.DEFINITION_UNREACHABLE if untyped else loading.reason
    poster = loading.reason is JobReason.WAITING_FOR_POSTER
    flow: UnusableFlow = FlowStatus.LOGISTICS_ERROR if poster else FlowStatus.INIT_ERROR
    verb = "found" if reason is JobReason.DEFINITION_NOT_FOUND else "fetched"
    # The result is published: it may quote what the poster's own endpoint answered, never how this host fetches.
    within = "within the job's time" if expired else f"in {GIVE_UP_DEFINITION.seconds} s"
    published = message if poster else f"the definition could not be {verb} {within}"
    return altered(view, definition=Unusable(reason, message, (Problem("$", published),), flow))


def _current_ops(view: JobView) -> Ops:
    """The ops of the status; before the first write, those of the definition.

    A process may crash between creating the first pods and writing the status, and the next process may not get
    the definition. When the job has to end in that state, its pods stand for its ops.
    """
    if view.status.ops:
        return view.status.ops
    if isinstance(view.definition, Loaded):
        return initial_ops(view.definition.context.definition)
    if isinstance(view.definition, Loading) and new_cause(view) is None:
        return ()
    return ops_of_pods(view.pods)


def _nothing_left(view: JobView, ops: Sequence[OpStatus]) -> bool:
    """Whether no op is left that could run."""
    if ops:
        return all_over(ops)
    return not isinstance(view.definition, Loading)


# -- while it runs ----------------------------------------------------------------------------------------


def under_way(view: JobView, ops: Ops, cause: Cause | None) -> Decision:
    """The step of a job whose ops are under way."""
    live = [op for op in ops if op.state not in OVER and op.state != "Waiting"]
    moments: dict[str, str] = {}
    phase: Phase
    if cause is not None:
        phase = "Stopping"
        conditions = [
            ConditionValue(JobCondition.READY, False, cause.reason, cause.message),
            ConditionValue(JobCondition.RECONCILING, True, JobReason.STOPPING, "its pods are being stopped"),
        ]
    else:
        phase = "Running" if any(op.started_at for op in ops) else "Starting"
        if view.suspended:
            phase = "Pending"
        silent = [op for op in live if op.reason == OpReason.NODE_SILENT]
        if view.suspended:
            conditions = [
                ConditionValue(JobCondition.READY, False, JobReason.SUSPENDED, "spec.suspend is set")
            ]
        elif silent:
            conditions = [
                ConditionValue(JobCondition.READY, None, JobReason.NODE_SILENT, str(silent[0].message))
            ]
        elif (
            live
            and all(op.state == "Running" for op in live)
            and (problem := unhealthy(view, ops)) is not None
        ):
            conditions = _unhealthy_conditions(*problem)
        elif live and all(op.state == "Running" for op in live):
            moments["ready"] = micro_timestamp(view.now)
            conditions = [
                ConditionValue(JobCondition.READY, True, JobReason.RUNNING, f"{_named(live)} running")
            ]
        else:
            conditions = [
                ConditionValue(JobCondition.READY, False, JobReason.STARTING, _waits_for(view, ops)),
                ConditionValue(JobCondition.RECONCILING, True, JobReason.STARTING, _waits_for(view, ops)),
            ]
    if isinstance(view.definition, Loaded):
        moments["accepted"] = micro_timestamp(view.now)
    stops = _stops(view, ops)
    after: list[After] = [*stops, *changed_aliases(view, ops), *_unneeded(view, ops)]
    for pod in beyond_kept(view):
        after += [DeletePod(pod), *([ReleasePod(pod)] if pod.held else [])]
    return _state(
        view,
        phase,
        [*_accepted(view, ops), *conditions],
        ops=ops,
        moments=moments,
        after=after,
        # Captures and starts that waited for the stops are decided at once.
        limits=[*time_limits(view, ops, cause), *([view.now] if stops else [])],
    )


def _stops(view: JobView, ops: Ops) -> list[StopPod | DeletePod]:
    """Stops the pods of ops that have to stop."""
    pods = [view.pods[op.index] for op in ops if op.state == "Stopping" and op.index in view.pods]
    return [stop_or_delete(pod) for pod in pods if pod.ended is None and not pod.stopping]


def _unhealthy_conditions(op: OpStatus, problem: str) -> list[ConditionValue]:
    """The conditions when all ops run and one of them is not ready yet or no longer healthy."""
    message = f"op {op.id!r}: {problem}"[:4096]
    if op.ready_at is not None:
        return [ConditionValue(JobCondition.READY, False, JobReason.UNHEALTHY, message)]
    return [
        ConditionValue(JobCondition.READY, False, JobReason.STARTING, message),
        ConditionValue(JobCondition.RECONCILING, True, JobReason.STARTING, message),
    ]


def _unneeded(view: JobView, ops: Ops) -> list[DeleteChild]:
    """Deletes the registry logins and other Secrets of ops that ended just now."""
    before = {op.index for op in view.status.ops if op.state in OVER}
    pods = [view.pods[op.index] for op in ops if op.state in OVER and op.index in view.pods]
    return [DeleteChild("Secret", name) for pod in pods if pod.op_index not in before for name in pod.secrets]


def _accepted(view: JobView, ops: Sequence[OpStatus]) -> list[ConditionValue]:
    """The Accepted condition."""
    match view.definition:
        case Loaded():
            message = "the definition is valid and can be run here"
            return [ConditionValue(JobCondition.ACCEPTED, True, JobReason.ACCEPTED, message)]
        case Unusable(reason, message) if not ops:
            return [ConditionValue(JobCondition.ACCEPTED, False, reason, message)]
    return current_condition(view, JobCondition.ACCEPTED)


def _named(ops: Sequence[OpStatus]) -> str:
    names = ", ".join(op.id for op in ops[:5])
    more = f" and {len(ops) - 5} more" if len(ops) > 5 else ""
    return f"{names}{more} {'is' if len(ops) == 1 else 'are'}"


def _waits_for(view: JobView, ops: Sequence[OpStatus]) -> str:
    """A message that says why the job is not ready."""
    for op in ops:
        if op.state in ("Waiting", "Starting") and op.message:
            return f"op {op.id!r}: {op.message}"[:4096]
    if isinstance(view.definition, Loading):
        return view.definition.problem or "the definition is being fetched again"
    return "its pods are starting"


# -- the end ----------------------------------------------------------------------------------------------


def end_job(
    view: JobView, ops: Ops, cause: Cause | None, *, problem: str | None = None, keep_result: bool = True
) -> Decision:
    """The step of a job whose ops have all ended: store the result, then write the end.

    `problem`: why the job cannot end in the normal way; its result then has no logs. `keep_result=False`: it has
    no result at all.
    """
    if not ops and isinstance(view.definition, Unusable) and cause is None:
        outcome = unusable_verdict(view.definition)
    else:
        outcome = verdict(cause, ops)
    if problem is not None:
        outcome = altered(outcome, message=f"{outcome.message}; {problem}")
    moment = view.last_end or view.now
    if keep_result and not view.result and _keeps_result(view, cause):
        plan = _result(view, ops, cause, outcome, moment)
        return Decision(before=(altered(plan, without_logs=problem),))
    moments = {"ended": micro_timestamp(moment)}
    if (start := view.first_start) and all(op.started_at for op in ops):
        # Ops may start and end between two reconciles.
        moments["ready"] = micro_timestamp(start)
    if isinstance(view.definition, Loaded):
        moments["accepted"] = micro_timestamp(view.now)
    good = outcome.condition is JobCondition.COMPLETE
    conditions = [
        *_accepted(view, ops),
        ConditionValue(outcome.condition, True, outcome.reason, outcome.message),
        ConditionValue(JobCondition.READY, good, outcome.reason, outcome.message),
    ]
    phase: Phase = "Completed" if good else "Failed"
    if good and outcome.flow_status is FlowStatus.STOPPED:
        phase = "Stopped"
    if view.is_market_job:
        phase = "Settling"
        conditions.append(_settling())
    elif not good:
        conditions.append(ConditionValue(JobCondition.STALLED, True, outcome.reason, outcome.message))
    after = [*changed_aliases(view, ops), *_release(view)]
    return _state(view, phase, conditions, ops=ops, moments=moments, result=view.result, after=after)


def _keeps_result(view: JobView, cause: Cause | None) -> bool:
    """Whether a result is stored; a deleted private job takes its result with it."""
    return view.is_market_job or not (
        view.deleting and cause is not None and cause.reason is JobReason.DELETED
    )


def _result(view: JobView, ops: Ops, cause: Cause | None, outcome: Verdict, moment: datetime) -> StoreResult:
    timing = view.status.timing
    accepted = parse_timestamp(timing.accepted) if timing and timing.accepted else view.created
    start = min([accepted, *(parse_timestamp(op.started_at) for op in ops if op.started_at)])
    unusable = view.definition if isinstance(view.definition, Unusable) and not ops else None
    return StoreResult(
        status=outcome.flow_status,
        ops=ops,
        pods=(*view.earlier, *(pod for _, pod in sorted(view.pods.items()))),
        start_ms=_milliseconds(start),
        end_ms=_milliseconds(max(start, moment)),
        cause=cause,
        host_shut_down=view.is_market_job
        and cause is not None
        and cause.reason in (JobReason.DELETED, JobReason.STOPPED),
        results=view.results,
        problems=unusable.problems if unusable and cause is None else (),
    )


def _after_the_end(view: JobView) -> Decision:
    """The step after the end: release the pods and, when the object is deleted, our finalizer."""
    complete = condition_is_true(view.conditions, JobCondition.COMPLETE)
    conditions = [
        *current_condition(view, JobCondition.ACCEPTED),
        *current_condition(view, JobCondition.COMPLETE if complete else JobCondition.FAILED),
        *current_condition(view, JobCondition.READY),
    ]
    phase = final_phase(view)
    if view.is_market_job and not condition_is_true(view.conditions, JobCondition.SETTLED):
        phase = "Settling"
        conditions.append(_settling())
    elif not complete:
        failed = find_condition(view.conditions, JobCondition.FAILED) or {}
        conditions.append(
            ConditionValue(JobCondition.STALLED, True, str(failed.get("reason")), str(failed.get("message")))
        )
    return _state(view, phase, conditions, after=_release(view))


def _settling() -> ConditionValue:
    message = "the result is stored; the market host settles the run on chain"
    return ConditionValue(JobCondition.RECONCILING, True, JobReason.SETTLING, message)


def _release(view: JobView) -> list[After]:
    """Release the pods, and the NosanaJob when somebody deleted it. No pod outlives its job."""
    pods = [*view.earlier, *(pod for _, pod in sorted(view.pods.items()))]
    after: list[After] = [stop_or_delete(pod) for pod in pods if pod.ended is None and not pod.stopping]
    held = [pod for pod in pods if pod.ended is not None and pod.held]
    # This comes before the release of the pods: while a pod carries our finalizer, it is repeated.
    after += [DeleteChild("Secret", name) for name in sorted({name for pod in held for name in pod.secrets})]
    if all(pod.ended is not None for pod in pods):
        claims = sorted({claim for pod in held for claim in pod.claims})
        after += [DeleteChild("PersistentVolumeClaim", claim) for claim in claims]
        # Kubernetes keeps a claim while any pod names it, ended or not. The pods' logs are in the result.
        after += [DeletePod(pod) for pod in held if pod.claims and not pod.deleting]
    after += [ReleasePod(pod) for pod in held]
    if view.deleting and view.held and all(pod.ended is not None for pod in pods):
        after.append(RemoveFinalizer())
    return after


def stop_or_delete(pod: PodView) -> StopPod | DeletePod:
    """Stop a pod that started, because deleting would lose its log; delete one that never started."""
    return StopPod(pod) if pod.started_at is not None else DeletePod(pod)


# -- form -------------------------------------------------------------------------------------------------


def _state(
    view: JobView,
    phase: Phase,
    conditions: Sequence[ConditionValue],
    *,
    ops: Ops | None = None,
    result: Sequence[str] = (),
    moments: dict[str, str] | None = None,
    after: Sequence[After] = (),
    limits: Sequence[datetime] = (),
) -> Decision:
    before = own_part(view.body.get("status"))
    status = render(view, phase, conditions, ops=ops, result=result, moments=moments)
    wait = min((max(0.0, (at - view.now).total_seconds()) for at in limits), default=None)
    return Decision(
        status=None if status == before else status,
        after=tuple(after),
        events=events_of_change(before, status),
        requeue_after=None if wait is None else min(wait, LONGEST_WAIT.total_seconds()),
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
