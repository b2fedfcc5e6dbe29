"""What to do next for a NosanaJob: from one frozen view to effects and a status. Pure.

A decision either has something done first (`before`) and is then made anew, or states the whole status. Pods
are made before the status tells of them: their names are fixed, they carry our finalizer, and so one that
exists is found again. Pods are stopped only after the status holds why.
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
from nosana_operator.jobs.decision.aliases import names
from nosana_operator.jobs.decision.attempts import again, spent
from nosana_operator.jobs.decision.captures import to_capture, with_known_results, with_results
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
    Cause,
    Verdict,
    expiry,
    final_phase,
    new_cause,
    standing_cause,
    unusable_verdict,
    verdict,
)
from nosana_operator.jobs.decision.events import announce
from nosana_operator.jobs.decision.health import notice, trouble
from nosana_operator.jobs.decision.ops import (
    OVER,
    OpReason,
    Ops,
    advance,
    made,
    of_pods,
    waiting,
)
from nosana_operator.jobs.decision.schedule import end_all, schedule, suspend, time_limits
from nosana_operator.jobs.decision.status import Say, all_over, kept, own_part, render
from nosana_operator.jobs.decision.view import JobView, Loaded, Loading, PodView, Unusable, UnusableFlow

TELL_FETCHING: Final = timedelta(seconds=2)
"""A definition is here sooner as a rule, and one write then tells all."""
TELL_UNVERIFIED: Final = timedelta(seconds=10)
GIVE_UP_DEFINITION: Final = timedelta(minutes=2)
"""For a market's job: its poster pays while we look."""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""The wall clock may be set while a timer runs; a look costs no request."""


def decide(view: JobView) -> Decision:
    """The next step for the job."""
    if view.over:
        return _after_the_end(view)
    if not view.may_run and not view.status.ops:
        return _unverified(view)
    view = with_known_results(_given_up(view))
    known = _known(view)
    ops = made(advance(known, view.pods, view.lost, view.now), view.volumes, view.now)
    starts: tuple[StartOp, ...] = ()
    why = standing_cause(view)
    if why is None:
        going_on = again(view, known, ops)
        if not _done(view, going_on):
            why = new_cause(view)
            if why is None and view.suspended:
                ops = suspend(view, going_on)
            elif why is None:
                ops, starts = schedule(view, notice(view, going_on))
    if why is not None:
        ops = end_all(view, ops, why)
    captures = to_capture(view, ops)
    if captures:
        return Decision(before=captures)
    if starts:
        return Decision(before=(*(() if view.held else (AddFinalizer(),)), *starts))
    ops = with_results(view, ops)
    if all_over(ops) and (why is not None or _done(view, ops)):
        return _end(view, ops, why)
    if not ops and isinstance(view.definition, Loading):
        return _pending(view, view.definition)
    return _going_on(view, ops, why)


# -- before anything runs ---------------------------------------------------------------------------------


def _unverified(view: JobView) -> Decision:
    """A market's job that the market host has not (yet) found on chain is not run."""
    if view.deleting:
        return Decision(after=(RemoveFinalizer(),) if view.held else ())
    verified = find_condition(view.conditions, JobCondition.RUN_VERIFIED)
    if verified is not None and verified["status"] == "False":
        reason, message = verified["reason"], verified["message"]
        said = [
            Say(JobCondition.READY, False, reason, message),
            Say(JobCondition.STALLED, True, reason, message),
        ]
        return _state(view, "Pending", said)
    wait = TELL_UNVERIFIED - (view.now - view.created)
    if wait > timedelta(0):
        return Decision(requeue_after=wait.total_seconds())
    message = "the market host has not verified the run on chain yet; is its NosanaMarket there and working?"
    said = [
        Say(JobCondition.READY, False, JobReason.WAITING_FOR_RUN, message),
        Say(JobCondition.RECONCILING, True, JobReason.WAITING_FOR_RUN, message),
    ]
    return _state(view, "Pending", said)


