"""`decide` as a table: what ends a job (docs/architecture.md#what-ends-a-job), and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes.jobs import definition, market_job, op, private_job
from nosana_operator.api import (
    FINALIZER_JOB,
    JOB_KIND,
    Exposure,
    JobReason,
    NosanaJobSpec,
    NosanaJobStatus,
    OpStatus,
    Run,
    condition,
    find_condition,
    micro_timestamp,
    parse_part,
    timestamp,
)
from nosana_operator.definition import FlowStatus, Problem, parse, plan
from nosana_operator.jobs.decision.decide import decide
from nosana_operator.jobs.decision.effects import (
    AddFinalizer,
    Decision,
    DeletePod,
    ReleasePod,
    RemoveFinalizer,
    StartOp,
    StopPod,
    StoreResult,
)
from nosana_operator.jobs.decision.forced_end import force_end
from nosana_operator.jobs.decision.health import unhealthy
from nosana_operator.jobs.decision.view import (
    DefinitionState,
    Ended,
    JobView,
    Loaded,
    Loading,
    OpHealth,
    PodView,
    PortHealth,
    Refusal,
    Unusable,
)
from nosana_operator.workload import JobContext

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = definition(op("a"))
PAIR = definition(op("a", group="g"), op("b", group="g"))
STAGES = definition(op("a"), op("b"))
SECRETS = ("hello-result-0",)


def loaded(document: Mapping[str, Any], spec: NosanaJobSpec) -> Loaded:
    made = parse(dict(document))
    return Loaded(JobContext("hello", "jobs", "u-1", spec, made, "lab", Exposure()), plan(made))


def view(
    document: Mapping[str, Any] = ONE,
    *,
    market: bool = False,
    states: tuple[str, ...] = (),
    pods: tuple[PodView, ...] = (),
    deleted: bool = False,
    status: Mapping[str, Any] | None = None,
    definition_state: DefinitionState | None = None,
    **spec: Any,
) -> JobView:
    """A job that was accepted a minute ago, its ops in these states."""
    body = market_job(NOW) if market else private_job({"definition": dict(document)})
    meta = body["metadata"]
    meta |= {
        "name": "hello",
        "uid": "u-1",
        "generation": 1,
        "resourceVersion": "7",
        "creationTimestamp": timestamp(NOW - timedelta(seconds=60)),
    }
    meta["finalizers"] = [FINALIZER_JOB]
    if deleted:
        meta["deletionTimestamp"] = timestamp(NOW)
    body["spec"] |= spec
    conditions = [
        condition(None, kind, True, "Said", "so", generation=1, now=NOW)
        for kind in ("RunVerified",) * market + ("Accepted",) * bool(states)
    ]
    body["status"] = {"conditions": conditions, **(status or {})}
    if states:
        body["status"]["phase"] = (status or {}).get("phase", "Running")
        body["status"]["ops"] = [
            {
                "id": item["id"],
                "index": index,
                "stage": item.get("execution", {}).get("group") or item["id"],
                "state": state,
                **({"pod": f"hello-{index}"} if state != "Waiting" else {}),
                **(
                    {"startedAt": timestamp(NOW - timedelta(seconds=40))}
                    if state in ("Running", "Stopping")
                    else {}
                ),
                **({"reason": "Expired"} if state == "Stopping" else {}),
            }
            for index, (item, state) in enumerate(zip(document["ops"], states, strict=True))
        ]
    parsed = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
    return JobView(
        body=body,
        spec=parsed,
        status=parse_part(NosanaJobStatus, JOB_KIND, "status", body["status"]),
        now=NOW,
        definition=definition_state or loaded(document, parsed),
        pods={pod.op_index: pod for pod in pods},
    )


def pod(index: int = 0, *, exit_code: int | None = None, running: bool = True, **more: Any) -> PodView:
    """A pod that has been running for 40 seconds, or ended a second ago."""
    before = NOW - timedelta(seconds=40)
    made = PodView(f"hello-{index}", f"pod-{index}", index, node="n", scheduled_at=before, held=True)
    if running or exit_code is not None:
        made = replace(made, started_at=before, start_stamp=before, pulled_at=before)
    if exit_code is not None:
        at = NOW - timedelta(seconds=1)
        made = replace(made, ended=Ended(at, at, exit_code))
    return replace(made, **more)


def stopping(reason: str) -> dict[str, Any]:
    said = condition(None, "Ready", False, reason, "because", generation=1, now=NOW)
    return {"phase": "Stopping", "conditions": [said]}


def run_status(**fields: Any) -> dict[str, Any]:
    return {"run": fields}


def said(decision: Decision, kind: str) -> tuple[str, str] | None:
    found = find_condition((decision.status or {}).get("conditions"), kind)
    return None if found is None else (found["status"], found["reason"])


def states(decision: Decision) -> list[str]:
    return [o["state"] for o in (decision.status or {})["ops"]]


# --- how a job ends ----------------------------------------------------------------------------------------

UNUSABLE = Unusable(
    JobReason.DEFINITION_INVALID, "bad", (Problem("ops[0]", "bad"),), FlowStatus.VALIDATION_ERROR
)
DONE = [pod(exit_code=0)]
ENDS: dict[str, tuple[JobView, str, tuple[str, ...], str, str, str]] = {
    # name: view, flow status, op states, phase, condition, reason
    "all well": (
        view(states=("Running",), pods=(pod(exit_code=0),)),
        "success", ("Succeeded",), "Completed", "Complete", "Succeeded",
    ),
    "an op failed": (
        view(PAIR, states=("Running", "Succeeded"), pods=(pod(exit_code=1),)),
        "failed", ("Failed", "Succeeded"), "Failed", "Failed", "OpFailed",
    ),
    "time up": (
        view(states=("Stopping",), pods=(pod(exit_code=137, stopping=True),), status=stopping("Expired")),
        "success", ("Succeeded",), "Completed", "Complete", "Expired",
    ),
    "time up, an op had failed": (
        view(
            PAIR, states=("Stopping", "Failed"), pods=(pod(exit_code=137, stopping=True),),
            status=stopping("Expired"),
        ),
        "failed", ("Succeeded", "Failed"), "Failed", "Failed", "OpFailed",
    ),
    "owner ended": (
        view(states=("Running",), pods=(pod(exit_code=143),), status=stopping("OwnerEnded")),
        "stopped", ("Failed",), "Stopped", "Complete", "OwnerEnded",
    ),
    "stopped before it started": (
        view(STAGES, stop=True),
        "stopped", ("Stopped", "Stopped"), "Stopped", "Complete", "Stopped",
    ),
    "definition unusable": (
        view(definition_state=UNUSABLE),
        "validation-error", (), "Failed", "Failed", "DefinitionInvalid",
    ),
    "no ops at all": (
        view(definition()),
        "success", (), "Completed", "Complete", "Succeeded",
    ),
    "a dependency never became ready": (
        view(
            definition(op("a", group="g"), op("b", group="g", depends_on=["a"])),
            states=("Starting", "Waiting"),
            pods=(pod(running=False, ended=Ended(NOW, NOW, 128, "StartError")),),
        ),
        "failed", ("Failed", "Failed"), "Failed", "Failed", "OpFailed",
    ),
    "the pod is lost": (
        replace(view(states=("Running",)), lost=frozenset({0})),
        "failed", ("Failed",), "Failed", "Failed", "OpFailed",
    ),
    "a literal has no value": (
        view(definition(op("a", cmd="%%global.variables.nope%%"))),
        "failed", ("Failed",), "Failed", "Failed", "OpFailed",
    ),
    "refused for a minute": (
        replace(
            view(), refused={0: Refusal(NOW - timedelta(seconds=60), NOW, "forbidden")}
        ),
        "failed", ("Failed",), "Failed", "Failed", "OpFailed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("market", [False, True], ids=["private", "market"])
def test_what_ends_it(name: str, market: bool) -> None:
    job, flow, op_states, phase, kind, reason = ENDS[name]
    if market:
        job = as_market_job(job)
    first = decide(job)
    [store] = first.before
    assert isinstance(store, StoreResult)
    assert store.status.value == flow
    assert tuple(o.state for o in store.ops) == op_states
    # Nothing is said or let go before the result is fixed.
    assert first.status is None
    assert first.after == ()
    last = decide(replace(job, result=SECRETS))
    assert last.before == ()
    assert last.status is not None
    assert last.status["phase"] == ("Settling" if market else phase)
    assert last.status["resultSecrets"] == list(SECRETS)
    assert said(last, kind) == ("True", reason)
    assert said(last, "Stalled") == (("True", reason) if phase == "Failed" and not market else None)
    assert said(last, "Reconciling") == (("True", "Settling") if market else None)
    held = [p for p in job.pods.values() if p.held]
    assert list(last.after) == [ReleasePod(p) for p in held]


def as_market_job(job: JobView) -> JobView:
    run = parse_part(Run, JOB_KIND, "spec.run", market_job(NOW)["spec"]["run"])
    verified = condition(None, "RunVerified", True, "Verified", "so", generation=1, now=NOW)
    status = dict(job.body["status"])
    status["conditions"] = [*status["conditions"], verified]
    return replace(job, spec=job.spec.model_copy(update={"run": run}), body={**job.body, "status": status})


# --- why it has to stop ------------------------------------------------------------------------------------

PAST = micro_timestamp(NOW)
FUTURE = micro_timestamp(NOW + timedelta(seconds=90))
STARTED = {"timing": {"started": micro_timestamp(NOW - timedelta(seconds=40))}}
CAUSES: dict[str, tuple[dict[str, Any], str | None]] = {
    "expired on chain": ({"market": True, "status": run_status(expiresAt=PAST)}, "Expired"),
    "extended": ({"market": True, "status": run_status(expiresAt=FUTURE)}, None),
    "expiry not known yet": ({"market": True}, None),
    "a market job's spec.timeout does not count": ({"market": True, "timeout": 1, "status": STARTED}, None),
    "owner ended": ({"market": True, "status": run_status(ended="OwnerEnded")}, "OwnerEnded"),
    "run gone": ({"market": True, "status": run_status(ended="RunGone", expiresAt=PAST)}, "RunGone"),
    "private timeout": ({"timeout": 40, "status": STARTED}, "Expired"),
    "private timeout not yet": ({"timeout": 41, "status": STARTED}, None),
    "spec.stop": ({"stop": True}, "Stopped"),
    "deleted": ({"deleted": True, "stop": True}, "Deleted"),
    "the first cause stands": ({"stop": True, "status": stopping("Expired")}, "Expired"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_why_it_stops(name: str) -> None:
    arguments, reason = CAUSES[name]
    decision = decide(view(STAGES, states=("Running", "Waiting"), pods=(pod(),), **arguments))
    assert decision.before == ()
    if reason is None:
        assert states(decision) == ["Running", "Waiting"]
        assert decision.after == ()
        return
    # The cause is written in the same step that stops the pods, and before it.
    assert decision.status is not None
    assert decision.status["phase"] == "Stopping"
    assert said(decision, "Ready") == ("False", reason)
    # An op that never ran has not done by its expiry what its poster asked for.
    assert states(decision) == ["Stopping", "Failed" if reason == "Expired" else "Stopped"]
    assert decision.after == (StopPod(pod()),)


def test_an_ended_job_is_not_stopped_again() -> None:
    """Its ops were done when the time was up: that is how it ends."""
    job = view(states=("Running",), pods=(pod(exit_code=0),), stop=True)
    assert said(decide(replace(job, result=SECRETS)), "Complete") == ("True", "Succeeded")


def test_time_limits_are_looked_at_in_time() -> None:
    job = view(states=("Running",), pods=(pod(),), timeout=100, status=STARTED)
    assert decide(job).requeue_after == pytest.approx(60)
    limited = definition(op("a", timeout=50))
    assert decide(view(limited, states=("Running",), pods=(pod(),))).requeue_after == pytest.approx(10)


def test_an_ops_own_time_limit_is_its_normal_end() -> None:
    limited = definition(op("a", timeout=40))
    decision = decide(view(limited, states=("Running",), pods=(pod(),)))
    assert decision.after == (StopPod(pod()),)
    assert states(decision) == ["Stopping"]
    ended = view(limited, states=("Stopping",), pods=(pod(exit_code=143, stopping=True),))
    assert said(decide(replace(ended, result=SECRETS)), "Complete") == ("True", "Succeeded")


# --- how pods are stopped ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (pod(), [StopPod]),
        (pod(running=False), [DeletePod]),
        (pod(stopping=True), []),
        (pod(running=False, deleting=True, stopping=True), []),
    ],
    ids=["running", "not started", "told already", "deleted already"],
)
def test_pods_are_stopped_once_and_gracefully(shown: PodView, wanted: list[type]) -> None:
    decision = decide(view(states=("Running" if shown.started_at else "Starting",), pods=(shown,), stop=True))
    assert [type(effect) for effect in decision.after] == wanted


# --- how it starts -----------------------------------------------------------------------------------------


def test_the_first_stage_starts_at_once() -> None:
    decision = decide(view(definition(op("a", group="g"), op("b", group="g"), op("c"))))
    assert [e.op_index for e in decision.before if isinstance(e, StartOp)] == [0, 1]
    assert decision.status is None


def test_a_private_job_is_held_before_anything_is_made() -> None:
    job = view()
    job.body["metadata"]["finalizers"] = []
    assert [type(e) for e in decide(job).before] == [AddFinalizer, StartOp]


def test_a_pod_that_is_there_is_taken_over_and_never_made_again() -> None:
    decision = decide(view(pods=(pod(running=False),)))
    assert decision.before == ()
    assert states(decision) == ["Starting"]


def test_a_pod_the_status_tells_of_is_not_made_again() -> None:
    for state in ("Starting", "Running"):
        assert decide(view(states=(state,))).before == ()


def test_a_refused_op_waits_for_its_turn() -> None:
    again = NOW + timedelta(seconds=2)
    decision = decide(replace(view(), refused={0: Refusal(NOW, again, "quota")}))
    assert decision.before == ()
    assert decision.requeue_after == pytest.approx(2)
    assert decide(replace(view(), refused={0: Refusal(NOW, NOW, "quota")})).before != ()


def test_a_changed_definition_starts_nothing_more() -> None:
    job = view(STAGES, states=("Running", "Waiting"), pods=(pod(),))
    other = loaded(definition(op("x"), op("y")), job.spec)
    assert states(decide(replace(job, definition=other))) == ["Running", "Failed"]


def test_a_started_job_goes_on_without_its_definition() -> None:
    job = replace(view(states=("Running",), pods=(pod(exit_code=0),)), definition=Loading("no gateway"))
    [store] = decide(job).before
    assert isinstance(store, StoreResult)


# --- who may run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verified", [None, False])
def test_an_unverified_run_is_never_run(verified: bool | None) -> None:
    job = view(market=True)
    conditions = []
    if verified is False:
        conditions = [condition(None, "RunVerified", False, "RunMismatch", "no", generation=1, now=NOW)]
    status = {**job.body["status"], "conditions": conditions}
    decision = decide(replace(job, body={**job.body, "status": status}))
    assert decision.before == ()
    assert decision.after == ()
    assert said(decision, "Ready") == (
        "False",
        "RunMismatch" if verified is False else "WaitingForRunVerification",
    )


# --- after the end -----------------------------------------------------------------------------------------


def over(market: bool, *, settled: bool, deleted: bool = False) -> JobView:
    conditions = [condition(None, "Complete", True, "Expired", "so", generation=1, now=NOW)]
    if settled:
        conditions.append(condition(None, "Settled", True, "Finished", "so", generation=1, now=NOW))
    ops = [
        OpStatus(id="a", index=0, stage="a", state="Succeeded").model_dump(by_alias=True, exclude_none=True)
    ]
    status = {"phase": "Settling", "conditions": conditions, "ops": ops}
    job = view(market=market, deleted=deleted)
    body = {**job.body, "status": status}
    parsed = parse_part(NosanaJobStatus, JOB_KIND, "status", status)
    return replace(job, body=body, status=parsed, definition=Loading())


@pytest.mark.parametrize(
    ("job", "phase"),
    [
        (over(False, settled=False), "Completed"),
        (over(True, settled=False), "Settling"),
        (over(True, settled=True), "Completed"),
    ],
    ids=["private", "not settled", "settled"],
)
def test_the_phase_after_the_end(job: JobView, phase: str) -> None:
    decision = decide(job)
    assert decision.before == ()
    assert (decision.status or {})["phase"] == phase


def test_a_deleted_job_goes_after_its_pods() -> None:
    ended = pod(exit_code=0)
    decision = decide(replace(over(False, settled=False, deleted=True), pods={0: ended}))
    assert decision.after == (ReleasePod(ended), RemoveFinalizer())


def test_a_deleted_private_job_takes_its_result_with_it() -> None:
    job = view(
        states=("Stopping",),
        pods=(pod(exit_code=143, stopping=True),),
        status=stopping("Deleted"),
        deleted=True,
    )
    decision = decide(job)
    assert decision.before == ()
    assert decision.after == (ReleasePod(pod(exit_code=143, stopping=True)), RemoveFinalizer())


def test_no_pod_outlives_its_job() -> None:
    alive = pod()
    decision = decide(replace(over(False, settled=False, deleted=True), pods={0: alive}))
    assert decision.after == (StopPod(alive),)


CHECK = {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True}
SERVES = definition(op("a", expose=[{"port": 80, "health_checks": [CHECK]}]))


@pytest.mark.parametrize(
    ("ready", "health", "why"),
    [
        (False, None, "its health checks have not passed yet"),
        (False, PortHealth(False, "Offline", "port 80 answers 500"), "port 80 answers 500"),
        (True, PortHealth(True, "Online"), None),
        (True, None, None),
        (True, PortHealth(True, "Offline", "port 80 answers 500"), "port 80 answers 500"),
        (True, PortHealth(True, "Offline"), "its health check failed"),
    ],
    ids=["not asked yet", "failing at first", "well", "unknown later", "failing later", "failing without a word"],
)  # fmt: skip
def test_an_unhealthy_op_and_why(ready: bool, health: PortHealth | None, why: str | None) -> None:
    job = view(SERVES, states=("Running",), pods=(pod(),))
    args: Any = parse(dict(SERVES)).ops[0].args
    ports = tuple(args.expose)
    assert isinstance(job.definition, Loaded)
    job = replace(
        job,
        definition=replace(job.definition, checks={0: ports}),
        health={0: OpHealth({80: health})} if health is not None else {},
    )
    [op_status] = job.status.ops
    shown = op_status.model_copy(update={"ready_at": timestamp(NOW) if ready else None})
    found = unhealthy(job, (shown,))
    assert found == (None if why is None else (shown, why))


def test_a_server_whose_time_is_up_ends_well_although_nothing_could_be_written_before() -> None:
    """Neither its stop nor its end came through, and its pod does not end, so the status says that it runs."""
    job = view(states=("Running",), pods=(pod(),), timeout=30, status=STARTED)
    decision = force_end(job, NOW - timedelta(hours=1), "it cannot be built")
    [store] = [each for each in decision.before if isinstance(each, StoreResult)]
    assert [each.state for each in store.ops] == ["Succeeded"]
