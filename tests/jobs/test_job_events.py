"""Which changes of a status become Events: each once, when it happens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nosana_operator.api import JobCondition, JobReason, condition
from nosana_operator.jobs.decision.events import events_of_change

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Body = dict[str, Any]


def status(
    *conditions: tuple[JobCondition, bool, str], phase: str = "Running", ops: tuple[Body, ...] = ()
) -> Body:
    made = [condition(None, kind, value, why, "so", generation=1, now=NOW) for kind, value, why in conditions]
    return {"phase": phase, "conditions": made, "ops": list(ops)}


def op(state: str, reason: str | None = None, message: str | None = None) -> Body:
    return {"index": 0, "id": "a", "state": state, "reason": reason, "message": message}


def said(before: Body | None, after: Body) -> list[tuple[str, str, str]]:
    return [(each.type, each.reason, each.note) for each in events_of_change(before, after)]


NOT_READY = (JobCondition.READY, False, "Expired")
STOPPING = status(NOT_READY, phase="Stopping")
ACCEPTED = (JobCondition.ACCEPTED, True, JobReason.ACCEPTED)
REJECTED = (JobCondition.ACCEPTED, False, JobReason.DEFINITION_INVALID)
FETCHING = (JobCondition.ACCEPTED, False, JobReason.FETCHING_DEFINITION)
COMPLETE = (JobCondition.COMPLETE, True, "Succeeded")
FAILED = (JobCondition.FAILED, True, "OpFailed")
STALLED = (JobCondition.STALLED, True, "OpFailed")
WAITING = op("Waiting", "Unschedulable", "no node has room")

CHANGES: list[tuple[str, Body | None, Body, list[tuple[str, str, str]]]] = [
    ("accepted", None, status(ACCEPTED), [("Normal", JobReason.ACCEPTED, "so")]),
    ("accepted before", status(ACCEPTED), status(ACCEPTED), []),
    ("still fetching", None, status(FETCHING), []),
    ("rejected", status(FETCHING), status(REJECTED), [("Warning", JobReason.DEFINITION_INVALID, "so")]),
    ("stops", status(), STOPPING, [("Normal", "Expired", "so; stopping its pods")]),
    ("stops from its start", None, STOPPING, [("Normal", "Expired", "so; stopping its pods")]),
    ("is being stopped", STOPPING, STOPPING, []),
    ("was stopping", STOPPING, status(), []),
    ("an op waits", status(), status(ops=(WAITING,)), [("Warning", "Unschedulable", "op 'a': no node has room")]),
    ("an op goes on waiting", status(ops=(WAITING,)), status(ops=({**WAITING, "message": "still"},)), []),
    ("for another reason", status(ops=(WAITING,)), status(ops=(op("Waiting", "Quota"),)), [("Warning", "Quota", "op 'a': Quota")]),
    ("an op failed", status(ops=(op("Running"),)), status(ops=(op("Failed", "ExitCode"),)), [("Warning", "ExitCode", "op 'a': ExitCode")]),
    ("an op runs", status(ops=(WAITING,)), status(ops=(op("Running"),)), []),
    ("an op stops for a reason", status(ops=(op("Running"),)), status(ops=(op("Stopping", "Expired"),)), []),
    ("complete", status(), status(COMPLETE), [("Normal", "Succeeded", "so")]),
    ("complete before", status(COMPLETE), status(COMPLETE), []),
    ("failed", status(), status(FAILED), [("Warning", "OpFailed", "so")]),
    ("failed and stalled", status(), status(FAILED, STALLED), [("Warning", "OpFailed", "so")]),
    ("stalled alone", status(), status(STALLED), [("Warning", "OpFailed", "so")]),
    ("rejected and failed", None, status(REJECTED, FAILED), [("Warning", JobReason.DEFINITION_INVALID, "so")]),
    ("accepted and failed at once", None, status(ACCEPTED, FAILED), [("Normal", JobReason.ACCEPTED, "so"), ("Warning", "OpFailed", "so")]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "before", "after", "events"), CHANGES, ids=[row[0] for row in CHANGES])
def test_the_events_of_a_change(
    name: str, before: Body | None, after: Body, events: list[tuple[str, str, str]]
) -> None:
    assert said(before, after) == events