def _pending(view: JobView, loading: Loading) -> Decision:
    """The definition is not here yet."""
    wait = TELL_FETCHING - (view.now - _may_run_since(view))
    if (
        loading.problem is None
        and find_condition(view.conditions, JobCondition.ACCEPTED) is None
        and wait > timedelta(0)
    ):
        return Decision(requeue_after=wait.total_seconds())
    message = loading.problem or "the definition is being fetched"
    said = [
        Say(JobCondition.ACCEPTED, None, loading.reason, message),
        Say(JobCondition.READY, False, JobReason.WAITING, message),
        Say(JobCondition.RECONCILING, True, JobReason.WAITING, message),
    ]
    limits = [end] if (end := expiry(view)) else []
    if view.is_market_job:
        limits.append(_give_up_at(view) or view.now + GIVE_UP_DEFINITION)
    return _state(view, "Pending", said, limits=limits)


def _may_run_since(view: JobView) -> datetime:
    verified = find_condition(view.conditions, JobCondition.RUN_VERIFIED)
    return parse_timestamp(verified["lastTransitionTime"]) if verified else view.created


def _give_up_at(view: JobView) -> datetime | None:
    """When a market's job stops looking for its definition; counted from when it was first said to lack."""
    asked = find_condition(view.conditions, JobCondition.ACCEPTED)
    if asked is None or asked["status"] != "Unknown":
        return None
    return parse_timestamp(asked["lastTransitionTime"]) + GIVE_UP_DEFINITION


def _given_up(view: JobView) -> JobView:
    """The view with a definition that was looked for long enough taken for unusable."""
    loading, at = view.definition, _give_up_at(view)
    if (
        not isinstance(loading, Loading)
        or loading.problem is None
        or view.status.ops
        or view.pods
        or not view.is_market_job
        or at is None
        or view.now < at
    ):
        return view
    message = f"given up after {GIVE_UP_DEFINITION.seconds} s: {loading.problem}"
    asked = loading.reason in (JobReason.FETCHING_DEFINITION, JobReason.WAITING_FOR_POSTER)
    reason = JobReason.DEFINITION_UNREACHABLE if asked else loading.reason
    poster = loading.reason is JobReason.WAITING_FOR_POSTER
    flow: UnusableFlow = FlowStatus.LOGISTICS_ERROR if poster else FlowStatus.INIT_ERROR
    lacks = "found" if reason is JobReason.DEFINITION_NOT_FOUND else "fetched"
    # What the poster is told is published: how we fetch is nobody's business, what his own endpoint said is his.
    told = message if poster else f"the definition could not be {lacks} in {GIVE_UP_DEFINITION.seconds} s"
    return altered(view, definition=Unusable(reason, message, (Problem("$", told),), flow))


def _known(view: JobView) -> Ops:
    """The ops as written; before the first write, as the definition has them.

    A process may die between making the first pods and writing of them, and the next one not get the
    definition: when the job has to end then, these pods are its ops.
    """
    if view.status.ops:
        return view.status.ops
    if isinstance(view.definition, Loaded):
        return waiting(view.definition.context.definition)
    if isinstance(view.definition, Loading) and new_cause(view) is None:
        return ()
    return of_pods(view.pods)


def _done(view: JobView, ops: Sequence[OpStatus]) -> bool:
    """Whether there is nothing left that could run."""
    if ops:
        return all_over(ops)
    return not isinstance(view.definition, Loading)


# -- while it runs ----------------------------------------------------------------------------------------


def _going_on(view: JobView, ops: Ops, why: Cause | None) -> Decision:
    """Ops are under way."""
    live = [op for op in ops if op.state not in OVER and op.state != "Waiting"]
    moments: dict[str, str] = {}
    phase: Phase
    if why is not None:
        phase = "Stopping"
        said = [
            Say(JobCondition.READY, False, why.reason, why.message),
            Say(JobCondition.RECONCILING, True, JobReason.STOPPING, "its pods are being stopped"),
        ]
    else:
        phase = "Running" if any(op.started_at for op in ops) else "Starting"
        if view.suspended:
            phase = "Pending"
        silent = [op for op in live if op.reason == OpReason.NODE_SILENT]
        if view.suspended:
            said = [Say(JobCondition.READY, False, JobReason.SUSPENDED, "spec.suspend is set")]
        elif silent:
            said = [Say(JobCondition.READY, None, JobReason.NODE_SILENT, str(silent[0].message))]
        elif live and all(op.state == "Running" for op in live) and (ill := trouble(view, ops)) is not None:
            said = _unwell(*ill)
        elif live and all(op.state == "Running" for op in live):
            moments["ready"] = micro_timestamp(view.now)
            said = [Say(JobCondition.READY, True, JobReason.RUNNING, f"{_names(live)} running")]
        else:
            said = [
                Say(JobCondition.READY, False, JobReason.STARTING, _waits_for(view, ops)),
                Say(JobCondition.RECONCILING, True, JobReason.STARTING, _waits_for(view, ops)),
            ]
    if isinstance(view.definition, Loaded):
        moments["accepted"] = micro_timestamp(view.now)
    after: list[After] = [*names(view, ops)]
    for op in ops:
        pod = view.pods.get(op.index)
        if op.state == "Stopping" and pod is not None and pod.ended is None and not pod.stopping:
            after.append(_halt(pod))
    after += _unneeded(view, ops)
    for pod in spent(view):
        after += [DeletePod(pod), *([ReleasePod(pod)] if pod.held else [])]
    return _state(
        view,
        phase,
        [*_judged(view, ops), *said],
        ops=ops,
        moments=moments,
        after=after,
        limits=time_limits(view, ops, why),
    )


