"""Decides which changes of a status are recorded as Events. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nosana_operator.api import JobCondition, JobReason, find_condition
from nosana_operator.jobs.decision.effects import RecordEvent


def events_of_change(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[RecordEvent, ...]:
    """The Events of a change from one status to the next."""
    return tuple(_changes(before or {}, after))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[RecordEvent]:
    accepted = _changed(before, after, JobCondition.ACCEPTED)
    if accepted is not None and accepted["reason"] != JobReason.FETCHING_DEFINITION:
        kind = "Normal" if accepted["status"] == "True" else "Warning"
        yield RecordEvent(kind, accepted["reason"], "Accept", accepted["message"])  # type: ignore[arg-type]
    if after.get("phase") == "Stopping" and before.get("phase") != "Stopping":
        ready = find_condition(after.get("conditions"), JobCondition.READY) or {}
        yield RecordEvent(
            "Normal", str(ready.get("reason")), "Stop", f"{ready.get('message')}; stopping its pods"
        )
    previous = {op["index"]: op for op in before.get("ops") or ()}
    for op in after.get("ops") or ():
        yield from _op_events(previous.get(op["index"], {}), op)
    complete = _changed(before, after, JobCondition.COMPLETE)
    if complete is not None:
        yield RecordEvent("Normal", complete["reason"], "Complete", complete["message"])
    failed = _changed(before, after, JobCondition.FAILED)
    if failed is not None and (accepted is None or accepted["status"] != "False"):
        yield RecordEvent("Warning", failed["reason"], "Fail", failed["message"])
    stalled = _changed(before, after, JobCondition.STALLED)
    if stalled is not None and find_condition(after.get("conditions"), JobCondition.FAILED) is None:
        yield RecordEvent("Warning", stalled["reason"], "Stall", stalled["message"])


def _op_events(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[RecordEvent]:
    reason = after.get("reason")
    same = before.get("state") == after["state"] and before.get("reason") == reason
    if same or reason is None or after["state"] not in ("Waiting", "Starting", "Failed"):
        return
    action = "Run" if after["state"] == "Failed" else "Start"
    yield RecordEvent("Warning", reason, action, f"op {after['id']!r}: {after.get('message') or reason}")


def _changed(
    before: Mapping[str, Any], after: Mapping[str, Any], kind: JobCondition
) -> Mapping[str, Any] | None:
    """The condition, when its status or reason differs from before."""
    old, new = find_condition(before.get("conditions"), kind), find_condition(after.get("conditions"), kind)
    if new is None or (old is not None and all(old[f] == new[f] for f in ("status", "reason"))):
        return None
    return new
