"""A job ends in time, whatever its definition, its status or its result makes fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fakes import kube as fake_kube
from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job
from fakes.kube import FakeRefused, Request
from nosana_operator.api import NosanaJobStatus
from nosana_operator.definition import limits
from nosana_operator.errors import NosanaError, Refused, Unavailable
from nosana_operator.jobs import controller as controller_module
from nosana_operator.jobs.decision.status import within_limits

ONE = definition(op("a", expose=80))


async def running(*, market: bool = True, expires_after: float = 60, document: Any = ONE) -> Lab:
    lab = Lab(expires_after=expires_after)
    if market:
        lab.ipfs.content[CID] = json.dumps(document).encode()
        lab.kube.add(market_job(lab.clock.now()))
        lab.boot()
        lab.verify()
    else:
        lab.kube.add(private_job({"definition": document, "timeout": int(expires_after)}))
        lab.boot()
    await lab.drive(lambda: lab.phase(name(market)) == "Running")
    return lab


def name(market: bool = True) -> str:
    return "run-a" if market else "hello"


def refuse(lab: Lab, which: Callable[[Request], bool], error: Exception | None = None) -> None:
    async def interrupt(request: Request, when: str) -> None:
        if when == "before" and which(request):
            raise error or FakeRefused("NosanaJob is invalid: status: Too many")

    lab.kube.interrupt = interrupt


def is_status(request: Request) -> bool:
    return request.kind == "NosanaJob" and request.subresource == "status"


async def pass_seconds(lab: Lab, seconds: float, job: str = "run-a", step: float = 10) -> None:
    """Let time pass; the kubelet and the controller go on, and a failed reconcile is repeated."""
    end = lab.clock.now().timestamp() + seconds
    while lab.clock.now().timestamp() < end:
        lab.clock.advance(step)
        lab.dirty.add((NAMESPACE, job))
        await lab.work()
        lab.kubelet.step()


def stopped(lab: Lab) -> bool:
    return all(pod["spec"].get("activeDeadlineSeconds") == 1 for pod in lab.pods())


def ended(lab: Lab, job: str = "run-a") -> bool:
    return "True" in [(lab.says(kind, job) or ("",))[0] for kind in ("Complete", "Failed")]


# --- a status that the API server refuses ------------------------------------------------------------------


async def test_a_refused_status_is_written_in_a_shorter_form_and_the_job_ends_in_time() -> None:
    lab = await running()
    refuse(lab, lambda r: is_status(r) and "endpoints" in r.body["status"])
    await pass_seconds(lab, 90)
    assert stopped(lab)
    assert lab.says("Complete", "run-a") == ("True", "Expired")
    assert lab.result("run-a")["status"] == "success"
    assert ("Warning", "ReconcileFailed") in [event[:2] for event in lab.events.seen]


async def test_only_the_phase_and_conditions_are_left_where_all_else_is_refused() -> None:
    lab = await running()
    refuse(lab, lambda r: is_status(r) and "ops" in r.body["status"])
    await pass_seconds(lab, 120)
    assert stopped(lab)
    assert ended(lab)


async def test_a_refused_status_is_not_sent_again_and_again() -> None:
    lab = await running(expires_after=36000)
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"metadata": {"generation": 7}})
    refuse(lab, lambda r: is_status(r) and "endpoints" in r.body["status"])
    await pass_seconds(lab, 60)
    lab.kube.requests.clear()
    await pass_seconds(lab, 600)
    assert lab.written("NosanaJob") == []


@pytest.mark.parametrize("error", [FakeRefused("no"), Unavailable("no answer"), NosanaError("else")])
async def test_a_stop_does_not_wait_for_a_status_write(error: Exception) -> None:
    lab = await running()
    refuse(lab, is_status, error)
    await pass_seconds(lab, 80)
    assert stopped(lab)
    assert not ended(lab)
    # The cause is not lost with the writes.
    lab.kube.interrupt = None
    await lab.drive(lab.over("run-a"))
    assert lab.says("Complete", "run-a") == ("True", "Expired")


async def test_one_effect_that_fails_keeps_no_pod_running() -> None:
    aliased = definition(op("a", group="g", aliases=["x"]), op("b", group="g", aliases=["y"]))
    lab = await running(document=aliased)
    lab.kubelet.address = "10.0.0.1"
    refuse(
        lab,
        lambda r: r.kind in ("EndpointSlice", "Secret") or (r.verb == "patch" and r.name == "run-a-0"),
    )
    await pass_seconds(lab, 80)
    patched = {p["metadata"]["name"]: p["spec"].get("activeDeadlineSeconds") for p in lab.pods()}
    assert patched == {"run-a-0": None, "run-a-1": 1}


def test_each_text_and_list_is_cut_to_what_the_crd_allows() -> None:
    status = {
        "conditions": [{"type": "Ready", "message": "m" * 40_000, "reason": "r" * 2000}],
        "ops": [{"id": "o" * 2000, "index": n, "message": "m" * 5000, "stage": "s"} for n in range(70)],
        "endpoints": [{"id": str(n)} for n in range(513)],
        "resultSecrets": ["s"] * 9,
        "timing": {"started": "2026-01-01T00:00:00Z"},
        "phase": "Running",
    }
    cut = within_limits(status)
    assert len(cut["endpoints"]) == 512
    assert len(cut["ops"]) == 64
    assert len(cut["resultSecrets"]) == 8
    assert {len(item["id"]) for item in cut["ops"]} == {limits.MAX_NAME}
    assert {len(item["message"]) for item in cut["ops"]} == {4096}
    assert [len(cut["conditions"][0][key]) for key in ("message", "reason")] == [32768, 1024]
    assert cut["timing"] == status["timing"]
    small = {"phase": "Running", "ops": [{"id": "a", "index": 0, "stage": "a", "state": "Running"}]}
    assert within_limits(small) == small
    NosanaJobStatus.model_validate(small)


# --- a reconcile that fails --------------------------------------------------------------------------------


def broken(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raises(view: Any) -> Any:
        raise error

    monkeypatch.setattr(controller_module, "decide", raises)


@pytest.mark.parametrize("error", [Refused("it cannot be built"), Unavailable("for ever")])
async def test_a_job_whose_reconcile_fails_is_stopped_and_ended(
    monkeypatch: pytest.MonkeyPatch, error: NosanaError
) -> None:
    lab = await running()
    broken(monkeypatch, error)
    await pass_seconds(lab, 80)
    assert stopped(lab)
    assert lab.phase("run-a") == "Stopping"
    assert not ended(lab)
    await pass_seconds(lab, 330)
    assert lab.says("Complete", "run-a") == ("True", "Expired")
    result = lab.result("run-a")
    assert (result["status"], result["opStates"][0]["status"]) == ("success", "success")
    assert str(error) in result["opStates"][0]["logs"][0]["log"]
    assert ("Warning", "ReconcileFailed") in [event[:2] for event in lab.events.seen]


async def test_a_failing_reconcile_is_reported_on_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await running(expires_after=3600)
    with monkeypatch.context() as patch:
        broken(patch, Refused("it cannot be built"))
        await pass_seconds(lab, 20)
        assert lab.says("Stalled", "run-a") == ("True", "ReconcileFailed")
        assert lab.phase("run-a") == "Running"
        assert not stopped(lab)
    await pass_seconds(lab, 20)
    assert lab.says("Stalled", "run-a") is None


async def test_a_defect_is_reported_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await running(expires_after=30)
    broken(monkeypatch, TypeError("token=abc"))
    lab.clock.advance(60)
    with pytest.raises(TypeError):
        await lab.controller.reconcile((NAMESPACE, "run-a"))
    assert stopped(lab)
    assert "TypeError" in json.dumps(lab.status("run-a"))
    assert "token=abc" not in json.dumps(lab.status("run-a")) + json.dumps(lab.events.seen)


@pytest.mark.parametrize("how", ["stop", "delete", "owner"])
async def test_every_end_is_independent_of_the_reconcile(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    market = how == "owner"
    lab = await running(market=market, expires_after=36000)
    job = name(market)
    broken(monkeypatch, Refused("it cannot be built"))
    if how == "stop":
        lab.kube.edit("NosanaJob", NAMESPACE, job, {"spec": {"stop": True}})
    elif how == "delete":
        lab.kube.remove("NosanaJob", NAMESPACE, job)
    else:
        run = {**lab.status(job)["run"], "ended": "OwnerEnded"}
        lab.kube.edit("NosanaJob", NAMESPACE, job, {"status": {"run": run}})
    await pass_seconds(lab, 20, job)
    assert stopped(lab)
    monkeypatch.undo()
    broken_gather(monkeypatch, lab)
    await pass_seconds(lab, 400, job)
    body = lab.kube.find("NosanaJob", NAMESPACE, job)
    assert body is None if how == "delete" else ended(lab, job)


def broken_gather(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    """The definition cannot be worked on any more."""

    def raises(*_: Any) -> Any:
        raise Refused("it cannot be read")

    monkeypatch.setattr(lab.controller._loader, "state", raises)


async def test_ops_that_have_ended_end_the_job_although_the_result_cannot_be_stored() -> None:
    lab = await running(expires_after=36000)
    refuse(lab, lambda r: r.kind == "Secret" and r.verb in ("create", "apply"), FakeRefused("exceeded quota"))
    lab.kubelet.end("run-a-0", 0)
    await pass_seconds(lab, 60)
    assert not ended(lab)
    await pass_seconds(lab, 330)
    assert lab.says("Complete", "run-a") == ("True", "Succeeded")
    assert "resultSecrets" not in lab.status("run-a")


async def test_a_moment_of_trouble_costs_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = await running()
    lab.kube.logs[NAMESPACE, "run-a-0"] = Unavailable("the kubelet is busy")
    await pass_seconds(lab, 75)
    assert not ended(lab)
    lab.kube.logs[NAMESPACE, "run-a-0"] = b"2026-01-02T03:04:05Z hi\n"
    await pass_seconds(lab, 20)
    assert lab.result("run-a")["opStates"][0]["logs"][0]["log"] == "hi\n"
    assert "ReconcileFailed" not in json.dumps(lab.events.seen)


# --- a spec that this version cannot read ------------------------------------------------------------------


def newer_crds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CRDs in the cluster allow what this version does not know."""
    monkeypatch.setattr(fake_kube, "refusals", lambda *_: [])


async def test_a_job_that_cannot_be_read_says_so_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    newer_crds(monkeypatch)
    lab = await running(expires_after=600)
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"spec": {"onNoCapacity": "AskMe", "gpu": {"count": 0}}})
    await pass_seconds(lab, 20)
    assert lab.says("Stalled", "run-a") == ("True", "SpecInvalid")
    assert not stopped(lab)
    await pass_seconds(lab, 600)
    assert stopped(lab)
    await pass_seconds(lab, 330)
    assert lab.says("Complete", "run-a") == ("True", "Expired")
    assert lab.result("run-a")["status"] == "success"
    assert [pod["metadata"].get("finalizers") for pod in lab.pods()] == [None]


async def test_a_status_that_cannot_be_read_does_not_keep_the_job_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    newer_crds(monkeypatch)
    lab = await running(expires_after=600)
    ops = lab.status("run-a")["ops"]
    lab.kube.edit("NosanaJob", NAMESPACE, "run-a", {"status": {"ops": [{**ops[0], "state": "Pondering"}]}})
    await pass_seconds(lab, 1000)
    assert stopped(lab)
    assert ended(lab)
