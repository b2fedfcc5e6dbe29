"""Real job definitions, posted into the sandbox's market, each run to the end that its author expects.

Images, models and buckets are stand-ins under their real names; the definitions are the files' own bytes.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import JOB_KIND, Exposure, JobCondition, NosanaJobSpec
from nosana_operator.definition import Definition, RunArgs, check, exposed_ports, plan
from nosana_operator.errors import NosanaError
from nosana_operator.workload import Fetching, JobContext, gpu_demand, unsupported
from nosana_sandbox.host import DOMAIN
from nosana_sandbox.images.debian import FETCH_IMAGE
from nosana_sandbox.world.poster import Posted
from nosana_sandbox.world.sandbox import Sandbox
from support.scene import JOBS, Scene, condition, finishes, holds

pytestmark = [pytest.mark.cluster, pytest.mark.corpus]

CORPUS = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")
FILES = sorted((CORPUS / "templates").glob("*.json")) + sorted((CORPUS / "examples").glob("*.json"))

SAMPLE = 6
SEED = 4
SERVES_FOR = 20
"""Seconds that are paid for a job which ends only by its time-out: enough to fetch, start and be healthy."""
ENDS_WITHIN = 300
PATIENCE = 1200.0
"""Seconds for all jobs together, which wait for one another's GPUs."""

ENDED, EXPIRED, FAILED = "Succeeded", "Expired", "OpFailed"
OTHER_ENDS = {
    # One word with a space in it is the name of a program that no image has.
    "examples/gpu": FAILED,
    "examples/sogni-ai": FAILED,
    # What its first op prints for the second one's ports is no JSON: a quotation mark too many around it.
    "examples/job-literals": FAILED,
    # Written to fail each time that it is tried.
    "examples/restart-policy": FAILED,
}


@dataclass(frozen=True)
class Case:
    """One file that this version serves."""

    name: str
    content: bytes
    definition: Definition

    @property
    def value(self) -> dict[str, Any]:
        """As parsed from JSON."""
        value: dict[str, Any] = json.loads(self.content)
        return value

    @property
    def serves(self) -> bool:
        """Whether it goes on until its time is up: something is exposed, or starts again for ever."""
        return any(
            exposed_ports(op.args) or op.args.restart_policy in ("always", "unless-stopped")
            for op in self.definition.ops
            if isinstance(op.args, RunArgs)
        )

    @property
    def end(self) -> str:
        """The reason of its condition at the end."""
        # Jobs of strangers always ask the registry, and nobody can make an image with another's digest.
        pinned = any(
            isinstance(op.args, RunArgs) and "@sha256:" in op.args.image for op in self.definition.ops
        )
        served = FAILED if pinned else EXPIRED if self.serves else ENDED
        return OTHER_ENDS.get(self.name, served)

    @property
    def timeout(self) -> int:
        """Seconds, as posted."""
        return SERVES_FOR if self.serves else ENDS_WITHIN


def name_of(file: Path) -> str:
    """Folder and file without its ending."""
    return f"{file.parent.name}/{file.stem}"


def sorted_out(files: Sequence[Path]) -> tuple[list[Case], dict[str, str]]:
    """The files that are served, and why each of the others is not."""
    cases, refused = [], {}
    for file in files:
        name, content = name_of(file), file.read_bytes()
        definition = check(content, source=file.name).definition
        if definition is None:
            refused[name] = "not valid"
            continue
        context = JobContext(
            "corpus", JOBS, "0", NosanaJobSpec(), definition, "sandbox",
            default_exposure=Exposure(domain=DOMAIN), fetching=Fetching(image=FETCH_IMAGE),
        )  # fmt: skip
        try:
            plan(definition)
            demand = gpu_demand(context)
            problems = [str(problem) for problem in unsupported(context)]
            problems += [demand.message] if demand and demand.exceeds else []
        except NosanaError as error:
            problems = [str(error)]
        if problems:
            refused[name] = problems[0]
        else:
            cases.append(Case(name, content, definition))
    return cases, refused


