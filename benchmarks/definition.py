"""The job language over real definitions: validated, and planned and rendered, each second on one core.

The definitions are those of $NOSANA_CORPUS or ../shared/corpus that the validator takes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.skip import Skip

from nosana_operator.api import Exposure, NosanaJobSpec
from nosana_operator.definition import Definition, DefinitionError, check, parse, plan
from nosana_operator.workload import JobContext, build_op_objects

NAME = "definition"
GOAL = {"validate_per_second": 5000, "render_per_second": 1000}
AT_LEAST = ("validate_per_second", "render_per_second")
SECONDS = 3.0
Item = TypeVar("Item")
CORPUS = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[1].parent / "shared" / "corpus")


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    texts = [
        file.read_bytes() for folder in ("templates", "examples") for file in (CORPUS / folder).glob("*.json")
    ]
    valid = [text for text in texts if check(text).valid]
    if not valid:
        raise Skip(f"no definitions at {CORPUS}; set NOSANA_CORPUS")
    parsed = [parse(text) for text in valid]
    rendered = [definition for definition in parsed if _renders(definition)]
    return {
        "definitions": len(valid),
        "rendered": len(rendered),
        "validate_per_second": _rate(valid, check),
        "render_per_second": _rate(rendered, _render),
    }


def _rate(items: list[Item], work: Callable[[Item], object]) -> int:
    done, started = 0, time.process_time()
    while (took := time.process_time() - started) < SECONDS:
        for item in items:
            work(item)
        done += len(items)
    return round(done / took)


def _render(definition: Definition) -> None:
    spec = NosanaJobSpec()
    context = JobContext(
        "job",
        "jobs",
        "00000000-0000-0000-0000-000000000000",
        spec,
        definition,
        "lab",
        Exposure(domain="test"),
    )
    for stage in plan(definition).stages:
        for op in stage.ops:
            build_op_objects(context, op.index)


def _renders(definition: Definition) -> bool:
    """Whether all of it can be rendered without what only a run brings, such as results of earlier ops."""
    try:
        _render(definition)
    except (DefinitionError, TypeError):
        return False
    return True


if __name__ == "__main__":
    print(run())
