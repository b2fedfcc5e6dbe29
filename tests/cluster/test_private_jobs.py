"""Private jobs on real nodes, under the operator as a process of its own that is also killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import API_VERSION, FINALIZER_OP, JOB_KIND, LABEL_JOB
from nosana_operator.api.result import read_result
from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl
from support.operators import Operator, install

pytestmark = pytest.mark.cluster

NAMESPACE = "private-jobs"
OVER = ("Completed", "Failed", "Stopped")
NAMES = ("steps0", "steps1", "steps2", "limited")


@pytest.fixture
def operator(sandbox_cluster: LocalCluster, kubectl: Kubectl, tmp_path: Path) -> Iterator[Operator]:
    install(kubectl, NAMESPACE)
    process = Operator(sandbox_cluster, tmp_path, NAMESPACE)
    process.start()
    try:
        yield process
        # Whoever runs takes the jobs away as people do.
        kubectl.run("delete", "nosanajobs", "--all", f"--namespace={NAMESPACE}", "--timeout=60s")
    finally:
        process.end()


def op(name: str, cmd: str, **more: Any) -> dict[str, Any]:
    return {"type": "container/run", "id": name, "args": {"image": "ubuntu", "cmd": cmd, **more}}


def job(name: str, *ops: dict[str, Any], **spec: Any) -> dict[str, Any]:
    definition = {"version": "0.1", "type": "container", "ops": list(ops)}
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"definition": definition, **spec},
    }


def read(kubectl: Kubectl, name: str) -> dict[str, Any]:
    return dict(kubectl.get("nosanajob", name, f"--namespace={NAMESPACE}").get("status") or {})


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it is true; how long that may take is a bound, not a wait."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.1)


def over(kubectl: Kubectl, name: str) -> Callable[[], bool]:
    return lambda: read(kubectl, name).get("phase") in OVER


def result(kubectl: Kubectl, name: str) -> dict[str, Any]:
    names = read(kubectl, name)["resultSecrets"]
    return dict(
        json.loads(read_result([kubectl.get("secret", n, f"--namespace={NAMESPACE}") for n in names]))
    )


def test_stages_literals_and_exit_codes(kubectl: Kubectl, operator: Operator) -> None:
    kubectl.apply([job("two", op("one", "echo first; seq 2"), op("two", "echo %%ops.one.host%%; exit 3"))])
    until(over(kubectl, "two"))
    status = read(kubectl, "two")
    assert status["phase"] == "Failed"
    assert [(o["state"], o["exitCode"]) for o in status["ops"]] == [("Succeeded", 0), ("Failed", 3)]
    flow = result(kubectl, "two")
    assert flow["status"] == "failed"
    lines = [[entry["log"] for entry in state["logs"]] for state in flow["opStates"]]
    assert lines == [["first\n", "1\n", "2\n"], ["two-0\n"]]
    assert flow["opStates"][0]["endTime"] <= flow["opStates"][1]["startTime"] + 1000


def test_time_is_up_gracefully(kubectl: Kubectl, operator: Operator) -> None:
    server = "trap 'echo bye; exit 0' TERM; echo up; sleep 1000 & wait"
    kubectl.apply([job("server", op("web", server, expose=8080, gpu=True), timeout=3)])
    until(lambda: read(kubectl, "server").get("phase") == "Running")
    assert [e["state"] for e in read(kubectl, "server")["endpoints"]] == ["Online"]
    until(over(kubectl, "server"))
    status = read(kubectl, "server")
    assert status["phase"] == "Completed"
    assert (status["ops"][0]["state"], status["ops"][0]["reason"]) == ("Succeeded", "Expired")
    [state] = result(kubectl, "server")["opStates"]
    assert [entry["log"] for entry in state["logs"]] == ["up\n", "bye\n"]
    assert state["diagnostics"]["reason"]["jobExpired"] is True
    assert state["endTime"] - state["startTime"] >= 3000


def test_deleted_while_it_runs_and_while_it_cannot_be_placed(kubectl: Kubectl, operator: Operator) -> None:
    kubectl.apply(
        [job("runs", op("a", "sleep 1000")), job("waits", op("a", "true", gpu=True), gpu={"count": 60})]
    )
    until(lambda: read(kubectl, "runs").get("phase") == "Running")
    until(lambda: (read(kubectl, "waits").get("ops") or [{}])[0].get("reason") == "Unschedulable")
    kubectl.run("delete", "nosanajobs", "--all", f"--namespace={NAMESPACE}", "--timeout=40s")
    # The garbage collector learns of a new kind within half a minute or so.
    until(lambda: not kubectl.get("pods", f"--namespace={NAMESPACE}")["items"], 120)


def test_killed_ten_times_and_nothing_runs_twice(kubectl: Kubectl, operator: Operator) -> None:
    """Each process lives a little longer than the last, so they die at different points of the jobs' lives."""
    kubectl.apply(
        [
            *(
                job(f"steps{n}", *(op(f"s{i}", f"echo {i}; sleep {i % 2}") for i in range(3)))
                for n in range(3)
            ),
            job("limited", op("web", "sleep 1000"), timeout=6),
        ]
    )
    seen: dict[str, set[str]] = {}

    def pods() -> list[dict[str, Any]]:
        found = kubectl.get(
            "pods", f"--namespace={NAMESPACE}", f"--selector={LABEL_JOB} in ({', '.join(NAMES)})"
        )
        for pod in found["items"]:
            seen.setdefault(pod["metadata"]["name"], set()).add(pod["metadata"]["uid"])
        return list(found["items"])

    for kill in range(10):
        time.sleep(0.6 + 0.25 * kill)  # the life of this process, not a wait for something
        operator.end(signal.SIGKILL)
        pods()
        operator.start()
    for name in NAMES:
        until(over(kubectl, name))
        assert read(kubectl, name)["phase"] == "Completed"
    assert len(pods()) == 10
    assert {name: len(uids) for name, uids in seen.items()} == dict.fromkeys(seen, 1)
    until(lambda: not any(FINALIZER_OP in pod["metadata"].get("finalizers", []) for pod in pods()))
    for n in range(3):
        logs = [[entry["log"] for entry in s["logs"]] for s in result(kubectl, f"steps{n}")["opStates"]]
        assert logs == [["0\n"], ["1\n"], ["2\n"]]
    assert operator.end() == 0
    operator.start()