def _unwell(op: OpStatus, problem: str) -> list[Say]:
    """All ops run, and one is not ready yet, or not well any more."""
    message = f"op {op.id!r}: {problem}"[:4096]
    if op.ready_at is not None:
        return [Say(JobCondition.READY, False, JobReason.UNHEALTHY, message)]
    return [
        Say(JobCondition.READY, False, JobReason.STARTING, message),
        Say(JobCondition.RECONCILING, True, JobReason.STARTING, message),
    ]


def _unneeded(view: JobView, ops: Ops) -> list[DeleteChild]:
    """Logins and other secrets of ops that have ended just now."""
    before = {op.index for op in view.status.ops if op.state in OVER}
    pods = [view.pods[op.index] for op in ops if op.state in OVER and op.index in view.pods]
    return [DeleteChild("Secret", name) for pod in pods if pod.op_index not in before for name in pod.secrets]


def _judged(view: JobView, ops: Sequence[OpStatus]) -> list[Say]:
    """What is to be said of the definition."""
    match view.definition:
        case Loaded():
            message = "the definition is valid and can be run here"
            return [Say(JobCondition.ACCEPTED, True, JobReason.ACCEPTED, message)]
        case Unusable(reason, message) if not ops:
            return [Say(JobCondition.ACCEPTED, False, reason, message)]
    return kept(view, JobCondition.ACCEPTED)


def _names(ops: Sequence[OpStatus]) -> str:
    names = ", ".join(op.id for op in ops[:5])
    more = f" and {len(ops) - 5} more" if len(ops) > 5 else ""
    return f"{names}{more} {'is' if len(ops) == 1 else 'are'}"


def _waits_for(view: JobView, ops: Sequence[OpStatus]) -> str:
    """Why the job is not ready, for a person."""
    for op in ops:
        if op.state in ("Waiting", "Starting") and op.message:
            return f"op {op.id!r}: {op.message}"[:4096]
    if isinstance(view.definition, Loading):
        return view.definition.problem or "the definition is being fetched again"
    return "its pods are starting"


# -- the end ----------------------------------------------------------------------------------------------


def _end(view: JobView, ops: Ops, why: Cause | None) -> Decision:
    """All ops have ended: fix the result, then say so."""
    if not ops and isinstance(view.definition, Unusable) and why is None:
        outcome = unusable_verdict(view.definition)
    else:
        outcome = verdict(why, ops)
    moment = view.last_end or view.now
    if not view.result and _wants_result(view, why):
        return Decision(before=(_result(view, ops, why, outcome, moment),))
    moments = {"ended": micro_timestamp(moment)}
    if (start := view.first_start) and all(op.started_at for op in ops):
        # Ops may start and end between two looks.
        moments["ready"] = micro_timestamp(start)
    if isinstance(view.definition, Loaded):
        moments["accepted"] = micro_timestamp(view.now)
    good = outcome.condition is JobCondition.COMPLETE
    said = [
        *_judged(view, ops),
        Say(outcome.condition, True, outcome.reason, outcome.message),
        Say(JobCondition.READY, good, outcome.reason, outcome.message),
    ]
    phase: Phase = "Completed" if good else "Failed"
    if good and outcome.flow_status is FlowStatus.STOPPED:
        phase = "Stopped"
    if view.is_market_job:
        phase = "Settling"
        said.append(_settling())
    elif not good:
        said.append(Say(JobCondition.STALLED, True, outcome.reason, outcome.message))
    after = [*names(view, ops), *_let_go(view)]
    return _state(view, phase, said, ops=ops, moments=moments, result=view.result, after=after)


