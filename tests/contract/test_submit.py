"""`nosana-operator submit` against a real API server; the operator's part is played here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nosana_operator.api import API_VERSION, JOB_KIND
from nosana_operator.cli import main
from nosana_operator.kube import KubeClient
from nosana_sandbox.cluster.apiserver import BareApiServer

pytestmark = pytest.mark.contract

EXAMPLES = Path(__file__).parents[2] / "examples"


async def submit(server: BareApiServer, *args: str) -> Result:
    command = ["submit", "--kubeconfig", str(server.kubeconfig), *args]
    return await asyncio.to_thread(CliRunner().invoke, main, command)


async def test_a_definition_becomes_a_job(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    result = await submit(apiserver, "--namespace", namespace, str(EXAMPLES / "hello-world.json"))
    assert result.exit_code == 0, result.output
    made = await installed.get(JOB_KIND, namespace, result.stdout.strip())
    assert made["spec"]["definition"]["ops"][0]["id"] == "greet"


async def test_a_nosanajob_is_applied_again_and_again(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    for _ in range(2):
        result = await submit(apiserver, "--namespace", namespace, str(EXAMPLES / "private-job.yaml"))
        assert (result.exit_code, result.stdout) == (0, "my-notebook\n")
    assert (await installed.get(JOB_KIND, namespace, "my-notebook"))["metadata"]["generation"] == 1


@pytest.mark.parametrize(("kind", "code"), [("Complete", 0), ("Failed", 1)])
async def test_waiting_ends_as_the_job_does(
    apiserver: BareApiServer, installed: KubeClient, namespace: str, kind: str, code: int
) -> None:
    name = f"waited-{kind.lower()}"
    path = str(EXAMPLES / "hello-world.json")
    waiting = asyncio.create_task(submit(apiserver, "--wait", "--namespace", namespace, "--name", name, path))
    while not any(body["metadata"]["name"] == name for body in await installed.list(JOB_KIND, namespace)):
        assert not waiting.done(), (await waiting).output
    condition = {
        "type": kind,
        "status": "True",
        "reason": "Played",
        "message": f"it is {kind}",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    body = {"apiVersion": API_VERSION, "kind": JOB_KIND, "metadata": {"name": name, "namespace": namespace}}
    status = {"phase": "Running", "conditions": [condition]}
    await installed.apply(body | {"status": status}, manager="tests", subresource="status")
    result = await waiting
    assert result.exit_code == code
    assert result.stdout == f"{name}\n"
    assert result.stderr.splitlines()[-1] == f"Running: it is {kind}"
