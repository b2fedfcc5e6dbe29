"""Health checks against real pods, what they release, what a log gave, and the commands that show it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from nosana_sandbox.host import SandboxHost, job_object
from nosana_sandbox.world.sandbox import Sandbox
from support.scene import JOBS

pytestmark = pytest.mark.cluster

CHECK = {"type": "http", "path": "/ok", "method": "GET", "expected_status": 200, "continuous": True}
SERVE = (
    "mkdir -p /tmp/w; echo starting; sleep 2; echo well > /tmp/w/ok; "
    "trap 'exit 0' TERM; httpd -f -p 8080 -h /tmp/w & wait $!"
)
ASK = "echo said=$(wget -q -O - http://%%ops.web.host%%:8080/ok) || exit 7"
RELEASED: dict[str, Any] = {
    "version": "0.1",
    "type": "container",
    "ops": [
        {
            "type": "container/run",
            "id": "web",
            # It ends with the client, and so the client is what waits.
            "execution": {"group": "g", "depends_on": ["client"], "stop_if_dependent_stops": True},
            "args": {
                "image": "ubuntu",
                "cmd": ["sh", "-c", SERVE],
                "expose": [{"port": 8080, "health_checks": [CHECK]}],
            },
        },
        {
            "type": "container/run",
            "id": "client",
            "execution": {"group": "g"},
            "results": {"said": r"(?<=said=)\w+", "broken": "(", "hostile": "(s+)+$"},
            "args": {"image": "ubuntu", "cmd": ["sh", "-c", ASK]},
        },
        {
            "type": "container/run",
            "id": "report",
            "args": {"image": "ubuntu", "cmd": ["echo", "it said %%ops.client.results.said%%"]},
        },
    ],
}


def read(host: SandboxHost, name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(host.kubectl.run("get", "nosanajob", name, "-n", JOBS, "-o", "json"))
    return body.get("status") or {}


def wait(
    host: SandboxHost, name: str, good: Callable[[dict[str, Any]], bool], seconds: float
) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not good(status := read(host, name)):
        assert time.monotonic() < deadline, f"waited in vain: {status}"
        time.sleep(0.2)
    return status


def over(status: dict[str, Any]) -> bool:
    return status.get("phase") in ("Completed", "Failed", "Stopped")


def command(host: SandboxHost, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "nosana_operator", *arguments, "-n", JOBS]
    return subprocess.Popen(
        [*line, "--kubeconfig", str(host.kubectl.kubeconfig)], stdout=subprocess.PIPE, text=True
    )


def told(host: SandboxHost, *arguments: str) -> str:
    with command(host, *arguments) as process:
        return process.communicate(timeout=60)[0]


async def test_a_healthy_op_releases_the_next_and_its_log_gives_values(
    sandbox: Sandbox, host: SandboxHost
) -> None:
    sandbox.ensure_images([RELEASED])
    try:
        host.kubectl.apply([job_object("checked", RELEASED, timeout=120)])
        with command(host, "logs", "checked", "--follow") as following:
            status = await asyncio.to_thread(wait, host, "checked", over, 90)
            followed = following.communicate(timeout=30)[0]
        assert status["phase"] == "Completed", status
        web, client, report = status["ops"]
        assert web["readyAt"] >= web["startedAt"]
        assert client["startedAt"] >= web["readyAt"][:19], "it waited for the first healthy round"
        assert (client["exitCode"], web["state"], report["state"]) == (0, "Stopped", "Succeeded")
        assert {"[web] starting", "[client] said=well", "[report] it said well"} <= set(followed.splitlines())

        result = json.loads(told(host, "result", "checked"))
        values = result["opStates"][1]["results"]
        assert values["said"] == ["well"]
        assert values["broken"] == "SyntaxError: Invalid regular expression: /(/: Unterminated group"
        assert values["hostile"] == []
        assert told(host, "logs", "checked", "--op", "report") == "it said well\n"
        shown = told(host, "status", "checked")
        assert f"{JOBS}/checked: Completed" in shown
        assert "endpoint   web:8080  Offline" in shown
    finally:
        host.kubectl.run("delete", "nosanajob", "checked", "-n", JOBS, "--ignore-not-found")


@pytest.mark.soak
def test_an_ill_op_is_started_again(sandbox: Sandbox, host: SandboxHost) -> None:
    check = {**CHECK, "restart_on_failure": True, "max_restarts": 1}
    falls_ill = (
        "mkdir -p /tmp/w; echo x > /tmp/w/ok; (sleep 10; rm /tmp/w/ok) & exec httpd -f -p 80 -h /tmp/w"
    )
    ill = {
        "version": "0.1",
        "type": "container",
        "ops": [
            {
                "type": "container/run",
                "id": "web",
                "args": {
                    "image": "ubuntu",
                    "cmd": ["sh", "-c", falls_ill],
                    "expose": [{"port": 80, "health_checks": [check]}],
                },
            }
        ],
    }
    sandbox.ensure_images([ill])

    def endpoint(state: str) -> Callable[[dict[str, Any]], bool]:
        return lambda status: [e["state"] for e in status.get("endpoints", ())] == [state]

    try:
        host.kubectl.apply([job_object("ill", ill)])
        wait(host, "ill", endpoint("Online"), 60)
        host.kill()
        host.start()
        wait(host, "ill", lambda status: status["ops"][0].get("healthRestarts") == 1, 90)
        wait(host, "ill", endpoint("Online"), 90)
        status = wait(host, "ill", endpoint("Offline"), 90)
        assert status["ops"][0]["pod"] == "ill-0-r1"
        assert status["phase"] == "Running", "it was started again as often as it may"
        host.kubectl.run("patch", "nosanajob", "ill", "-n", JOBS, "--type=merge", '-p={"spec":{"stop":true}}')
        status = wait(host, "ill", over, 60)
        assert (status["phase"], status["ops"][0]["attempt"]) == ("Stopped", 1)
    finally:
        host.kubectl.run("delete", "nosanajob", "ill", "-n", JOBS, "--ignore-not-found")
