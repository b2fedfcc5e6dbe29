"""The FlowState of a job: ops, logs and diagnostics, within the bounds of what can be kept."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api import JobReason, OpStatus
from nosana_operator.api.result import read_result
from nosana_operator.definition import FlowStatus
from nosana_operator.jobs.decision.effects import StoreResult
from nosana_operator.jobs.decision.ending import Cause
from nosana_operator.jobs.result import Log, RunLog, flow_state, log_lines, result_parts

JOB: dict[str, Any] = {"metadata": {"name": "j", "namespace": "n", "uid": "u"}}
START, END = "2026-01-02T03:04:05Z", "2026-01-02T03:04:09.500000Z"


def op_status(state: str = "Succeeded", **more: Any) -> OpStatus:
    fields = {"id": "a", "index": 0, "stage": "g", "startedAt": START, "endedAt": END, "exitCode": 0, **more}
    return OpStatus.model_validate({**fields, "state": state})


def plan(*ops: OpStatus, cause: Cause | None = None, host: bool = False) -> StoreResult:
    return StoreResult(FlowStatus.SUCCESS, ops, (), 1_000, 2_000, cause, host)


def only_op(made: StoreResult, log: Log | None = None) -> dict[str, Any]:
    [state] = flow_state(made, {0: log} if log else {}).to_dict()["opStates"]
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
