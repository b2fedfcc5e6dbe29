"""The cluster does for pods what a real one does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.errors import KubectlError, NamespaceError
from nosana_sandbox.cluster.forward import connect_in_namespace, listen_in_namespace
from nosana_sandbox.cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

JUPYTER = "docker.io/nosana/tensorflow-jupyter:2.0.0"


def pod(name: str, image: str, **container: Any) -> dict[str, Any]:
    node = container.pop("node", None)
    grace = container.pop("grace", 1)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            **({"nodeName": node} if node else {}),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", **container}],
        },
    }


def start(kubectl: Kubectl, *pods: dict[str, Any]) -> None:
    kubectl.apply(pods)
    for each in pods:
        ready(kubectl, each["metadata"]["name"])


def ready(kubectl: Kubectl, name: str) -> None:
    kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def shell(kubectl: Kubectl, name: str, text: str) -> str:
    return kubectl.run("exec", name, "--", "sh", "-c", text)


def address(kubectl: Kubectl, inside: str, name: str) -> str:
    """The address that DNS gives to the pod `inside` for `name`."""
    answer = shell(kubectl, inside, f"nslookup -type=a {name}.default.svc.cluster.local")
    return answer.rpartition("Address:")[2].strip()


@pytest.fixture(scope="module")
def shells(kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    """A shell on each node."""
    names = ("shell-1", "shell-2")
    start(
        kubectl,
        *(pod(name, "ubuntu", command=["sleep", "100000"], node=f"node-{name[-1]}") for name in names),
    )
    yield names
    kubectl.run("delete", "pod", *names, "--wait=false")


def test_nodes_have_their_share_of_the_gpus(kubectl: Kubectl) -> None:
    nodes = {node["metadata"]["name"]: node for node in kubectl.get("nodes")["items"]}
    assert sorted(nodes) == ["node-1", "node-2"]
    for node in nodes.values():
        assert node["status"]["capacity"]["nvidia.com/gpu"] == "2"
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == "NVIDIA-GeForce-RTX-4090"
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.35.4"
    version = json.loads(kubectl.run("version", "-o", "json"))["serverVersion"]
    assert (version["gitVersion"], version["major"], version["minor"]) == ("v1.35.4", "1", "35")


def test_the_scheduler_counts_gpus(kubectl: Kubectl) -> None:
    two = {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    names = ["gpu-a", "gpu-b", "gpu-c"]
    pods = [pod(name, "sandbox.invalid/sleeper:1", **two) for name in names]
    start(kubectl, *pods[:2])
    kubectl.apply(pods[2:])
    condition = "jsonpath={.status.conditions[?(@.type=='PodScheduled')].reason}=Unschedulable"
    kubectl.run("wait", f"--for={condition}", "pod/gpu-c", "--timeout=30s")
    placed = {kubectl.get("pod", name)["spec"]["nodeName"] for name in names[:2]}
    assert placed == {"node-1", "node-2"}
    kubectl.run("delete", "pod", "gpu-a")
    ready(kubectl, "gpu-c")
    kubectl.run("delete", "pod", "gpu-b", "gpu-c", "--wait=false")


def test_a_stand_in_serves_on_the_port_of_its_command_line(kubectl: Kubectl, shells: tuple[str, str]) -> None:
    args = ["jupyter", "lab", "--ip=0.0.0.0", "--port=9999", "--no-browser"]
    start(kubectl, pod("jupyter", JUPYTER, args=args, node="node-1"))
    kubectl.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "notebook"},
                "spec": {"selector": {"app": "jupyter"}, "ports": [{"port": 80, "targetPort": 9999}]},
            }
        ]
    )
    until_endpoint = "jsonpath={.endpoints[0].conditions.ready}=true"
    kubectl.run(
        "wait", f"--for={until_endpoint}", "endpointslice", "-l", "kubernetes.io/service-name=notebook"
    )
    # From the same node, from the other one, and from the pod to itself.
    for caller in (*shells, "jupyter"):
        page = _fetch(kubectl, caller, "http://notebook/lab/")
        assert "served by the sandbox's stand-in" in page
        assert JUPYTER in page
    kubectl.run("delete", "pod/jupyter", "service/notebook", "--wait=false")


def test_the_api_answers_pods_by_name(kubectl: Kubectl, shells: tuple[str, str]) -> None:
    slices = kubectl.get("endpointslices", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    assert [endpoint["addresses"] for endpoint in slices[0]["endpoints"]] == [["10.88.1.1"]]
    where = address(kubectl, shells[1], "kubernetes")
    assert where == "10.96.0.1"
    # BusyBox speaks no TLS; that the API server minds is proof enough that it was reached.
    assert "400" in shell(kubectl, shells[1], f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {where} 443")


def test_a_name_outside_the_cluster_does_not_exist(kubectl: Kubectl, shells: tuple[str, str]) -> None:
    with pytest.raises(KubectlError, match=r"bad address 'nosana\.example\.com'"):
        shell(kubectl, shells[0], "wget http://nosana.example.com/")
    assert "NXDOMAIN" in shell(kubectl, shells[0], "nslookup -type=a nosana.example.com 2>&1 || true")


async def test_a_program_outside_answers_pods_by_the_name_of_a_service(
    sandbox_cluster: LocalCluster, kubectl: Kubectl, shells: tuple[str, str]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"asked as {request.headers.get('Host')}")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listener = listen_in_namespace(sandbox_cluster.namespace, "0.0.0.0", 0)
    port = listener.getsockname()[1]
    try:
        await web.SockSite(runner, listener).start()
        await asyncio.to_thread(sandbox_cluster.expose, "default", "outside", 8899, port)
        for caller in shells:
            for name in ("outside", "outside.default", "outside.default.svc.cluster.local"):
                page = await asyncio.to_thread(_fetch, kubectl, caller, f"http://{name}:8899/")
                assert page == f"asked as {name}:8899"
        where = await asyncio.to_thread(address, kubectl, shells[0], "outside")
        # And the way in: from this process to the Service's address, which only the namespace knows.
        inside = await connect_in_namespace(sandbox_cluster.namespace, where, 8899)
        reader, writer = await asyncio.open_connection(sock=inside)
        writer.write(b"GET / HTTP/1.0\r\nHost: me\r\n\r\n")
        assert (await reader.read()).endswith(b"asked as me")
        writer.close()
        await writer.wait_closed()
    finally:
        await runner.cleanup()


def test_a_namespace_that_is_not_there_is_said(sandbox_cluster: LocalCluster) -> None:
    with pytest.raises(NamespaceError, match=r"cannot enter the network namespace .*is the sandbox up"):
        listen_in_namespace(sandbox_cluster.namespace.with_name("no-such"), "127.0.0.1", 0)


def test_a_deadline_ends_a_running_pod_and_its_log_stays(kubectl: Kubectl) -> None:
    script = 'trap "echo told to end; exit 7" TERM; echo started; while :; do sleep 0.1; done'
    start(
        kubectl,
        pod("polite", "ubuntu", command=["sh", "-c", script], grace=30),
        pod("deaf", "ubuntu", command=["sh", "-c", "echo started; while :; do sleep 0.1; done"], grace=2),
    )
    began = time.monotonic()
    for name in ("polite", "deaf"):
        kubectl.run("patch", "pod", name, "--patch", '{"spec": {"activeDeadlineSeconds": 1}}')
    ends = {}
    for name, code, log in (("polite", 7, "started\ntold to end\n"), ("deaf", 137, "started\n")):
        kubectl.run("wait", "--for=jsonpath={.status.phase}=Failed", f"pod/{name}", "--timeout=60s")
        ends[name] = time.monotonic() - began
        status = kubectl.get("pod", name)["status"]
        assert status["reason"] == "DeadlineExceeded"
        assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
        assert kubectl.run("logs", name) == log
    assert ends["polite"] < 15
    kubectl.run("delete", "pod", "polite", "deaf", "--wait=false")


def test_images_of_any_definition_can_be_had(sandbox_cluster: LocalCluster, kubectl: Kubectl) -> None:
    image = "ghcr.io/example/model@sha256:" + "0" * 64
    definition = {
        "ops": [
            {"args": {"image": image, "cmd": ["python3", "train.py"]}},
            {"args": {"image": "example/served:1", "expose": 7000}},
        ]
    }
    sandbox_cluster.ensure_images([definition])
    kubectl.apply([pod("trains", image, args=["python3", "train.py"]), pod("serves", "example/served:1")])
    ready(kubectl, "serves")
    kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/trains", "--timeout=60s")
    assert kubectl.run("logs", "trains") == f"stand-in for {image}: train.py\n"
    assert "answering on port 7000" in kubectl.run("logs", "serves")
    kubectl.run("delete", "pod", "trains", "serves", "--wait=false")


def test_images_are_pulled_as_from_any_registry(sandbox_cluster: LocalCluster, kubectl: Kubectl) -> None:
    def definition(*cmd: str) -> dict[str, Any]:
        login = {"docker": {"username": "me", "password": "open"}}
        mine = {"image": "ghcr.io/me/mine:1", "cmd": list(cmd), "authentication": login}
        return {"ops": [{"args": mine}, {"args": {"image": "example/moving:1", "cmd": list(cmd)}}]}

    def secret(name: str, password: str) -> dict[str, Any]:
        text = json.dumps({"auths": {"ghcr.io": {"username": "me", "password": password}}})
        kind = "kubernetes.io/dockerconfigjson"
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind,
            "stringData": {".dockerconfigjson": text},
        }  # fmt: skip

    def pulling(name: str, image: str, login: str | None = None, **container: Any) -> dict[str, Any]:
        made = pod(
            name, image, **{"imagePullPolicy": "Always", "args": ["first"], "node": "node-1"} | container
        )
        if login:
            made["spec"]["imagePullSecrets"] = [{"name": login}]
        return made

    def why_not(name: str) -> str:
        # Said at the first try, and again with each time that the kubelet waits for the next one.
        path = "{.status.containerStatuses[0].state.waiting.message}"
        kubectl.run("wait", f"--for=jsonpath={path}", f"pod/{name}", "--timeout=60s")
        return str(kubectl.get("pod", name)["status"]["containerStatuses"][0]["state"]["waiting"]["message"])

    sandbox_cluster.ensure_images([definition("first")])
    kubectl.apply([secret("good", "open"), secret("bad", "wrong")])
    mine, names = "ghcr.io/me/mine:1", ["with", "without", "wrong", "nobodys", "moves", "moved"]
    kubectl.apply(
        [pulling("without", mine), pulling("wrong", mine, "bad"), pulling("nobodys", "example/none")]
    )
    assert "401 Unauthorized" in why_not("without")
    assert "401 Unauthorized" in why_not("wrong")
    assert "docker.io/example/none:latest: not found" in why_not("nobodys")
    kubectl.apply([pulling("with", mine, "good"), pulling("moves", "example/moving:1")])
    for name in ("with", "moves"):
        kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
    # A node that has an older one under the name does not keep it.
    sandbox_cluster.ensure_images([definition("second")])
    kubectl.apply([pulling("moved", "example/moving:1", imagePullPolicy="IfNotPresent", args=["second"])])
    kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/moved", "--timeout=60s")
    kubectl.run("delete", "--wait=false", "secret/good", "secret/bad", *(f"pod/{name}" for name in names))


def _fetch(kubectl: Kubectl, inside: str, url: str) -> str:
    """Fetch until it answers: a Service needs a moment between its making and the packet filter."""
    return shell(
        kubectl, inside, f"n=0; until wget -q -O - -T 5 {url} || [ $n = 50 ]; do n=$((n+1)); sleep 0.2; done"
    )
