"""The whole sandbox: cluster and world together, as `nosana-sandbox up` and `down` make them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.world.errors import NotRunning
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox, Shape

pytestmark = pytest.mark.cluster

SHAPE = Shape("spare", gpus=2, nodes=1)


@pytest.fixture(scope="module")
def sandbox(spare_cluster: LocalCluster) -> Sandbox:
    """Comes to life around a cluster that is there already, as after a crash of all but that."""
    layout = spare_cluster.layout
    assert (layout.name, layout.gpus, layout.node_count) == (SHAPE.name, SHAPE.gpus, SHAPE.nodes)
    return Sandbox(SHAPE.name, lambda line: print(line, file=sys.stderr), layout.state)


@pytest.fixture(scope="module")
def running(sandbox: Sandbox) -> Iterator[Running]:
    try:
        yield sandbox.up(SHAPE)
    finally:
        sandbox.down()


@pytest.fixture(scope="module")
def kubectl(running: Running) -> Kubectl:
    return Kubectl(find_kubectl(), running.kubeconfig)


ASK = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getGenesisHash"})


def ask(url: str) -> Any:
    request = urllib.request.Request(url, data=ASK.encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["result"]


def test_what_it_says_is_what_the_interface_promises(running: Running, sandbox: Sandbox) -> None:
    body = running.to_json()
    assert list(body) == [
        "kubeconfig", "rpc", "ws", "ipfs", "gateway", "program", "mint", "market", "host", "poster", "namespaces",
    ]  # fmt: skip
    assert sandbox.status().to_json() == body
    for party in ("host", "poster"):
        assert len(json.loads(Path(body[party]["keypair"]).read_text())) == 64


def test_up_again_changes_nothing(running: Running, sandbox: Sandbox) -> None:
    assert sandbox.up(SHAPE) == running


def test_its_namespaces_are_there(kubectl: Kubectl) -> None:
    there = {each["metadata"]["name"] for each in kubectl.get("namespaces")["items"]}
    assert set(NAMESPACES.values()) <= there


def test_the_chain_is_the_same_outside_inside_and_by_service(running: Running, kubectl: Kubectl) -> None:
    world = running.world
    assert world.namespace is not None
    assert world.inside is not None
    service = kubectl.get("service", "chain", "--namespace", NAMESPACES["sandbox"])["spec"]["clusterIP"]
    program = (
        "import sys, urllib.request; r = urllib.request.Request(sys.argv[1], data=sys.argv[2].encode(), "
        "headers={'Content-Type': 'application/json'}); print(urllib.request.urlopen(r, timeout=10).read().decode())"
    )
    for url in (world.inside.rpc, f"http://{service}:8899"):
        told = subprocess.run(
            ["nsenter", f"--net={world.namespace}", sys.executable, "-c", program, url, ASK],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(told.stdout)["result"] == ask(world.rpc)


def test_the_gateway_reads_the_clusters_ingresses(running: Running, kubectl: Kubectl) -> None:
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "nobody", "namespace": NAMESPACES["jobs"]},
        "spec": {
            "rules": [
                {
                    "host": "nobody.sandbox.localhost",
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "nobody", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ]
        },
    }
    kubectl.apply([ingress])
    request = urllib.request.Request(running.world.gateway, headers={"Host": "nobody.sandbox.localhost"})
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(request, timeout=10)
    assert answered.value.code == 502
    assert b"nobody" in answered.value.read()


def test_a_world_that_was_killed_comes_back_beside_the_same_cluster(
    running: Running, sandbox: Sandbox
) -> None:
    pid = json.loads((sandbox.state / "world" / "processes.json").read_text())["world"]["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(NotRunning, match="nosana-sandbox up"):
        sandbox.status()
    again = sandbox.up(SHAPE)
    assert again.kubeconfig == running.kubeconfig
    assert ask(again.world.rpc)


def test_down_leaves_nothing(
    running: Running, sandbox: Sandbox, leftovers: Callable[[Layout], list[str]]
) -> None:
    sandbox.down()
    assert leftovers(Layout(sandbox.state, SHAPE.name, SHAPE.gpus, SHAPE.nodes)) == []
    assert not sandbox.state.exists()
    sandbox.down()
