"""`results`: from an op's log to the status, the result, and the ops of later stages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fakes.jobs import NAMESPACE, Lab, definition, op, private_job

PATTERN = r"loss=(\d+)"
TRAIN = op("train") | {"results": {"loss": PATTERN}}
REPORT = op("report", cmd=["report", "%%ops.train.results.loss%%"])


def lab_of(log: bytes, *ops: Any) -> Lab:
    lab = Lab(exits={0: 0, 1: 0})
    lab.kube.logs[NAMESPACE, "hello-0"] = log
    lab.kube.add(private_job({"definition": definition(*ops)}))
    lab.boot()
    return lab


def log(*lines: str) -> bytes:
    return "".join(f"2026-01-02T03:04:05Z {line}\n" for line in lines).encode()


def args_of(lab: Lab, pod: str) -> list[str]:
    found = next(p for p in lab.pods() if p["metadata"]["name"] == pod)
    return list(found["spec"]["containers"][0]["args"])


async def test_a_later_stage_gets_what_an_earlier_one_printed() -> None:
    lab = lab_of(log("loss=3", "nothing", "loss=2"), TRAIN, REPORT)
    await lab.drive(lab.over())
    assert args_of(lab, "hello-1") == ["report", "loss=3", "3", "loss=2", "2"]
    assert lab.status()["ops"][0]["results"] == {"loss": '["loss=3", "3", "loss=2", "2"]'}
    assert "results" not in lab.status()["ops"][1]
    states = lab.result()["opStates"]
    assert states[0]["results"] == {"loss": ["loss=3", "3", "loss=2", "2"]}
    assert "results" not in states[1] or states[1]["results"] is None


async def test_the_results_are_written_before_the_next_stage_starts() -> None:
    lab = lab_of(log("loss=3"), TRAIN, REPORT)
    await lab.drive(lambda: len(lab.pods()) == 2)
    await lab.crash_and_reboot()
    lab.kube.logs.clear()
    await lab.drive(lab.over())
    assert lab.result()["opStates"][0]["results"] == {"loss": ["loss=3", "3"]}


async def test_results_too_large_for_a_status_are_read_again() -> None:
    lab = lab_of(log(*(f"loss={n}" for n in range(4000))), TRAIN, REPORT)
    await lab.drive(lambda: len(lab.pods()) == 2)
    assert "results" not in lab.status()["ops"][0]
    await lab.crash_and_reboot()
    await lab.drive(lab.over())
    assert len(args_of(lab, "hello-1")) == 8001
    assert len(lab.result()["opStates"][0]["results"]["loss"]) == 8000


async def test_an_op_that_asks_too_early_fails_and_says_why() -> None:
    lab = lab_of(
        b"",
        op("train", group="g") | {"results": {"loss": PATTERN}},
        op("b", group="g", cmd=["%%ops.train.results.loss%%"]),
    )
    await lab.drive(lab.over())
    [_, state] = lab.result()["opStates"]
    assert state["status"] == "failed"
    assert "results exist once the op has ended" in state["logs"][0]["log"]


async def test_a_failed_op_has_results_too() -> None:
    lab = lab_of(log("loss=9"), TRAIN)
    lab.exits[0] = 4
    await lab.drive(lab.over())
    assert lab.result()["opStates"][0]["results"] == {"loss": ["loss=9", "9"]}


async def test_patterns_that_take_long_keep_no_other_job_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nosana_operator.jobs.act.CAPTURE_SECONDS", 0.01)
    lab = Lab(exits={0: 0})
    release, captures = asyncio.Event(), 0
    quick = lab._match

    async def slow(searches: Any, lines: Any, budget: int, seconds: float) -> Any:
        nonlocal captures
        captures += 1
        await release.wait()
        return await quick(searches, lines, budget, seconds)

    monkeypatch.setattr(lab, "_match", slow)
    for name, ops in (("hello", [TRAIN]), ("other", [op("plain")])):
        lab.kube.add(private_job({"definition": definition(*ops)}, name))
    lab.kube.logs[NAMESPACE, "hello-0"] = log("loss=3")
    lab.boot()
    await lab.drive(lab.over("other"))
    assert lab.phase() != "Completed"
    release.set()
    await lab.drive(lab.over())
    assert captures == 1
    assert lab.result()["opStates"][0]["results"] == {"loss": ["loss=3", "3"]}
    await lab.controller.close()


async def test_captures_of_a_job_take_a_bounded_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 ops whose patterns take their whole time each would hold the end of their job for a quarter of an hour."""
    monkeypatch.setattr("nosana_operator.jobs.act.MAX_RESULT_SECONDS", 0.05)
    lab = Lab(exits={0: 0, 1: 0, 2: 0})
    allowed: list[float] = []
    quick = lab._match

    async def slow(searches: Any, lines: Any, budget: int, seconds: float) -> Any:
        allowed.append(seconds)
        await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=seconds)
        return await quick(searches, lines, budget, seconds)

    monkeypatch.setattr(lab, "_match", slow)
    ops = [op(f"op-{index}") | {"results": {"loss": PATTERN}} for index in range(3)]
    lab.kube.add(private_job({"definition": definition(*ops)}, "hello"))
    for index in range(3):
        lab.kube.logs[NAMESPACE, f"hello-{index}"] = log(f"loss={index}")
    lab.boot()
    await lab.drive(lab.over())
    assert allowed == [pytest.approx(0.05)]
    values = [state["results"]["loss"] for state in lab.result()["opStates"]]
    assert values[0] == ["loss=0", "0"]
    assert all("longer than" in value for value in values[1:])
    await lab.controller.close()


async def test_one_jobs_captures_do_not_hold_everybody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs with many ops whose patterns hang: each has one capture under way, then the next job is served."""
    lab = Lab(exits={})
    order: list[str] = []
    monkeypatch.setattr("nosana_operator.jobs.act.CAPTURE_SECONDS", 0.01)
    quick = lab._match

    async def noted(searches: Any, lines: Any, budget: int, seconds: float) -> Any:
        order.append(searches[0][0])
        await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.02)
        return await quick(searches, lines, budget, seconds)

    monkeypatch.setattr(lab, "_match", noted)
    hostile = [op(f"op-{index}", group="g") | {"results": {"x": "hostile"}} for index in range(6)]
    for name, ops in (
        ("one", hostile),
        ("two", hostile),
        ("good", [op("plain") | {"results": {"x": "honest"}}]),
    ):
        lab.kube.add(private_job({"definition": definition(*ops)}, name))
        for index in range(len(ops)):
            lab.exits[index] = 0
            lab.kube.logs[NAMESPACE, f"{name}-{index}"] = log("x")
    lab.boot()
    await lab.drive(lambda: lab.over("good")() and lab.over("one")() and lab.over("two")())
    # Both hostile jobs may be first, once each; after that it is the honest one's turn.
    assert order.index("honest") <= 4
    await lab.controller.close()
