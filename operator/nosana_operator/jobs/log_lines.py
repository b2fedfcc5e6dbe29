"""The log lines of the job controller: one for each effect, with the fields that identify its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nosana_operator.api import JobCondition, find_condition
from nosana_operator.jobs.decision.effects import (
    AddFinalizer,
    After,
    Before,
    CaptureResults,
    DeleteChild,
    DeletePod,
    PublishAliases,
    ReleasePod,
    RemoveFinalizer,
    StartOp,
    StopPod,
    StoreResult,
)
from nosana_operator.jobs.decision.view import JobView, Loaded

Fields = dict[str, str]
"""The structured fields of a line (`runtime.logging.FIELDS`)."""


def log_fields(body: Mapping[str, Any]) -> Fields:
    """The fields for the NosanaJob, and for the run and market that it serves."""
    meta = body["metadata"]
    run = (body.get("spec") or {}).get("run") or {}
    fields = {"job": f"{meta['namespace']}/{meta['name']}"}
    return fields | {name: run[name] for name in ("run", "market") if name in run}


def log_line(effect: Before | After, view: JobView) -> tuple[str, Fields]:
    """The message and fields for an effect."""
    fields = log_fields(view.body)
    match effect:
        case AddFinalizer():
            return "finalizer added", fields
        case StartOp(op_index=index, bodies=bodies):
            return "starting op", fields | _op(view, index) | {"pod": bodies[-1]["metadata"]["name"]}
        case CaptureResults(op=op):
            return "reading op results", fields | {"op": op.id}
        case StoreResult(status=status):
            return f"storing result: {status.value}", fields
        case StopPod(pod=pod):
            return "stopping pod", fields | {"op": pod.op_id, "pod": pod.name}
        case DeletePod(pod=pod):
            return "deleting pod that never started", fields | {"op": pod.op_id, "pod": pod.name}
        case ReleasePod(pod=pod):
            return "pod released", fields | {"op": pod.op_id, "pod": pod.name}
        case DeleteChild(kind=kind, name=name):
            return f"deleting {kind} {name}", fields
        case PublishAliases(op_index=index, address=address):
            return ("aliases withdrawn" if address is None else "aliases published"), fields | _op(
                view, index
            )
        case RemoveFinalizer():
            return "finalizer removed", fields


def status_line(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The phase and its cause when they changed; None when they did not."""
    previous, current = _phase_and_cause(before), _phase_and_cause(after)
    return current if current != previous else None


def _phase_and_cause(status: Mapping[str, Any]) -> str:
    ready = find_condition(status.get("conditions"), JobCondition.READY) or {}
    return ": ".join(filter(None, (status.get("phase"), ready.get("message"))))


def _op(view: JobView, index: int) -> Fields:
    if not isinstance(view.definition, Loaded):
        return {}
    return {"op": view.definition.context.definition.ops[index].id}
