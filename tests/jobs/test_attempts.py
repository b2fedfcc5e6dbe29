"""Ops that are run again: restart policies, and nodes that are lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job
from nosana_operator.api import FINALIZER_OP
from nosana_operator.jobs.decision.ops import KEPT_PODS, restart_delay

TWICE = {"policy": "on-failure", "restart_tries": 2}


def lab_of(*ops: Any, exits: dict[int, int] | None = None, **spec: Any) -> Lab:
    lab = Lab(exits=exits or {})
    lab.kube.add(private_job({"definition": definition(*ops), **spec}))
    lab.boot()
    return lab


def names(lab: Lab) -> list[str]:
    return [pod["metadata"]["name"] for pod in lab.pods()]


def log(lab: Lab, pod: str, text: str) -> None:
    lab.kube.logs[NAMESPACE, pod] = f"2026-01-02T03:04:05Z {text}\n".encode()


async def test_a_counted_policy_gives_each_run_a_pod_of_its_own() -> None:
    lab = lab_of(op("a", restart_policy=TWICE), exits={0: 3})
    for index, pod in enumerate(("hello-0", "hello-0-r1", "hello-0-r2")):
        log(lab, pod, f"run {index}")
    begin = lab.clock.now()
    await lab.drive(lab.over())
    assert names(lab) == ["hello-0", "hello-0-r1", "hello-0-r2"]
    assert lab.clock.now() - begin >= timedelta(seconds=10 + 20)
    [state] = lab.result()["opStates"]
    assert (state["status"], state["exitCode"]) == ("failed", 3)
    assert [entry["log"] for entry in state["logs"]] == ["run 0\n", "run 1\n", "run 2\n"]
    assert lab.status()["ops"][0]["restarts"] == 2
    assert all(FINALIZER_OP not in pod["metadata"].get("finalizers", []) for pod in lab.pods())


async def test_a_run_that_ends_well_ends_the_restarts() -> None:
    lab = lab_of(op("a", restart_policy=TWICE), op("b"), exits={0: 1, 1: 0})
    await lab.drive(lambda: len(lab.pods()) == 2)
    lab.exits[0] = 0
    await lab.drive(lab.over())
    assert names(lab) == ["hello-0", "hello-0-r1", "hello-1"]
    assert lab.result()["status"] == "success"


async def test_while_it_waits_it_says_so_and_can_be_stopped() -> None:
    lab = lab_of(op("a", restart_policy=TWICE), exits={0: 1})
    await lab.drive(lambda: (lab.status().get("ops") or [{}])[0].get("reason") == "Restarting")
    [op_status] = lab.status()["ops"]
    assert (op_status["state"], op_status["attempt"]) == ("Starting", 1)
    assert op_status["message"] == "exit code 1; the op is run again (1 of 2 times) 10 s after its end"
    assert lab.says("Ready") == ("False", "Starting")
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.phase() == "Stopped"
    assert names(lab) == ["hello-0"]


async def test_an_operator_that_was_away_writes_before_it_runs_the_op_again() -> None:
    lab = lab_of(op("a", restart_policy=TWICE))
    await lab.drive(lambda: lab.phase() == "Running")
    await lab.controller.close()
    lab.kubelet.end("hello-0", 1)
    lab.clock.advance(3600)
    await lab.crash_and_reboot()
    lab.kube.requests.clear()
    await lab.drive(lambda: len(lab.pods()) == 2)
    assert [(r.verb, r.kind) for r in lab.written()][:2] == [("apply", "NosanaJob"), ("create", "Pod")]
    assert names(lab) == ["hello-0", "hello-0-r1"]


async def test_an_ops_time_counts_from_its_first_run() -> None:
    policy = {"policy": "on-failure", "restart_tries": 50}
    lab = lab_of(op("a", restart_policy=policy, timeout=120), exits={0: 1})
    begin = lab.clock.now()
    await lab.drive(lab.over())
    assert 118 <= (lab.clock.now() - begin).total_seconds() <= 125
    assert lab.result()["opStates"][0]["status"] == "success"


async def test_only_the_last_runs_are_kept_and_the_result_says_so() -> None:
    policy = {"policy": "on-failure", "restart_tries": KEPT_PODS + 3}
    lab = lab_of(op("a", restart_policy=policy), exits={0: 1})
    await lab.drive(lab.over())
    assert len(names(lab)) <= KEPT_PODS + 2
    [state] = lab.result()["opStates"]
    assert "runs are gone" in state["logs"][-1]["log"]


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (3, 40), (6, 300), (1000, 300)])
def test_waits_double_up_to_five_minutes(attempt: int, seconds: int) -> None:
    assert restart_delay(attempt).total_seconds() == seconds


def disrupt(lab: Lab, name: str) -> None:
    """As the pod garbage collector leaves a pod whose node was deleted."""
    taken = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "node is gone",
    }
    lab.kube.edit(
        "Pod",
        NAMESPACE,
        name,
        {
            "metadata": {"deletionTimestamp": "2026-01-02T03:04:06Z", "deletionGracePeriodSeconds": 0},
            "status": {"phase": "Failed", "conditions": [taken]},
        },
    )


async def test_an_op_whose_node_is_gone_is_run_again() -> None:
    lab = lab_of(op("a"))
    await lab.drive(lambda: lab.phase() == "Running")
    disrupt(lab, "hello-0")
    await lab.drive(lambda: (lab.status()["ops"][0].get("reason")) == "NodeLost")
    await lab.drive(lambda: lab.phase() == "Running" and lab.status()["ops"][0]["state"] == "Running")
    [op_status] = lab.status()["ops"]
    assert (op_status["pod"], op_status.get("restarts")) == ("hello-0-r1", None)
    assert "reason" not in op_status
    lab.kubelet.end("hello-0-r1", 0)
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"


async def test_an_op_whose_node_is_gone_fails_where_the_job_wants_that() -> None:
    lab = lab_of(op("a"), nodeLossPolicy="Fail")
    await lab.drive(lambda: lab.phase() == "Running")
    disrupt(lab, "hello-0")
    await lab.drive(lab.over())
    assert lab.says("Failed") == ("True", "OpFailed")
    assert lab.status()["ops"][0]["reason"] == "NodeLost"
    assert "node is gone" in lab.status()["ops"][0]["message"]


def suspend(lab: Lab, value: bool) -> None:
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"suspend": value}})


async def test_a_suspended_job_starts_nothing() -> None:
    lab = lab_of(op("a"), exits={0: 0}, suspend=True)
    await lab.work()
    assert (lab.pods(), lab.phase(), lab.says("Ready")) == ([], "Pending", ("False", "Suspended"))
    suspend(lab, False)
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"
    assert names(lab) == ["hello-0"]


async def test_a_running_job_is_suspended_and_run_again_from_its_beginning() -> None:
    lab = lab_of(op("a", group="g"), op("b", group="g"), op("c"), exits={0: 0})
    await lab.drive(lambda: lab.phase() == "Running" and lab.status()["ops"][0]["state"] == "Succeeded")
    suspend(lab, True)
    await lab.drive(lambda: lab.status()["ops"][1].get("attempt") == 1)
    assert (lab.phase(), lab.says("Ready")) == ("Pending", ("False", "Suspended"))
    lab.kube.requests.clear()
    for _ in range(3):
        lab.clock.advance(600)
        lab.dirty.add((NAMESPACE, "hello"))
        await lab.work()
    assert lab.written() == []
    await lab.crash_and_reboot()
    suspend(lab, False)
    await lab.drive(lambda: lab.phase() == "Running" and lab.status()["ops"][1]["state"] == "Running")
    assert names(lab) == ["hello-0", "hello-1", "hello-1-r1"]
    lab.kubelet.end("hello-1-r1", 0)
    lab.exits[2] = 0
    await lab.drive(lab.over())
    assert lab.phase() == "Completed"
    assert [o["state"] for o in lab.status()["ops"]] == ["Succeeded"] * 3


async def test_a_suspended_job_can_be_stopped() -> None:
    lab = lab_of(op("a"))
    await lab.drive(lambda: lab.phase() == "Running")
    suspend(lab, True)
    await lab.drive(lambda: lab.status()["ops"][0].get("attempt") == 1)
    lab.kube.edit("NosanaJob", NAMESPACE, "hello", {"spec": {"stop": True}})
    await lab.drive(lab.over())
    assert lab.phase() == "Stopped"
