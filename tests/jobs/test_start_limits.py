"""Ops that do not start, and nodes that do not report: how long they are waited for, and what is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.jobs import CID, NAMESPACE, Lab, definition, market_job, op, private_job

ONE = definition(op("a", expose=80))


def private(**spec: Any) -> Lab:
    lab = Lab()
    lab.kube.add(private_job({"definition": ONE, **spec}))
    lab.boot()
    return lab


def market(**spec: Any) -> Lab:
    lab = Lab()
    lab.ipfs.content[CID] = json.dumps(ONE).encode()
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


def unschedulable(lab: Lab, name: str) -> None:
    said = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
        "lastTransitionTime": lab.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    lab.kube.edit("Pod", NAMESPACE, name, {"status": {"phase": "Pending", "conditions": [said]}})


async def pass_minutes(lab: Lab, job: str, minutes: float) -> None:
    end = lab.clock.now().timestamp() + 60 * minutes
    while lab.clock.now().timestamp() < end and not lab.over(job)():
        lab.clock.advance(10)
        lab.dirty.add((NAMESPACE, job))
        await lab.work()


async def test_a_market_job_that_no_node_can_take_is_given_up_after_five_minutes() -> None:
    lab = market()
    unschedulable(lab, await with_pod(lab))
    await pass_minutes(lab, "run-a", 4.5)
    assert "Insufficient nvidia.com/gpu" in lab.status("run-a")["ops"][0]["message"]
    assert lab.phase("run-a") == "Starting"
    await pass_minutes(lab, "run-a", 1)
    await lab.drive(lab.over("run-a"))
    assert lab.says("Failed", "run-a") == ("True", "NoCapacity")
    [state] = lab.result("run-a")["opStates"]
    assert state["status"] == "failed"
    assert "Insufficient nvidia.com/gpu" in state["logs"][0]["log"]


@pytest.mark.parametrize("lab", [private, lambda: market(onNoCapacity="Wait")], ids=["private", "Wait"])
async def test_others_wait_for_a_node_and_say_which_resource_is_short(lab: Any) -> None:
    lab = lab()
    name = await with_pod(lab)
    unschedulable(lab, name)
    job = name.removesuffix("-0")
    await pass_minutes(lab, job, 30)
    assert lab.phase(job) == "Starting"
    assert lab.says("Ready", job) == ("False", "Starting")


@pytest.mark.parametrize(
    ("waiting", "minutes", "reason"),
    [("ErrImagePull", 15, "ImagePull"), ("CreateContainerError", 2, "ContainerNotCreated")],
)
async def test_what_cannot_start_is_given_up(waiting: str, minutes: int, reason: str) -> None:
    lab = private()
    name = await with_pod(lab)
    lab.kubelet.schedule(name)
    lab.kubelet.waiting(name, waiting, "no such thing")
    await pass_minutes(lab, "hello", minutes - 0.5)
    assert lab.status()["ops"][0]["reason"] == reason
    assert lab.phase() == "Starting"
    await pass_minutes(lab, "hello", 1)
    await lab.drive(lab.over())
    assert lab.says("Failed") == ("True", "OpFailed")
    assert lab.status()["ops"][0]["reason"] == reason
    assert lab.status()["ops"][0]["message"].startswith("given up: ")


async def test_trouble_that_passes_is_forgotten() -> None:
    lab = private()
    name = await with_pod(lab)
    lab.kubelet.schedule(name)
    lab.kubelet.waiting(name, "ErrImagePull")
    await pass_minutes(lab, "hello", 14)
    lab.kubelet.waiting(name, "ContainerCreating")
    await lab.work()
    lab.kubelet.waiting(name, "ImagePullBackOff")
    await pass_minutes(lab, "hello", 14)
    assert lab.phase() == "Starting"


async def test_of_a_silent_node_nothing_is_known() -> None:
    lab = private()
    await lab.drive(lambda: lab.phase() == "Running")
    [pod] = lab.pods()
    container = {**pod["status"]["containerStatuses"][0], "ready": True}
    for ready, said, endpoint in (
        ("True", ("True", "Running"), "Online"),
        ("False", ("Unknown", "NodeSilent"), "Unknown"),
        ("True", ("True", "Running"), "Online"),
    ):
        since = lab.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": since}]
        lab.kube.edit(
            "Pod",
            NAMESPACE,
            "hello-0",
            {"status": {"conditions": conditions, "containerStatuses": [container]}},
        )
        await lab.work()
        assert lab.says("Ready") == said
        assert lab.status()["endpoints"][0]["state"] == endpoint
        assert lab.status()["ops"][0]["state"] == "Running"


async def test_a_stop_does_not_wait_for_a_silent_node_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = private()
    await lab.drive(lambda: lab.phase() == "Running")
    [pod] = lab.pods()
    container = {**pod["status"]["containerStatuses"][0], "ready": True}
    since = lab.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": "Ready", "status": "False", "lastTransitionTime": since}]
    lab.kube.edit(
        "Pod", NAMESPACE, "hello-0", {"status": {"conditions": conditions, "containerStatuses": [container]}}
    )
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    begin = lab.clock.now()
    with monkeypatch.context() as silent:
        silent.setattr(lab.kubelet, "step", lambda: False)
        await lab.drive(lab.over())
    assert 295 <= (lab.clock.now() - begin).total_seconds() <= 305
    assert lab.phase() == "Stopped"
    assert "does not report" in lab.status()["ops"][0]["message"]
    [pod] = lab.pods()
    assert pod["metadata"]["finalizers"], "it is let go only when it has ended"
    lab.kubelet.step()
    await lab.work()
    [pod] = lab.pods()
    assert not pod["metadata"].get("finalizers")
