"""What the operator tells: its story in order, by kubectl, and never a secret."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import JOB_KIND, JobCondition
from nosana_sandbox.cluster.kubectl import Kubectl
from nosana_sandbox.host import SandboxHost
from nosana_sandbox.world.sandbox import Sandbox
from support.scene import JOBS, SYSTEM, Scene, condition, definition, eventually, holds, op, phase, says

pytestmark = pytest.mark.cluster

PRIVATE_IMAGE = "ghcr.io/me/told:1"
LOGIN = {"docker": {"username": "me", "password": "s3cret-pw"}}


def planted(name: str) -> str:
    """A secret of that field, to be found again wherever it leaks."""
    return f"planted-{name}-5f2c"


HIDES = definition(
    # Its credentials are wrong: the registry says no, and so does the kubelet.
    op(
        "pulls",
        "true",
        group="all",
        image=PRIVATE_IMAGE,
        authentication={"docker": {"username": "me", "password": planted("password")}},
    ),
    # Nobody has what these want; the fetches fail and say why.
    op(
        "hub",
        "true",
        group="all",
        resources=[
            {
                "type": "HF",
                "repo": "lab/nobody",
                "target": "/m",
                "files": ["no.bin"],
                "accessToken": planted("token"),
            }
        ],
    ),
    op(
        "bucket",
        "true",
        group="all",
        resources=[
            {
                "type": "S3",
                "url": "s3://nobody-has-this-bucket/x",
                "target": "/s",
                "IAM": {
                    "ACCESS_KEY_ID": planted("key-id"),
                    "SECRET_ACCESS_KEY": planted("key"),
                    "REGION": "us-east-1",
                },
            }
        ],
    ),
    # It runs, and its health check is asked with what only the op may know.
    op(
        "serves",
        ["nginx", "-g", "daemon off;"],
        group="all",
        image="nginx",
        env={"API_KEY": planted("env")},
        expose=[
            {
                "port": 80,
                "health_checks": [
                    {
                        "type": "http",
                        "path": f"/?key={planted('path')}",
                        "method": "GET",
                        "headers": {"Authorization": planted("header")},
                        "expected_status": 418,
                        "continuous": True,
                    }
                ],
            }
        ],
    ),
)
FIELDS = ("password", "token", "key-id", "key", "env", "path", "header")


async def test_no_secret_is_told(scene: Scene, sandbox: Sandbox, host: SandboxHost) -> None:
    there = definition(
        op("pulls", "true", image=PRIVATE_IMAGE, authentication=LOGIN),
        op(
            "fetches", "true", resources=[{**HIDES["ops"][1]["args"]["resources"][0], "repo": "lab/somebody"}]
        ),
        HIDES["ops"][-1],
    )
    await asyncio.to_thread(sandbox.ensure_images, [there])
    assert all(planted(field) in json.dumps(HIDES) for field in FIELDS)
    await scene.make(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hides", "namespace": JOBS},
            "stringData": {"definition.json": json.dumps(HIDES)},
        }
    )
    name = await scene.private("hides", definitionFrom={"secret": {"name": "hides"}})

    def told_all(body: Any) -> bool:
        """Each op has come to where its secret was used and refused."""
        ops = {one["id"]: one for one in body.get("status", {}).get("ops", [])}
        return (
            len(ops) == 4
            and "pull" in f"{ops['pulls'].get('reason')} {ops['pulls'].get('message')}".lower()
            and all(ops[name].get("reason") == "ResourceFetchFailed" for name in ("hub", "bucket"))
            and any(e["state"] == "Offline" for e in body["status"].get("endpoints", []))
            and ops["serves"]["state"] == "Running"
        )

    await scene.named(name, told_all, "has said what is wrong with each op")
    heard = await heard_about(scene, host, name)
    await scene.kube.patch(JOB_KIND, JOBS, name, {"spec": {"stop": True}})
    body = await scene.over(name)
    assert phase(body) == "Stopped"
    heard |= await heard_about(scene, host, name)
    heard["result"] = json.dumps(await scene.stored_result(body))
    leaks = [(where, field) for where, text in heard.items() for field in FIELDS if planted(field) in text]
    assert leaks == []
    keys = json.loads(await asyncio.to_thread(Path(scene.running.world.host.keypair).read_text))
    needles = (json.dumps(keys), json.dumps(keys, separators=(",", ":")), ", ".join(map(str, keys[:16])))
    assert not [where for where, text in heard.items() for needle in needles if needle in text]
    assert name in heard["log"], "the log is the one of this operator"
    assert "pulls" in heard["status"]


async def heard_about(scene: Scene, host: SandboxHost, name: str) -> dict[str, str]:
    """Everything that the operator says to anybody."""
    objects = [await scene.kube.get(JOB_KIND, JOBS, name), await scene.market()]
    events = [await scene.kube.list("Event", namespace) for namespace in (JOBS, SYSTEM)]
    return {
        "log": host.log.read_text(),
        "metrics": await asyncio.to_thread(host.metrics),
        "events": json.dumps([one for found in events for one in found if ours(one)]),
        "status": json.dumps([one.get("status") for one in objects]),
    }


def ours(event: Any) -> bool:
    """An Event of the operator's, and not the kubelet's."""
    return str(event.get("reportingController", "")).startswith("nosana.io")


async def test_kubectl_waits_and_tells_the_story(scene: Scene, kubectl: Kubectl) -> None:
    waits = asyncio.create_task(
        asyncio.to_thread(
            lambda: eventually_waited(kubectl, "told", "Complete"),
        )
    )
    name = await scene.private("told", says("a story"))
    body = await scene.over(name)
    assert condition(body, JobCondition.COMPLETE)[1] == "Succeeded"
    assert "condition met" in await waits

    async def story() -> str | None:
        said = await asyncio.to_thread(
            kubectl.run, "events", "-n", JOBS, "--for", f"{JOB_KIND.lower()}/{name}"
        )
        return said if "Succeeded" in said else None

    lines = (await eventually(story, "the story is told")).splitlines()
    reasons = [line.split()[2] for line in lines[1:]]
    assert reasons[0] == "Accepted"
    assert reasons[-1] == "Succeeded"
    assert len(reasons) == len(set(reasons)), "nothing is said twice"


def eventually_waited(kubectl: Kubectl, name: str, kind: str) -> str:
    """What `kubectl wait` says; it waits for the object too (kubectl ≥ 1.31)."""
    return kubectl.run(
        "wait", "-n", JOBS, f"{JOB_KIND.lower()}/{name}", f"--for=condition={kind}", "--timeout=90s"
    )


async def test_a_failed_job_ends_the_wait_for_failed(scene: Scene, kubectl: Kubectl) -> None:
    name = await scene.private("told-bad", definition(op("bad", "exit 3")))
    await scene.over(name)
    said = await asyncio.to_thread(eventually_waited, kubectl, name, "Failed")
    assert "condition met" in said
    assert not holds(await scene.named(name, lambda b: True, "is there"), JobCondition.COMPLETE)
