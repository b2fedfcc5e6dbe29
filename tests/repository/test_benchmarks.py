"""`make bench` fails when a goal is missed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    return importlib.import_module("benchmarks.run")


def benchmark(**figures: float) -> ModuleType:
    """One with the goals seconds ≤ 2 and rate ≥ 10."""
    module: Any = ModuleType("fake")
    module.__doc__ = "A benchmark."
    module.NAME = "fake"
    module.GOAL = {"seconds": 2, "rate": 10}
    module.AT_LEAST = ("rate",)
    module.run = lambda: figures
    return module


@pytest.mark.parametrize(
    ("seconds", "rate", "code"), [(2, 10, 0), (1, 11, 0), (2.1, 10, 1), (2, 9.9, 1), (0, 10, 0), (2, 0, 1)]
)
def test_a_missed_goal_is_the_exit_code(
    run: Any, seconds: float, rate: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "OUT", tmp_path)
    monkeypatch.setattr(run, "benchmarks", lambda: {"fake": benchmark(seconds=seconds, rate=rate)})
    assert run.main([]) == code
    assert (tmp_path / "fake.json").is_file()


def test_a_name_without_a_benchmark_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "benchmarks", lambda: {"fake": benchmark()})
    assert run.main(["other"]) == 2