def _wants_result(view: JobView, why: Cause | None) -> bool:
    """A private job that is deleted takes its result with it."""
    return view.is_market_job or not (view.deleting and why is not None and why.reason is JobReason.DELETED)


def _result(view: JobView, ops: Ops, why: Cause | None, outcome: Verdict, moment: datetime) -> StoreResult:
    timing = view.status.timing
    asked = parse_timestamp(timing.accepted) if timing and timing.accepted else view.created
    start = min([asked, *(parse_timestamp(op.started_at) for op in ops if op.started_at)])
    unusable = view.definition if isinstance(view.definition, Unusable) and not ops else None
    return StoreResult(
        status=outcome.flow_status,
        ops=ops,
        pods=(*view.earlier, *(pod for _, pod in sorted(view.pods.items()))),
        start_ms=_milliseconds(start),
        end_ms=_milliseconds(max(start, moment)),
        cause=why,
        host_shut_down=view.is_market_job
        and why is not None
        and why.reason in (JobReason.DELETED, JobReason.STOPPED),
        results=view.results,
        problems=unusable.problems if unusable and why is None else (),
    )


def _after_the_end(view: JobView) -> Decision:
    """The result is fixed: let pods and, once it is settled or deleted, the object go."""
    complete = condition_is_true(view.conditions, JobCondition.COMPLETE)
    said = [
        *kept(view, JobCondition.ACCEPTED),
        *kept(view, JobCondition.COMPLETE if complete else JobCondition.FAILED),
        *kept(view, JobCondition.READY),
    ]
    phase = final_phase(view)
    if view.is_market_job and not condition_is_true(view.conditions, JobCondition.SETTLED):
        phase = "Settling"
        said.append(_settling())
    elif not complete:
        failed = find_condition(view.conditions, JobCondition.FAILED) or {}
        said.append(Say(JobCondition.STALLED, True, str(failed.get("reason")), str(failed.get("message"))))
    return _state(view, phase, said, after=_let_go(view))


def _settling() -> Say:
    message = "the result is fixed; the market host settles the run on chain"
    return Say(JobCondition.RECONCILING, True, JobReason.SETTLING, message)


def _let_go(view: JobView) -> list[After]:
    """Release what was read; the NosanaJob itself only when somebody deleted it. No pod outlives its job."""
    pods = [*view.earlier, *(pod for _, pod in sorted(view.pods.items()))]
    after: list[After] = [_halt(pod) for pod in pods if pod.ended is None and not pod.stopping]
    held = [pod for pod in pods if pod.ended is not None and pod.held]
    # Before the pods are released: as long as one is held, this is done again.
    after += [DeleteChild("Secret", name) for name in sorted({name for pod in held for name in pod.secrets})]
    if all(pod.ended is not None for pod in pods):
        claims = sorted({claim for pod in held for claim in pod.claims})
        after += [DeleteChild("PersistentVolumeClaim", claim) for claim in claims]
        # A claim is held as long as a pod names it, ended or not; its log is in the result.
        after += [DeletePod(pod) for pod in held if pod.claims and not pod.deleting]
    after += [ReleasePod(pod) for pod in held]
    if view.deleting and view.held and all(pod.ended is not None for pod in pods):
        after.append(RemoveFinalizer())
    return after


def _halt(pod: PodView) -> StopPod | DeletePod:
    """Deleting would take the log along, so only a pod that never started is deleted."""
    return StopPod(pod) if pod.started_at is not None else DeletePod(pod)


# -- form -------------------------------------------------------------------------------------------------


def _state(
    view: JobView,
    phase: Phase,
    said: Sequence[Say],
    *,
    ops: Ops | None = None,
    result: Sequence[str] = (),
    moments: dict[str, str] | None = None,
    after: Sequence[After] = (),
    limits: Sequence[datetime] = (),
) -> Decision:
    before = own_part(view.body.get("status"))
    status = render(view, phase, said, ops=ops, result=result, moments=moments)
    wait = min((max(0.0, (at - view.now).total_seconds()) for at in limits), default=None)
    return Decision(
        status=None if status == before else status,
        after=tuple(after),
        events=announce(before, status),
        requeue_after=None if wait is None else min(wait, LONGEST_WAIT.total_seconds()),
    )


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
