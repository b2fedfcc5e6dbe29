"""Logs of real containers: streams apart where the cluster offers it, and what kubelets rotate away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import API_VERSION, JOB_KIND
from nosana_operator.api.result import read_result
from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from support.operators import Operator, install

pytestmark = pytest.mark.cluster

NAMESPACE = "logs"
SPEAKS = "for i in 1 2 3; do echo out $i; sleep 0.02; echo err $i >&2; sleep 0.02; done"
# The kubelet looks every 10 s whether a log has grown beyond 10 MiB.
FLOODS = "echo first; sleep 8; yes 'much to say' | head -n 1000000; sleep 12; echo last"
OPS: Mapping[str, Mapping[str, Any]] = {
    "speaks": {
        "args": {"image": "ubuntu", "cmd": SPEAKS},
        "results": {
            "all": r"\d",
            "out": {"regex": r"\w+ \d", "logType": ["stdout"]},
            "err": {"regex": r"\w+ \d", "logType": ["stderr"]},
        },
    },
    "floods": {"args": {"image": "ubuntu", "cmd": FLOODS}},
}


@pytest.fixture(scope="module")
def states(
    spare_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """Each op's part of the result, as a job of its own."""
    kubectl = Kubectl(find_kubectl(), spare_cluster.kubeconfig)
    install(kubectl, NAMESPACE)
    operator = Operator(spare_cluster, Path(tmp_path_factory.mktemp("operator")), NAMESPACE)
    operator.start()
    try:
        kubectl.apply([job(name, op) for name, op in OPS.items()])
        yield {name: result(kubectl, name)["opStates"][0] for name in OPS}
        kubectl.run("delete", "nosanajobs", "--all", f"--namespace={NAMESPACE}", "--timeout=60s")
    finally:
        operator.end()


def job(name: str, op: Mapping[str, Any]) -> dict[str, Any]:
    ops = [{"type": "container/run", "id": name, **op}]
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"definition": {"version": "0.1", "type": "container", "ops": ops}},
    }


def result(kubectl: Kubectl, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        status = kubectl.get("nosanajob", name, f"--namespace={NAMESPACE}").get("status") or {}
        if secrets := status.get("resultSecrets"):
            parts = [kubectl.get("secret", secret, f"--namespace={NAMESPACE}") for secret in secrets]
            return dict(json.loads(read_result(parts)))
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


def test_each_line_has_its_stream_and_all_are_in_order(states: Mapping[str, Mapping[str, Any]]) -> None:
    said = [(entry["type"], entry["log"]) for entry in states["speaks"]["logs"]]
    assert said == [
        (stream, f"{word} {number}\n")
        for number in (1, 2, 3)
        for stream, word in (("stdout", "out"), ("stderr", "err"))
    ]


def test_results_are_captured_from_the_streams_that_they_name(
    states: Mapping[str, Mapping[str, Any]],
) -> None:
    assert states["speaks"]["results"] == {
        "all": ["1", "1", "2", "2", "3", "3"],
        "out": ["out 1", "out 2", "out 3"],
        "err": ["err 1", "err 2", "err 3"],
    }


def test_what_was_rotated_away_is_said(states: Mapping[str, Mapping[str, Any]]) -> None:
    logs = states["floods"]["logs"]
    assert [entry["log"] for entry in logs if entry["type"] == "stdout"][-1] == "last\n"
    assert "first\n" not in [entry["log"] for entry in logs]
    notices = [entry["log"] for entry in logs if entry["type"] == "nodeerr"]
    [said] = [notice for notice in notices if notice.startswith("the lines from ")]
    assert said.endswith("the node rotated the log while the op ran\n")
