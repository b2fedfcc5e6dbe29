"""Hostile definitions through everything that the operator does with one: validate, build, run, report, end.

The examples are the same on every run; `-m soak` tries many more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.admission import refusals
from fakes.jobs import NAMESPACE, Lab, private_job
from nosana_operator.api import API_VERSION, JOB_KIND, NosanaJobSpec, parse_inline, parse_part
from nosana_operator.cli.documents import DocumentError, JobDocument, checked_context
from nosana_operator.cli.render import render_job
from nosana_operator.definition import DefinitionError, parse, validate
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.results import Line, Search
from nosana_operator.workload import build_op_objects
from support.hostile_definitions import damaged, definitions

CORPUS = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")
REAL = [
    json.loads(file.read_text())
    for folder in ("templates", "examples")
    for file in sorted((CORPUS / folder).glob("*.json"))
]
MAX_RENDERED = 8 * 1024
"""Bytes of a definition that is also written as YAML, which is slow."""
STEPS = 150
"""Steps of the lab after which a job that still runs is stopped."""
MAX_PEAK = 64 * 1024 * 1024


def run_examples(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int) -> None:
    """Try `check` on so many examples, the same ones every time."""
    settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(check))()


def examples(default: int, soak: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [default, pytest.param(soak, marks=pytest.mark.soak)])


def corpus() -> st.SearchStrategy[Any]:
    if not REAL and os.environ.get("CI") != "true":
        pytest.skip(f"no corpus at {CORPUS}; set NOSANA_CORPUS")
    return damaged(REAL)


def _parses(document: Any) -> bool:
    try:
        parse(document)
    except DefinitionError:
        return False
    return True


def judge(value: Any) -> bool:
    """Whether a definition is valid; `validate` and `parse` agree, of the value and of its text."""
    report = validate(value)
    assert report.valid == (report.definition is not None)
    for problem in (*report.errors, *report.warnings):
        assert str(problem)
    assert _parses(value) == report.valid
    # A text may have faults that plain data cannot show: its size, half a surrogate pair.
    assert _parses(json.dumps(value)) <= report.valid
    return report.valid


def job_of(value: Any) -> JobDocument:
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": "job", "namespace": NAMESPACE},
        "spec": {"definition": value, "exposure": {"domain": "x.test"}, "gpu": {"count": 1}},
    }
    spec = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
    return JobDocument(body, spec, parse_inline(spec.definition or {}), bare=True)


def validated_and_built(value: Any) -> None:
    if not judge(value):
        return
    try:
        job = job_of(value)
        ctx = checked_context(job)
        assert ctx is not None
        if ctx.definition.size <= MAX_RENDERED:
            render_job(job)
    except (DefinitionError, DocumentError):
        return
    for index in range(len(ctx.definition.ops)):
        try:
            bodies = build_op_objects(ctx, index)
        except DefinitionError:
            continue
        for body in bodies:
            assert refusals(body) == []


def lived_to_its_end(value: Any) -> None:
    if isinstance(value, dict) and validate(value).valid:
        asyncio.run(_life(value))


class LenientLab(Lab):
    """A lab where the value of an invalid expression is the error, as the real matcher has it."""

    async def _match(
        self, searches: Sequence[Search], lines: Sequence[Line], max_bytes: int, seconds: float
    ) -> Sequence[ResultValue]:
        values: list[ResultValue] = []
        for search in searches:
            try:
                values += await super()._match([search], lines, max_bytes, seconds)
            except re.error as error:
                values.append(str(error))
        return values


async def _life(value: dict[str, Any]) -> None:
    lab = LenientLab(exits=dict.fromkeys(range(64), 0))
    lab.kube.add(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "provisioner": "example.com/disks",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
        }
    )
    for index in range(64):
        lab.kube.logs[NAMESPACE, f"hello-{index}"] = b"2026-01-02T03:04:05Z x y\n2026-01-02T03:04:05Z [80]\n"
    lab.kube.add(private_job({"definition": value, "gpu": {"count": 1}}))
    lab.boot()
    steps = 0

    def over_or_late() -> bool:
        nonlocal steps
        steps += 1
        return lab.over()() or steps > STEPS

    try:
        await lab.drive(over_or_late)
        if not lab.over()():
            lab.kube.edit(JOB_KIND, NAMESPACE, "hello", {"spec": {"stop": True}})
            await lab.drive(lab.over())
        assert lab.failures == 0
        assert lab.result()["status"]
    finally:
        await lab.controller.close()


@examples(1200, 60_000)
def test_validation_and_objects(count: int) -> None:
    run_examples(validated_and_built, definitions, count)


@pytest.mark.corpus
@examples(800, 40_000)
def test_validation_and_objects_of_damaged_definitions(count: int) -> None:
    run_examples(validated_and_built, corpus(), count)


@examples(120, 5000)
def test_a_job_reaches_its_end(count: int, caplog: pytest.LogCaptureFixture) -> None:
    run_examples(lived_to_its_end, definitions, count)
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


@pytest.mark.corpus
@examples(150, 5000)
def test_a_damaged_job_reaches_its_end(count: int, caplog: pytest.LogCaptureFixture) -> None:
    run_examples(lived_to_its_end, corpus(), count)
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []


def test_memory_stays_bounded() -> None:
    tracemalloc.start()
    try:
        run_examples(validated_and_built, definitions, 200)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= MAX_PEAK