async def run_all(scene: Scene, sandbox: Sandbox, cases: Sequence[Case]) -> list[tuple[str, ...]]:
    """Post the cases, wait for every end; rows of name, ops, end, seconds paid, what was expected."""
    sandbox.ensure_images([case.value for case in cases])
    posted = [(case, await scene.post(case.content, timeout=case.timeout)) for case in cases]
    deadline = time.monotonic() + PATIENCE
    return [await _row(scene, case, job, deadline) for case, job in posted]


async def _row(scene: Scene, case: Case, job: Posted, deadline: float) -> tuple[str, ...]:
    def settled() -> Mapping[str, Any] | None:
        body = scene.job_of(job)
        return body if body is not None and holds(body, JobCondition.SETTLED) else None

    seconds = "-"
    try:
        # One that does not end leaves the others their last moments.
        time_limit = max(deadline - time.monotonic(), 1.0)
        body = await scene.seen.until(settled, time_limit, f"{case.name} is settled")
    except TimeoutError:
        end = "never settled"
    else:
        view = await scene.poster.job(job.job)
        seconds, end = str(view.seconds), _end(body)
        if end == EXPIRED and not _was_online(scene, body):
            end = "Expired, never online"
        if len(finishes(view)) != 1:
            end = f"finished {len(finishes(view))} times"
    return (case.name, str(len(case.definition.ops)), end, seconds, case.end)


def _end(body: Mapping[str, Any]) -> str:
    ends = (condition(body, JobCondition.COMPLETE), condition(body, JobCondition.FAILED))
    return next((reason for status, reason, _ in ends if status == "True"), "?")


def _was_online(scene: Scene, body: Mapping[str, Any]) -> bool:
    """Whether each endpoint of an op that ran has been online, which takes a healthy answer where one is asked for.

    Behind a stage that serves until the time is up no op ever runs.
    """
    uid = body["metadata"]["uid"]
    versions = [s.body for s in scene.seen.history(JOB_KIND) if s.body["metadata"]["uid"] == uid]
    online = {
        endpoint["id"]
        for version in versions
        for endpoint in (version.get("status") or {}).get("endpoints") or ()
        if endpoint["state"] == "Online"
    }
    ran = {op["id"] for op in body["status"]["ops"] if op.get("startedAt")}
    return bool(ran) and {e["id"] for e in body["status"].get("endpoints") or () if e["op"] in ran} <= online


def table(rows: Sequence[tuple[str, ...]], refused: Mapping[str, str]) -> str:
    """What became of each definition."""
    head = ("definition", "ops", "end", "seconds", "expected")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    return "\n".join([*lines, *(f"{name}: refused: {why}" for name, why in sorted(refused.items()))])


async def check_ends(
    scene: Scene, sandbox: Sandbox, cases: Sequence[Case], refused: Mapping[str, str]
) -> str:
    """Run the cases on all of the sandbox's GPUs and compare; the table."""
    await scene.set_market(slots=None)
    rows = await run_all(scene, sandbox, cases)
    text = table(rows, refused)
    assert [row for row in rows if row[2] != row[4]] == [], text
    return text


@pytest.fixture(scope="module")
def served() -> tuple[list[Case], dict[str, str]]:
    if not FILES and os.environ.get("CI") != "true":
        pytest.skip(f"no corpus at {CORPUS}; set NOSANA_CORPUS")
    assert len(FILES) >= 90
    return sorted_out(FILES)


async def test_a_sample_of_the_corpus_runs_to_its_end(
    scene: Scene,
    sandbox: Sandbox,
    served: tuple[list[Case], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases, _ = served
    text = await check_ends(scene, sandbox, random.Random(SEED).sample(cases, SAMPLE), {})
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.soak
@pytest.mark.timeout(2400)
async def test_the_whole_corpus_runs_to_its_end(
    scene: Scene,
    sandbox: Sandbox,
    served: tuple[list[Case], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases, refused = served
    text = await check_ends(scene, sandbox, cases, refused)
    with capsys.disabled():
        print(f"\n{text}")
