"""The result document, byte for byte."""

from __future__ import annotations

import json

import pytest

from nosana_operator.definition import (
    MAX_LOG_ENTRIES,
    EndReason,
    FlowError,
    FlowState,
    FlowStatus,
    LogEntry,
    LogTail,
    OpState,
    Problem,
    parse,
)

DEFINITION = parse(
    '{"version":"0.1","type":"container","ops":['
    '{"type":"container/run","id":"a","args":{"image":"i"}},'
    '{"type":"container/run","id":"b","args":{"image":"i"},"execution":{"group":"g"}}]}'
)


def test_a_finished_job() -> None:
    state = FlowState(
        FlowStatus.SUCCESS,
        1_700_000_000_000,
        1_700_000_009_000,
        ops=(
            OpState(
                "a",
                "a",
                "success",
                provider_id="c1",
                start_time=1_700_000_001_000,
                end_time=1_700_000_008_000,
                exit_code=0,
                logs=(LogEntry("stdout", "héllo\n", "2023-11-14T22:13:21.5Z"), LogEntry("nodeerr", "x")),
                results={"n": ["1", None], "bad": "SyntaxError"},
                reason=EndReason(job_expired=True, sentence="the job's time was up"),
                state={"ExitCode": 0, "RestartCount": 0},
            ),
        ),
    )

    assert state.to_bytes().decode() == (
        '{"status":"success","startTime":1700000000000,"endTime":1700000009000,"secrets":{},"opStates":['
        '{"operationId":"a","group":"a","providerId":"c1","status":"success","startTime":1700000001000,'
        '"endTime":1700000008000,"exitCode":0,"logs":[{"type":"stdout","log":"héllo\\n",'
        '"timestamp":"2023-11-14T22:13:21.5Z"},{"type":"nodeerr","log":"x"}],"errors":[],'
        '"results":{"n":["1",null],"bad":"SyntaxError"},"diagnostics":{"reason":{"hostShutDown":false,'
        '"jobStopped":false,"jobExpired":true,"reason":"the job\'s time was up"},'
        '"state":{"ExitCode":0,"RestartCount":0}}}]}'
    )


def test_a_job_that_has_not_started() -> None:
    ops = [OpState(op.id, op.group) for op in DEFINITION.ops]
    document = json.loads(FlowState(FlowStatus.INIT, 5, ops=ops).to_bytes())

    assert (document["status"], document["startTime"], document["endTime"]) == ("init", 5, None)
    assert [(op["operationId"], op["group"], op["status"]) for op in document["opStates"]] == [
        ("a", "a", "init"),
        ("b", "g", "init"),
    ]
    assert document["opStates"][0]["exitCode"] is None
    assert "results" not in document["opStates"][0]
    assert "errors" not in document


@pytest.mark.parametrize(
    ("status", "word", "event"),
    [
        (FlowStatus.VALIDATION_ERROR, "validation-error", "validation-error"),
        (FlowStatus.INIT_ERROR, "init error", "init-error"),
    ],
)
def test_an_unusable_definition_tells_every_reason(status: FlowStatus, word: str, event: str) -> None:
    problems = [Problem("ops[0].args.image", "is required", "name it"), Problem("$", "too large")]
    document = json.loads(FlowState.unusable(problems, status=status, start=1, end=2).to_bytes())

    assert document == {
        "status": word,
        "startTime": 1,
        "endTime": 2,
        "secrets": {},
        "errors": [
            {"event": event, "message": "ops[0].args.image: is required (name it)"},
            {"event": event, "message": "$: too large"},
        ],
        "opStates": [],
    }


def test_a_confidential_jobs_public_result_holds_no_op() -> None:
    state = FlowState(
        FlowStatus.FAILED, 1, 2, ops=(OpState("a", "a", logs=(LogEntry("stdout", "secret"),)),),
        errors=(FlowError("result-delivery", "HTTP 500", 500),),
    )  # fmt: skip

    assert state.blank().to_bytes() == (
        b'{"status":"failed","startTime":1,"endTime":2,"secrets":{},'
        b'"errors":[{"event":"result-delivery","message":"HTTP 500","code":500}],"opStates":[]}'
    )


def test_text_that_utf8_cannot_hold_does_not_stop_a_result() -> None:
    state = FlowState(FlowStatus.SUCCESS, 1, ops=(OpState("a", "a", logs=(LogEntry("stdout", "a\ud800b"),)),))

    assert b"a?b" in state.to_bytes()


def _lines(count: int) -> list[LogEntry]:
    return [LogEntry("stdout", f"{number}\n") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "first", "told"), [(0, None, None), (5, "0\n", None), (6, "2\n", 2), (9, "5\n", 5)]
)
def test_a_log_tail_keeps_the_newest_and_tells_what_it_left_out(
    count: int, first: str | None, told: int | None
) -> None:
    tail = LogTail(max_entries=5)
    tail.extend(_lines(count))
    entries = tail.entries()

    assert len(entries) == min(count, 5)
    if told is None:
        assert entries == tail.lines == tuple(_lines(count))
        assert tail.dropped == 0
    else:
        assert entries[0].type == "nodeerr"
        assert entries[0].log.startswith(f"{told} earlier log lines")
        assert entries[1].log == first
    if count:
        assert entries[-1].log == f"{count - 1}\n"


def test_a_log_tail_is_bounded_in_bytes() -> None:
    tail = LogTail(max_bytes=10)
    tail.extend([LogEntry("stdout", "12345"), LogEntry("stdout", "67890"), LogEntry("stdout", "x")])
    assert [entry.log for entry in tail.lines] == ["67890", "x"]

    tail.extend([LogEntry("stdout", "y" * 50)])
    assert tail.lines == ()
    assert tail.dropped == 4


@pytest.mark.parametrize("character", ["y", "é", "😀", "\x00"])
def test_a_line_that_is_longer_than_the_limit_is_cut_and_says_so(character: str) -> None:
    tail = LogTail(max_bytes=1000)
    tail.extend([LogEntry("stderr", character * 5000, "2026-01-02T03:04:05Z")])
    [entry] = tail.lines
    assert entry.log.startswith(character * 200)
    assert entry.log.endswith(
        f" … {len(character.encode()) * 5000} bytes: the rest of this line was left out\n"
    )
    assert 990 < len(entry.log.encode()) <= 1000
    assert (entry.type, entry.timestamp, tail.dropped) == ("stderr", "2026-01-02T03:04:05Z", 0)


def test_lines_that_were_gone_before_they_were_read_are_told_too() -> None:
    tail = LogTail()
    tail.extend(_lines(1))
    tail.lost(7)

    assert [entry.log[:8] for entry in tail.entries()] == ["7 earlie", "0\n"]


def test_the_nodes_bound_holds_for_the_whole_list() -> None:
    tail = LogTail()
    tail.extend(_lines(MAX_LOG_ENTRIES + 1))

    assert len(tail.entries()) == MAX_LOG_ENTRIES
    assert tail.entries()[0].log.startswith("2 earlier")
