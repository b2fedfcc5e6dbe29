"""The cluster's own troubles are neither a job's success nor its op's failure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job
from fakes.kube import FakeRefused, Request
from nosana_operator.errors import Unavailable
from nosana_operator.jobs.decision.ops import MAX_REFUSALS
from nosana_operator.jobs.waiting import waiting_trouble

ONE = definition(op("a"))


def market(document: Any = ONE, *, expires_after: float = 600, **spec: Any) -> Lab:
    lab = Lab(expires_after=expires_after)
    lab.ipfs.content[CID] = json.dumps(document).encode()
    body = market_job(lab.clock.now())
    body["spec"] |= spec
    lab.kube.add(body)
    lab.boot()
    lab.verify()
    return lab


async def with_pod(lab: Lab) -> str:
    while not lab.pods():
        lab.news.clear()
        await lab.work()
        if not lab.pods():
            await lab.news.wait()
    return str(lab.pods()[0]["metadata"]["name"])


async def pass_seconds(lab: Lab, seconds: float, job: str = "run-a") -> None:
    end = lab.clock.now().timestamp() + seconds
    while lab.clock.now().timestamp() < end and not lab.over(job)():
        lab.clock.advance(10)
        lab.dirty.add((NAMESPACE, job))
        await lab.work()


# --- what is trouble ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "trouble"),
    [
        ("", None),
        ("ContainerCreating", None),
        ("PodInitializing", None),
        ("ErrImagePull", "ImagePull"),
        ("ImageInspectError", "ContainerNotCreated"),
        ("CreateContainerConfigError", "ContainerNotCreated"),
        ("RunContainerError", "ContainerNotCreated"),
        ("InventedByALaterKubelet", "ContainerNotCreated"),
    ],
)
def test_every_waiting_reason_but_the_normal_ones_is_trouble(reason: str, trouble: str | None) -> None:
    found = waiting_trouble({"reason": reason, "message": "in the kubelet's words"}, None)
    assert (found and found[0]) == trouble
    if trouble == "ContainerNotCreated":
        assert found is not None
        assert "in the kubelet's words" in found[1]


@pytest.mark.parametrize("reason", ["ImageInspectError", "SomethingElse"])
async def test_what_cannot_start_fails_soon_in_the_kubelets_words(reason: str) -> None:
    lab = market(expires_after=3600)
    name = await with_pod(lab)
    lab.kubelet.schedule(name)
    lab.kubelet.waiting(name, reason, "no such layer")
    await pass_seconds(lab, 150)
    await lab.drive(lab.over("run-a"))
    assert lab.says("Failed", "run-a") == ("True", "OpFailed")
    assert "no such layer" in json.dumps(lab.result("run-a")["opStates"][0])


# --- expiry is a normal end only of what ran ---------------------------------------------------------------


def image_pull(lab: Lab, name: str) -> None:
    lab.kubelet.schedule(name)
    lab.kubelet.waiting(name, "ErrImagePull", "not found")


def no_room(lab: Lab, name: str) -> None:
    stamp = lab.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    short = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes", "lastTransitionTime": stamp}
    lab.kube.edit("Pod", NAMESPACE, name, {"status": {"phase": "Pending", "conditions": [short]}})


def still_pulling(lab: Lab, name: str) -> None:
    lab.kubelet.schedule(name)
    lab.kubelet.waiting(name, "ContainerCreating")


@pytest.mark.parametrize(
    ("trouble", "reason", "words", "job_reason"),
    [
        (image_pull, "ImagePull", "cannot be pulled", "OpFailed"),
        (no_room, "NoCapacity", "0/2 nodes", "NoCapacity"),
        (still_pulling, "NeverStarted", "waits on node", "OpFailed"),
    ],
)
async def test_a_job_whose_op_never_started_has_failed_when_its_time_is_up(
    trouble: Any, reason: str, words: str, job_reason: str
) -> None:
    lab = market(onNoCapacity="Wait")
    trouble(lab, await with_pod(lab))
    await pass_seconds(lab, 620)
    await lab.drive(lab.over("run-a"))
    assert lab.says("Failed", "run-a") == ("True", job_reason)
    assert lab.says("Complete", "run-a") is None
    [state] = lab.status("run-a")["ops"]
    assert (state["state"], state["reason"]) == ("Failed", reason)
    assert words in state["message"]
    assert "time is up" in state["message"]
    result = lab.result("run-a")
    assert (result["status"], result["opStates"][0]["status"]) == ("failed", "failed")
    assert words in result["opStates"][0]["errors"][0]["message"]
    assert any(words in note for kind, _, note in lab.events.seen if kind == "Warning")


async def test_an_op_whose_turn_never_came_has_failed() -> None:
    lab = market(definition(op("server"), op("upload")), expires_after=60)
    await lab.drive(lab.over("run-a"))
    states = {o["id"]: (o["state"], o["reason"]) for o in lab.status("run-a")["ops"]}
    assert states == {"server": ("Succeeded", "Expired"), "upload": ("Failed", "NeverStarted")}
    assert lab.result("run-a")["status"] == "failed"


async def test_a_definition_that_is_still_being_fetched_when_the_time_is_up_is_no_success() -> None:
    lab = market(expires_after=30)
    lab.ipfs.content[CID] = Unavailable("no gateway answers")
    await lab.drive(lab.over("run-a"))
    assert lab.says("Failed", "run-a") == ("True", "DefinitionUnreachable")
    assert lab.result("run-a")["status"] == "init error"


# --- a kubelet that refuses pods ---------------------------------------------------------------------------


def refuse_pod(lab: Lab, name: str, reason: str = "UnexpectedAdmissionError") -> None:
    lab.kube.edit(
        "Pod",
        NAMESPACE,
        name,
        {"status": {"phase": "Failed", "reason": reason, "message": "no healthy devices"}},
    )


def private() -> Lab:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE}))
    lab.boot()
    return lab


async def newest(lab: Lab, attempt: int) -> str:
    name = "hello-0" + (f"-r{attempt}" if attempt else "")
    for _ in range(100):
        await lab.work()
        if lab.kube.find("Pod", NAMESPACE, name) is not None:
            return name
        lab.clock.advance(10)
        lab.dirty.add((NAMESPACE, "hello"))
    raise AssertionError(f"no {name}: {lab.statuses()}")


@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfcpu", "NodeAffinity", "SomethingNew"])
async def test_an_op_whose_pod_a_kubelet_refuses_runs_elsewhere(reason: str) -> None:
    lab = private()
    name = await newest(lab, 0)
    lab.kubelet.schedule(name)
    refuse_pod(lab, name, reason)
    second = await newest(lab, 1)
    assert ("Warning", "NodeLost") in [event[:2] for event in lab.events.seen]
    pod = lab.kube.find("Pod", NAMESPACE, second)
    assert pod is not None
    assert "node-1" in json.dumps(pod["spec"]["affinity"])
    lab.exits[0] = 0
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


async def test_refusals_in_a_row_are_bounded() -> None:
    lab = private()
    for attempt in range(MAX_REFUSALS + 1):
        name = await newest(lab, attempt)
        lab.kubelet.schedule(name)
        refuse_pod(lab, name)
    await lab.drive(lab.over())
    assert lab.says("Failed") == ("True", "OpFailed")
    assert "no healthy devices" in lab.status()["ops"][0]["message"]
    assert lab.kube.find("Pod", NAMESPACE, f"hello-0-r{MAX_REFUSALS + 1}") is None


@pytest.mark.parametrize("seen", [True, False])
async def test_an_exit_code_of_0_stays_0(seen: bool) -> None:
    lab = private()
    await lab.drive(lambda: lab.phase() == "Running")
    lab.kubelet.end("hello-0", 0)
    if seen:
        # The kubelet rewrites the pod, and leaves its container out, before the end was written.
        await _look(lab)
        lab.kube.edit("Pod", NAMESPACE, "hello-0", {"status": {"containerStatuses": []}})
    refuse_pod(lab, "hello-0")
    await lab.drive(lab.over())
    assert lab.says("Complete") == ("True", "Succeeded")
    assert lab.status()["ops"][0]["exitCode"] == 0


async def _look(lab: Lab) -> None:
    async def interrupt(request: Request, when: str) -> None:
        if request.kind in ("NosanaJob", "Secret"):
            raise Unavailable("not now")

    lab.kube.interrupt = interrupt
    await lab.work()
    lab.kube.interrupt = None


# --- a quota that is used up -------------------------------------------------------------------------------


def quota(lab: Lab) -> None:
    async def interrupt(request: Request, when: str) -> None:
        if request.kind == "Pod" and request.verb == "create" and when == "before":
            raise FakeRefused(
                'pods "x" is forbidden: exceeded quota: gpus, requested: 1, used: 4, limited: 4'
            )

    lab.kube.interrupt = interrupt


async def test_an_exceeded_quota_is_no_room_and_a_private_job_waits() -> None:
    lab = private()
    quota(lab)
    await pass_seconds(lab, 1200, "hello")
    assert lab.status()["ops"][0]["reason"] == "NoCapacity"
    assert "exceeded quota" in lab.status()["ops"][0]["message"]
    assert lab.phase() == "Starting"
    lab.kube.interrupt = None
    lab.exits[0] = 0
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


async def test_a_market_job_without_quota_is_given_up_like_one_without_room() -> None:
    lab = market(expires_after=3600)
    quota(lab)
    await lab.drive(lambda: bool(lab.status("run-a").get("ops")))
    await pass_seconds(lab, 240)
    assert lab.phase("run-a") == "Starting"
    await pass_seconds(lab, 90)
    await lab.drive(lab.over("run-a"))
    assert lab.says("Failed", "run-a") == ("True", "NoCapacity")
