"""Resources of all three kinds, fetched by the built image on a real node."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nosana_sandbox.host import SandboxHost, job_object
from nosana_sandbox.world.sandbox import Sandbox
from support.scene import JOBS, definition, op

pytestmark = pytest.mark.cluster

LISTING = (
    "set -e; cat /models/weights.bin /models/1_Pooling/config.json /data/stand-in; "
    "find /root/.ollama/models -type f | wc -l; "
    "echo new > /data/new; (echo new > /models/new) 2>/dev/null || echo refused"
)


def hf(target: str, *files: str, repo: str = "lab/fetched") -> dict[str, Any]:
    return {"type": "HF", "repo": repo, "target": target, "files": list(files), "accessToken": "hf_s3cret"}


FETCHED = definition(
    op(
        "uses",
        LISTING,
        resources=[
            hf("/models", "deep/weights.bin"),
            hf("/models/1_Pooling", "1_Pooling/config.json"),
            {"type": "Ollama", "model": "tinyllama"},
            {
                "type": "S3",
                "url": "s3://nos-ai-models-qllsn32u/flux/dev",
                "target": "/data",
                "allowWrite": True,
            },
        ],
    )
)
MISSING = definition(op("lacks", "true", resources=[hf("/models", "no.bin", repo="lab/nobody")]))


def ended(host: SandboxHost, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        body: dict[str, Any] = json.loads(
            host.kubectl.run("get", "nosanajob", name, "-n", JOBS, "-o", "json")
        )
        if body.get("status", {}).get("phase") in ("Completed", "Failed", "Stopped"):
            return body
        time.sleep(0.2)
    raise TimeoutError(f"{name} has not ended: {body.get('status')}")


def test_all_kinds_are_there_before_the_op_starts(sandbox: Sandbox, host: SandboxHost) -> None:
    sandbox.ensure_images([FETCHED])
    try:
        host.kubectl.apply([job_object("fetched", FETCHED), job_object("missing", MISSING)])
        good, bad = ended(host, "fetched"), ended(host, "missing")
        assert good["status"]["phase"] == "Completed", good["status"]
        timing = good["status"]["timing"]
        assert timing["scheduled"] < timing["fetched"] <= timing["started"]
        assert host.kubectl.run("logs", "fetched-0", "-n", JOBS, "-c", "op").splitlines() == [
            "stand-in for lab/fetched/deep/weights.bin",
            "stand-in for lab/fetched/1_Pooling/config.json",
            "stand-in for flux/dev/stand-in",
            "5",
            "refused",
        ]
        said = [
            json.loads(line)
            for line in host.kubectl.run("logs", "fetched-0", "-n", JOBS, "-c", "fetch").splitlines()
        ]
        assert said[-1]["event"] == "fetched"
        assert said[-1]["files"] == said[-1]["of"] == 7
        (state,) = bad["status"]["ops"]
        assert state["reason"] == "ResourceFetchFailed"
        assert "there is no Hugging Face repository 'lab/nobody' (HTTP 404); check repo" in state["message"]
        assert "s3cret" not in json.dumps([good["status"], bad["status"], said])
        assert "s3cret" not in host.kubectl.run("get", "pods", "-n", JOBS, "-o", "json")
    finally:
        host.kubectl.run("delete", "nosanajob", "fetched", "missing", "-n", JOBS, "--ignore-not-found")
