"""The log lines of the job controller: one for each thing that it does, in words, with what it is about."""

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
    PublishNames,
    ReleasePod,
    RemoveFinalizer,
    StartOp,
    StopPod,
    StoreResult,
)
from nosana_operator.jobs.decision.view import JobView, Loaded

Fields = dict[str, str]
"""What a line is about (`runtime.logging.FIELDS`)."""


def about(body: Mapping[str, Any]) -> Fields:
    """The NosanaJob, and the run and market that it serves."""
    meta = body["metadata"]
    run = (body.get("spec") or {}).get("run") or {}
    fields = {"job": f"{meta['namespace']}/{meta['name']}"}
    return fields | {name: run[name] for name in ("run", "market") if name in run}


def line(effect: Before | After, view: JobView) -> tuple[str, Fields]:
    """What is done, and to which op and pod."""
    here = about(view.body)
    match effect:
        case AddFinalizer():
            return "taken on", here
        case StartOp(op_index=index, bodies=bodies):
            return "op starts", here | _op(view, index) | {"pod": bodies[-1]["metadata"]["name"]}
        case CaptureResults(op=op):
            return "results of the op are read", here | {"op": op.id}
        case StoreResult(status=status):
            return f"result is fixed: {status.value}", here
        case StopPod(pod=pod):
            return "pod is stopped", here | {"op": pod.op_id, "pod": pod.name}
        case DeletePod(pod=pod):
            return "pod that never started is taken back", here | {"op": pod.op_id, "pod": pod.name}
        case ReleasePod(pod=pod):
            return "pod was read and may go", here | {"op": pod.op_id, "pod": pod.name}
        case DeleteChild(kind=kind, name=name):
            return f"{kind} {name} is taken back", here
        case PublishNames(op_index=index, address=address):
            what = "names of the op are withdrawn" if address is None else "names of the op are published"
            return what, here | _op(view, index)
        case RemoveFinalizer():
            return "let go", here


def turn(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """What is new for a person in a status: its phase, and why. None: nothing is."""
    said = [_said(status) for status in (before, after)]
    return said[1] if said[0] != said[1] else None


def _said(status: Mapping[str, Any]) -> str:
    ready = find_condition(status.get("conditions"), JobCondition.READY) or {}
    return ": ".join(filter(None, (status.get("phase"), ready.get("message"))))


def _op(view: JobView, index: int) -> Fields:
    if not isinstance(view.definition, Loaded):
        return {}
    return {"op": view.definition.context.definition.ops[index].id}
