"""What kstatus (Flux, kpt) and Argo CD make of our objects, by their own engines, at each turn of a life."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.jobs import Lab, definition, op, private_job
from fakes.market import MarketLab
from fakes.market_objects import MARKET
from nosana_operator.api import MARKET_KIND, crds, find_condition
from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.build import ensure_verdicts, verdicts_key

ARGO = Path(__file__).parents[2] / "manifests/argo-cd/argocd-cm.yaml"
Body = dict[str, Any]
Verdict = tuple[str, str]
"""Of kstatus, and of Argo CD."""


@pytest.fixture(scope="session")
def script() -> str:
    """The health check that is shipped."""
    data = yaml.safe_load(ARGO.read_text())["data"]
    assert set(data) == {
        f"resource.customizations.health.nosana.io_{k}" for k in ("NosanaJob", "NosanaMarket")
    }
    assert len(set(data.values())) == 1
    return str(next(iter(data.values())))


@pytest.fixture(scope="session")
def judge(script: str) -> Callable[..., list[Verdict]]:
    built = cache_folder() / verdicts_key() / "bin" / "verdicts"
    if os.environ.get("CI") != "true" and not built.is_file():
        pytest.skip("the program is not built yet; `python -m nosana_sandbox.prepare` builds it")
    program = ensure_verdicts(print)

    def ask(*objects: Body) -> list[Verdict]:
        question = json.dumps({"script": script, "objects": objects})
        said = subprocess.run([program], input=question, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        return [(one["kstatus"]["status"], one["argo"]["status"]) for one in json.loads(said.stdout)]

    return ask


async def test_a_job_that_succeeds(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab()
    seen = [as_made(lab_job(lab, definition(op("a"))))]
    await lab.drive(lambda: lab.phase() == "Starting")
    seen.append(lab.job())
    await lab.drive(lambda: lab.phase() == "Running")
    seen.append(lab.job())
    lab.exits[0] = 0
    await lab.drive(lab.over())
    seen.append(lab.job())
    assert judge(*seen) == [
        ("InProgress", "Progressing"),
        ("InProgress", "Progressing"),
        # As a batch Job that runs.
        ("Current", "Healthy"),
        ("Current", "Healthy"),
    ]


async def test_a_server_is_ready_while_it_serves(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab()
    lab_job(lab, definition(op("web", expose=8080)))
    await lab.drive(lambda: lab.says("Ready") == ("True", "Running"))
    assert judge(lab.job()) == [("Current", "Healthy")]


async def test_a_job_that_fails(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab(exits={0: 3})
    lab_job(lab, definition(op("a")))
    await lab.drive(lab.over())
    assert lab.phase() == "Failed"
    assert judge(lab.job()) == [("Failed", "Degraded")]


async def test_a_definition_that_nobody_can_use(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab()
    lab_job(lab, definition({"type": "nonsense", "id": "a", "args": {}}))
    await lab.drive(lambda: lab.says("Accepted") == ("False", "DefinitionInvalid"))
    assert judge(lab.job()) == [("Failed", "Degraded")]


async def test_a_job_that_is_suspended_or_deleted(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab()
    lab_job(lab, definition(op("a")), suspend=True)
    await lab.drive(lambda: lab.phase() is not None)
    (kstatus, argo) = judge(lab.job())[0]
    assert (kstatus, argo) == ("InProgress", "Suspended")
    gone = lab.job() | {"metadata": lab.job()["metadata"] | {"deletionTimestamp": "2026-01-02T03:04:05Z"}}
    assert judge(gone)[0][0] == "Terminating"


async def test_a_change_that_nobody_has_seen_yet(judge: Callable[..., list[Verdict]]) -> None:
    lab = Lab(exits={0: 0})
    lab_job(lab, definition(op("a")))
    await lab.drive(lab.over())
    job = lab.job()
    job["metadata"]["generation"] = job["status"]["observedGeneration"] + 1
    assert judge(job) == [("InProgress", "Progressing")]


async def test_a_market(judge: Callable[..., list[Verdict]]) -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    await lab.pass_time(10)
    ready = lab.market()
    broken = MarketLab()
    broken.kube.remove("Secret", "nosana-system", "wallet-0")
    await broken.pass_time(90)
    paused = MarketLab(market={"paused": True})
    await paused.until(lambda: says_ready(paused) == ("True", "Paused"))
    assert judge(ready, broken.market(), paused.market()) == [
        ("Current", "Healthy"),
        ("Failed", "Degraded"),
        ("Current", "Suspended"),
    ]
    assert ready["kind"] == MARKET_KIND
    assert ready["metadata"]["name"] == MARKET


def as_made(body: Body) -> Body:
    """With the status that the CRD gives an object that nobody has seen yet."""
    schema = next(
        version["schema"]["openAPIV3Schema"]
        for crd in crds()
        if crd["spec"]["names"]["kind"] == body["kind"]
        for version in crd["spec"]["versions"]
    )
    return {"status": schema["properties"]["status"]["default"], **body}


def says_ready(lab: MarketLab) -> tuple[str, str] | None:
    found = find_condition((lab.market().get("status") or {}).get("conditions"), "Ready")
    return None if found is None else (found["status"], found["reason"])


def lab_job(lab: Lab, document: Body, **spec: Any) -> Body:
    """A private job, as its author made it."""
    lab.kube.add(private_job({"definition": document, **spec}))
    return lab.job()
