"""Ops that lose their container, their pod or their node, on real nodes: what becomes of them and what is said."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import JobCondition
from nosana_operator.api.result import read_result
from nosana_sandbox.cluster import ClusterError, LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.host import job_object
from support.operators import Operator, install
from support.scene import JOBS, Scene, condition, definition, logs_of, op, op_state, phase, sleeps

pytestmark = pytest.mark.cluster

GREEDY = "echo eating; tail /dev/zero"
HOARDS = "echo hoarding; dd if=/dev/zero of=/tmp/x bs=1M count=40 2>/dev/null; exec sleep 600"


@pytest.mark.parametrize(
    ("name", "cmd", "resources", "reason", "word"),
    [
        ("greedy", GREEDY, {"memory": "64Mi"}, "OOMKilled", "137"),
        # The kubelet takes its time to see how full a container's files are.
        pytest.param(
            "hoards", HOARDS, {"ephemeralStorage": "16Mi"}, "Evicted", "storage", marks=pytest.mark.soak
        ),
    ],
)
async def test_what_an_op_loses_by_its_own_limits(
    scene: Scene, name: str, cmd: str, resources: dict[str, str], reason: str, word: str
) -> None:
    await scene.private(name, definition(op(name, cmd)), resources=resources)
    body = await scene.over(name)
    (told,) = body["status"]["ops"]
    assert (told["state"], told["reason"]) == ("Failed", reason)
    assert word in told["message"]
    assert condition(body, JobCondition.FAILED)[1] == "OpFailed"
    state = await scene.stored_result(body)
    assert (state["status"], op_state(state, name)["status"]) == ("failed", "failed")
    assert op_state(state, name)["diagnostics"]["state"]["OOMKilled"] is (reason == "OOMKilled")
    assert op_state(state, name)["errors"][0]["event"] == "container-runtime-error"
    assert len(scene.pods_ever(body)) == 1, "an op that breaks its own limit is not run again"


async def test_others_cannot_take_a_pod_away_unseen(scene: Scene) -> None:
    """A drain is refused as long as the op runs; a pod that somebody deletes ends its op, and it says so."""
    kubectl = scene.host.kubectl
    await scene.private("stays", sleeps(600))
    body = await scene.named("stays", lambda b: phase(b) == "Running", "runs")
    node, pod = body["status"]["ops"][0]["node"], body["status"]["ops"][0]["pod"]
    arguments = (node, "--pod-selector=nosana.io/nosanajob=stays", "--timeout=2s", "--force")
    with pytest.raises(ClusterError, match=r"disruption budget|global timeout"):
        await asyncio.to_thread(
            kubectl.run, "drain", *arguments, "--ignore-daemonsets", "--delete-emptydir-data"
        )
    await asyncio.to_thread(kubectl.run, "uncordon", node)
    assert scene.seen.current("Pod")[pod]["metadata"].get("deletionTimestamp") is None

    await asyncio.to_thread(kubectl.run, "delete", "pod", pod, "-n", JOBS, "--wait=false")
    body = await scene.over("stays")
    (told,) = body["status"]["ops"]
    assert (told["state"], told["reason"]) == ("Failed", "PodDeleted")
    assert "stop the NosanaJob instead" in told["message"]
    state = await scene.stored_result(body)
    assert logs_of(state, "sleep")[:1] == [told["message"]]
    assert "sleep" in logs_of(state, "sleep")


@pytest.mark.soak
def test_nodes_that_fall_silent_and_are_given_up(short_folder: Path, tmp_path: Path) -> None:
    """Each of two nodes loses its kubelet; one is marked out of service, the other's Node object is deleted."""
    cluster = LocalCluster(short_folder / "loss", "loss", 0, 3, print)
    namespace = "losses"
    operator = Operator(cluster, tmp_path, namespace)
    try:
        cluster.up()
        kubectl = Kubectl(find_kubectl(), cluster.kubeconfig)
        install(kubectl, namespace)
        operator.start()

        def read(name: str) -> Mapping[str, Any]:
            return kubectl.get("nosanajob", name, f"--namespace={namespace}")

        def until(name: str, good: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
            deadline = time.monotonic() + 180
            while not good(body := read(name)):
                assert time.monotonic() < deadline, body.get("status")
                time.sleep(0.5)
            return body

        def place(node: str, *names: str, **spec: Any) -> None:
            """Jobs that land on that node, and are free to go elsewhere later."""
            others = [f"node-{n}" for n in (1, 2, 3) if f"node-{n}" != node]
            kubectl.run("cordon", *others)
            kubectl.apply([private(name, namespace, sleeps(600), **spec) for name in names])
            for name in names:
                body = until(name, lambda b: phase(b) == "Running")
                assert body["status"]["ops"][0]["node"] == node
            kubectl.run("uncordon", *others)

        place("node-2", "again")
        place("node-2", "gives-up", nodeLossPolicy="Fail")
        place("node-3", "anew")
        for index in (2, 3):
            cluster.stop(f"kubelet-{index}")
        for name in ("again", "gives-up", "anew"):
            body = until(name, lambda b: condition(b, JobCondition.READY)[1] == "NodeSilent")
            assert condition(body, JobCondition.READY)[0] == "Unknown"
            assert (phase(body), body["status"]["ops"][0]["state"]) == ("Running", "Running")

        kubectl.run("taint", "node", "node-2", "node.kubernetes.io/out-of-service=gone:NoExecute")
        kubectl.run("delete", "node", "node-3", "--wait=false")
        for name in ("again", "anew"):
            body = until(
                name, lambda b: b["status"]["ops"][0].get("node") == "node-1" and phase(b) == "Running"
            )
            (told,) = body["status"]["ops"]
            assert (told["attempt"], told.get("restarts") or 0) == (1, 0), "the loss of a node is not counted"
        body = until("gives-up", lambda b: phase(b) == "Failed")
        (told,) = body["status"]["ops"]
        assert (told["state"], told["reason"]) == ("Failed", "NodeLost")
        assert "node-2" in told["message"]
        parts = [
            kubectl.get("secret", name, f"--namespace={namespace}")
            for name in body["status"]["resultSecrets"]
        ]
        state = json.loads(read_result(parts))
        assert (state["status"], state["opStates"][0]["status"]) == ("failed", "failed")
    finally:
        operator.end()
        cluster.down()


def private(name: str, namespace: str, what: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    body = job_object(name, what, **spec)
    body["metadata"]["namespace"] = namespace
    return body
