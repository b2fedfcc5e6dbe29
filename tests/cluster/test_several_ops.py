"""Ops that find each other, run again, share a volume and need a login, on real nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nosana_operator.api.result import read_result
from nosana_sandbox.host import SandboxHost, job_object
from nosana_sandbox.world.sandbox import NAMESPACES, Sandbox

pytestmark = pytest.mark.cluster

JOBS = NAMESPACES["jobs"]
SERVE = "mkdir -p /tmp/w; echo hello > /tmp/w/x; exec httpd -f -p 8080 -h /tmp/w"
ASK = "for i in $(seq 40); do wget -q -O - http://cache:8080/x && exit 0; sleep 0.5; done; exit 7"
DATA = [{"name": "data", "dest": "/data"}]
LOGIN = {"docker": {"username": "me", "password": "open sesame"}}


def op(
    name: str, cmd: str | list[str], *, results: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    execution = {
        k: more.pop(k) for k in ("group", "depends_on", "timeout", "stop_if_dependent_stops") if k in more
    }
    args = {"image": "ubuntu", "cmd": cmd, **more}
    made: dict[str, Any] = {"type": "container/run", "id": name, "args": args, "execution": execution}
    return made | ({"results": results} if results else {})


def definition(*ops: dict[str, Any]) -> dict[str, Any]:
    return {"version": "0.1", "type": "container", "ops": list(ops)}


DEFINITIONS: dict[str, dict[str, Any]] = {
    "aliases": definition(
        op("web", SERVE, aliases="Web, Cache", group="g", depends_on=["ask"], stop_if_dependent_stops=True),
        op("ask", ASK, group="g"),
    ),
    "counted": definition(
        op(
            "once-more",
            "echo run; exit 3",
            restart_policy={"policy": "on-failure", "restart_tries": 1},
            group="g",
        ),
        op("always", "echo round; sleep 1", restart_policy="always", timeout=12, group="g"),
    ),
    "volume": definition(
        {"type": "container/create-volume", "id": "make", "args": {"name": "data"}},
        op("write", "echo 42 > /data/x", volumes=DATA),
        op("read", "echo value=$(cat /data/x)", volumes=DATA, results={"value": r"value=(\d+)"}),
        op("tell", ["echo", "it was", "%%ops.read.results.value%%"]),
    ),
    "login": definition(op("mine", "echo in", image="ghcr.io/me/several-ops:1", authentication=LOGIN)),
    "no-login": definition(op("theirs", "echo in", image="ghcr.io/me/several-ops:1")),
}


@pytest.fixture(scope="module")
def ended(sandbox: Sandbox, installed_host: SandboxHost) -> Iterator[dict[str, dict[str, Any]]]:
    """All jobs but the one that waits for a login, at their end, by name."""
    host = installed_host
    sandbox.ensure_images([d for name, d in DEFINITIONS.items() if name != "no-login"])
    if host.pid() is None:
        host.start()
    try:
        host.kubectl.apply([job_object(name, wanted) for name, wanted in DEFINITIONS.items()])
        bodies: dict[str, dict[str, Any]] = {}
        deadline = time.monotonic() + 120
        while len(bodies) < len(DEFINITIONS) - 1:
            assert time.monotonic() < deadline, {n: body(host, n).get("status") for n in DEFINITIONS}
            for name in DEFINITIONS:
                found = body(host, name)
                if (found.get("status") or {}).get("phase") in ("Completed", "Failed", "Stopped"):
                    bodies[name] = found
            time.sleep(0.3)
        yield bodies
    finally:
        host.kubectl.run("delete", "nosanajob", *DEFINITIONS, "-n", JOBS, "--ignore-not-found")


def body(host: SandboxHost, name: str) -> dict[str, Any]:
    return dict(host.kubectl.get("nosanajob", name, f"--namespace={JOBS}"))


def flow(host: SandboxHost, found: dict[str, Any]) -> dict[str, Any]:
    names = found["status"]["resultSecrets"]
    parts = [host.kubectl.get("secret", name, f"--namespace={JOBS}") for name in names]
    return dict(json.loads(read_result(parts)))


def logs(state: dict[str, Any]) -> list[str]:
    return [entry["log"].strip() for entry in state["logs"]]


def test_an_op_is_called_by_its_alias(ended: dict[str, Any], installed_host: SandboxHost) -> None:
    web, ask = flow(installed_host, ended["aliases"])["opStates"]
    assert (ask["status"], logs(ask)) == ("success", ["hello"])
    assert web["status"] == "stopped"


def test_ops_run_again_as_their_policy_says(ended: dict[str, Any], installed_host: SandboxHost) -> None:
    counted, always = flow(installed_host, ended["counted"])["opStates"]
    assert (counted["status"], counted["exitCode"], logs(counted)) == ("failed", 3, ["run", "run"])
    assert counted["endTime"] - counted["startTime"] >= 10_000
    assert always["status"] == "success"
    restarts = ended["counted"]["status"]["ops"][1]["restarts"]
    assert restarts >= 1
    said = [entry for entry in always["logs"] if entry["type"] == "stdout"]
    assert {entry["log"] for entry in said} == {"round\n"}
    assert len({entry["timestamp"] for entry in said}) == len(said) >= 2, "the log of each run, once"
    # Of two runs without a wait between them the kubelet may have dropped the first.
    assert len(said) == restarts + 1 or "gone" in logs(always)[-1]


def test_a_volume_carries_files_and_goes(ended: dict[str, Any], installed_host: SandboxHost) -> None:
    host = installed_host
    states = flow(host, ended["volume"])["opStates"]
    assert [state["status"] for state in states] == ["success"] * 4
    assert logs(states[3]) == ["it was value=42 42"]
    nodes = {o.get("node") for o in ended["volume"]["status"]["ops"][1:3]}
    assert len(nodes) == 1
    host.kubectl.run("wait", "--for=delete", "pvc/volume-0", "-n", JOBS, "--timeout=30s")


def test_a_private_image_is_pulled_with_its_login_only(
    ended: dict[str, Any], installed_host: SandboxHost
) -> None:
    host = installed_host
    assert ended["login"]["status"]["phase"] == "Completed"
    assert "no-login" not in ended
    assert body(host, "no-login")["status"]["ops"][0]["reason"] == "ImagePull"
    secrets = host.kubectl.run("get", "secrets", "-n", JOBS, "-o", "name")
    assert "login-0-pull" not in secrets


def test_policies_stand(ended: dict[str, Any], installed_host: SandboxHost) -> None:
    """The sandbox's network enforces none of it: the objects are looked at."""
    host = installed_host
    policies = host.kubectl.run("get", "networkpolicies", "-n", JOBS, "-o", "name").split()
    assert {
        "networkpolicy.networking.k8s.io/nosana-jobs",
        "networkpolicy.networking.k8s.io/aliases-ops",
    } <= set(policies)
    budget = host.kubectl.get("pdb", "nosana-jobs", f"--namespace={JOBS}")
    assert budget["status"]["disruptionsAllowed"] == 0
