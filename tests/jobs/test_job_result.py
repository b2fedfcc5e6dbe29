"""The FlowState of a job: ops, logs and diagnostics, within the bounds of what can be kept."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api import JobReason, OpStatus
from nosana_operator.api.result import read_result
from nosana_operator.definition import FlowStatus
from nosana_operator.definition.limits import MAX_MESSAGE, MAX_OPS
from nosana_operator.jobs.decision.effects import StoreResult
from nosana_operator.jobs.decision.view import Cause
from nosana_operator.jobs.result import Log, RunLog, flow_state, log_lines, result_parts

JOB: dict[str, Any] = {"metadata": {"name": "j", "namespace": "n", "uid": "u"}}
START, END = "2026-01-02T03:04:05Z", "2026-01-02T03:04:09.500000Z"


def op_status(state: str = "Succeeded", **more: Any) -> OpStatus:
    fields = {"id": "a", "index": 0, "stage": "g", "startedAt": START, "endedAt": END, "exitCode": 0, **more}
    return OpStatus.model_validate({**fields, "state": state})


def plan(*ops: OpStatus, cause: Cause | None = None, host: bool = False) -> StoreResult:
    return StoreResult(FlowStatus.SUCCESS, ops, (), 1_000, 2_000, cause, host)


def only_op(made: StoreResult, log: Log | None = None) -> dict[str, Any]:
    [state] = json.loads(flow_state(made, {0: log} if log else {}).to_bytes())["opStates"]
    return dict(state)


def test_an_op_that_ended_well() -> None:
    state = only_op(plan(op_status()), Log((RunLog(b"2026-01-02T03:04:05.1Z hi\n"),)))
    assert state["startTime"] == 1767323045000
    assert state["endTime"] == 1767323049500
    assert (state["operationId"], state["group"], state["status"], state["exitCode"]) == (
        "a",
        "g",
        "success",
        0,
    )
    assert state["logs"] == [{"type": "stdout", "log": "hi\n", "timestamp": "2026-01-02T03:04:05.1Z"}]
    assert state["errors"] == []
    assert state["diagnostics"]["state"]["ExitCode"] == 0


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (JobReason.EXPIRED, (False, False, True)),
        (JobReason.OWNER_ENDED, (False, True, False)),
        (JobReason.STOPPED, (False, True, False)),
        (JobReason.DELETED, (True, True, False)),
    ],
)
def test_why_an_op_was_ended(reason: JobReason, expected: tuple[bool, bool, bool]) -> None:
    made = plan(op_status("Stopped", reason=str(reason)), cause=Cause(reason, "because"), host=expected[0])
    state = only_op(made)
    why = state["diagnostics"]["reason"]
    assert (why["hostShutDown"], why["jobStopped"], why["jobExpired"]) == expected
    assert why["reason"] == "because"


def test_an_op_that_ended_by_itself_before_is_not_blamed() -> None:
    state = only_op(plan(op_status(), cause=Cause(JobReason.EXPIRED, "time is up")))
    assert state["diagnostics"]["reason"]["jobExpired"] is False


@pytest.mark.parametrize(
    ("reason", "event", "logged"),
    [
        ("ExitCode", None, []),
        ("OOMKilled", "container-runtime-error", []),
        ("PodLost", "operation-error", ["nodeerr"]),
        ("LiteralInvalid", "operation-error", ["nodeerr"]),
    ],
)
def test_why_an_op_failed(reason: str, event: str | None, logged: list[str]) -> None:
    state = only_op(plan(op_status("Failed", reason=reason, message="said", exitCode=1)))
    assert [error["event"] for error in state["errors"]] == ([event] if event else [])
    assert [entry["type"] for entry in state["logs"]] == logged


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.booleans())
def test_log_lines_neither_lose_nor_invent_anything(lines: list[bytes], ends: bool) -> None:
    stamp = b"2026-01-02T03:04:05.123456789Z "
    data = b"\n".join(stamp + line for line in lines) + (b"\n" if ends and lines else b"")
    entries = list(log_lines(data))
    assert len(entries) == len(lines)
    assert [e.log.removesuffix("\n") for e in entries] == [line.decode("utf-8", "replace") for line in lines]
    assert all(e.timestamp == stamp.decode().strip() for e in entries)


def test_a_line_without_a_timestamp_is_kept_whole() -> None:
    [entry] = log_lines(b"no stamp here")
    assert (entry.log, entry.timestamp) == ("no stamp here", None)


def test_a_result_that_does_not_fit_loses_its_oldest_lines_and_says_so() -> None:
    noise = random.Random(1)
    lines = [f"2026-01-02T03:04:05Z {number} {noise.randbytes(400).hex()}" for number in range(24_000)]
    secrets = result_parts(JOB, plan(op_status()), {0: Log((RunLog("\n".join(lines).encode()),))})
    assert sum(len(s["data"]["flowstate.json.gz"]) for s in secrets) < 6 * 1024 * 1024
    [state] = json.loads(read_result(secrets))["opStates"]
    assert state["logs"][0]["type"] == "nodeerr"
    assert "left out" in state["logs"][0]["log"]
    assert state["logs"][-1]["log"].startswith("23999 ")


def test_what_could_not_be_read_is_told() -> None:
    state = only_op(plan(op_status()), Log((RunLog(b"2026-01-02T03:04:05Z hi\n"),), "the log goes on"))
    assert [entry["type"] for entry in state["logs"]] == ["stdout", "nodeerr"]


# -- whatever ops print, the result fits -------------------------------------------------------------------------

STAMP = b"2026-01-02T03:04:05Z "


def noise(size: int) -> bytes:
    """Text that does not compress."""
    return base64.b64encode(random.Random(1).randbytes(size))[:size]


def many(ops: int, **more: Any) -> StoreResult:
    return StoreResult(
        FlowStatus.SUCCESS,
        tuple(op_status(index=index).model_copy(update=more) for index in range(ops)),
        (),
        1000,
        2000,
        results={index: {"r": ["x"]} for index in range(ops)},
    )


@pytest.mark.parametrize(
    ("ops", "line"),
    [(1, noise(6 * 2**20)), (1, b"\x00" * 12 * 2**20), (64, noise(2**20)), (16, "é".encode() * 2**20)],
    ids=["one line of noise", "control characters", "a long line in each op", "text beyond ASCII"],
)
def test_a_line_that_does_not_fit_is_cut(ops: int, line: bytes) -> None:
    logs = {index: Log((RunLog(STAMP + line + b"\n"),)) for index in range(ops)}
    raw = read_result(result_parts(JOB, many(ops), logs))
    for state in json.loads(raw)["opStates"]:
        [entry] = [entry for entry in state["logs"] if entry["type"] == "stdout"]
        assert entry["log"].endswith("bytes: the rest of this line was left out\n")
        assert state["results"] == {"r": ["x"]}


def test_results_that_do_not_fit_are_left_out_and_say_so() -> None:
    large: list[str | None] = [noise(6 * 2**20).decode()]
    made = replace(many(2), results={0: {"r": large}, 1: {"r": ["x"]}})
    states = json.loads(read_result(result_parts(JOB, made, {})))["opStates"]
    assert [state["results"]["r"][:9] for state in states] == ["not kept:", "not kept:"]


def test_the_largest_job_without_logs_fits() -> None:
    message = noise(MAX_MESSAGE * 3 // 4).decode()[:MAX_MESSAGE]
    made = many(MAX_OPS, state="Failed", reason="PodLost", message=message, id="😀" * 512, stage="😀" * 512)
    assert len(json.loads(read_result(result_parts(JOB, made, {})))["opStates"]) == MAX_OPS


def test_building_a_result_holds_the_log_of_one_op_at_a_time() -> None:
    line = STAMP + b"x" * 10 + b"\n"
    logs = {index: Log((RunLog(line * 15_000),)) for index in range(32)}
    made = many(32)
    tracemalloc.start()
    result_parts(JOB, made, logs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


@pytest.mark.parametrize(
    ("stdout", "stderr", "newest"),
    [
        (b"a1\na2\na3\n", None, (b"a2\na3\n", None)),
        (b"a1\na2\na3\n", b"b1\n", (b"a3\n", b"b1\n")),
        (b"a1\n", b"b1\nb2\nb3\n", (b"a1\n", b"b3\n")),
        (b"a" * 20, None, (b"a" * 6, None)),
        (b"a1\n" + b"b" * 20 + b"\n", None, (b"b" * 6, None)),
    ],
)
def test_the_newest_lines_of_a_log(
    stdout: bytes, stderr: bytes | None, newest: tuple[bytes, bytes | None]
) -> None:
    assert RunLog(stdout, stderr).newest(6) == RunLog(*newest)
