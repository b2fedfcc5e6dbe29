"""`results` of an op: which lines an expression is tried on, and what stands in the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nosana_operator.definition import LogEntry, ResultPattern
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.results import Line, Search, extract
from nosana_operator.regex import RegexRunner

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "results-regex.json").read_text())


async def test_values_are_those_of_nosanas_own_node() -> None:
    results = {
        name: pattern if isinstance(pattern, str) else ResultPattern.model_validate(pattern)
        for name, pattern in VECTORS["results"].items()
    }
    entries = [LogEntry(kind, text) for kind, text in VECTORS["logs"]]
    found = await extract(results, entries, RegexRunner().match, streams_apart=True)
    assert found == VECTORS["extracted"]
    assert list(found) == list(VECTORS["results"]), "in the definition's order"


async def test_a_log_type_takes_both_streams_where_they_are_not_told_apart() -> None:
    asked: list[Search] = []

    async def match(
        searches: Sequence[Search], lines: Sequence[Line], budget: int, seconds: float
    ) -> list[ResultValue]:
        asked.extend(searches)
        return [[] for _ in searches]

    results: dict[str, str | ResultPattern] = {
        "error": ResultPattern(regex="e", logType=["stderr"]),
        "node": ResultPattern(regex="n", logType=["nodeerr"]),
        "all": "*",
    }
    await extract(results, [], match)
    assert asked == [("e", frozenset({"stdout", "stderr"})), ("n", frozenset({"nodeerr"})), ("/*", None)]
    asked.clear()
    await extract(results, [], match, streams_apart=True)
    assert asked[0] == ("e", frozenset({"stderr"}))


async def test_an_op_without_results_starts_no_process() -> None:
    async def match(
        searches: Sequence[Search], lines: Sequence[Line], budget: int, seconds: float
    ) -> list[ResultValue]:
        raise AssertionError("not asked")

    assert await extract({}, [LogEntry("stdout", "x\n")], match) == {}
