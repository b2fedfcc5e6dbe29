"""Renders the job controller's part of the status. Pure.

The part is always whole, because a server-side apply deletes the fields that it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from annotated_types import MaxLen
from pydantic import BaseModel

from nosana_operator.api import (
    Endpoint,
    JobCondition,
    JobReason,
    NosanaJobStatus,
    OpStatus,
    Phase,
    condition,
    find_condition,
    micro_timestamp,
)
from nosana_operator.jobs.decision.health import endpoint_state
from nosana_operator.jobs.decision.ops import OVER, OpReason, worth_a_write
from nosana_operator.jobs.decision.view import JobView, Loaded, Loading

OWN_CONDITIONS: Final = (
    JobCondition.ACCEPTED,
    JobCondition.READY,
    JobCondition.COMPLETE,
    JobCondition.FAILED,
    JobCondition.RECONCILING,
    JobCondition.STALLED,
)
"""The market host owns RunVerified and Settled."""
OWN_TIMING: Final = ("created", "accepted", "scheduled", "pulled", "fetched", "started", "ready", "ended")

_KEPT_OF_OPS: Final = (
    "id", "index", "stage", "state", "pod", "exitCode", "attempt", "restarts", "healthRestarts",
    "startedAt", "readyAt", "endedAt", "reason",
)  # fmt: skip
_SHORT_MESSAGE: Final = 1024


@dataclass(frozen=True, slots=True)
class ConditionValue:
    """A condition to write; `status=None` means Unknown. Conditions that are left out are removed."""

    kind: JobCondition
    status: bool | None
    reason: str
    message: str


def render(
    view: JobView,
    phase: Phase,
    said: Sequence[ConditionValue],
    *,
    ops: Sequence[OpStatus] | None = None,
    result: Sequence[str] = (),
    moments: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The desired status; equal to the current one when nothing changed. `ops=None` keeps the current ops."""
    ops = view.status.ops if ops is None else ops
    status: dict[str, Any] = {
        "observedGeneration": view.generation,
        "phase": phase,
        "conditions": [
            condition(
                view.conditions,
                say.kind,
                say.status,
                say.reason,
                say.message,
                generation=view.generation,
                now=view.now,
            )
            for kind in OWN_CONDITIONS
            for say in said
            if say.kind is kind
        ],
        "ops": [op.model_dump(by_alias=True, exclude_none=True) for op in ops],
        "endpoints": [
            endpoint.model_dump(by_alias=True, exclude_none=True) for endpoint in _endpoints(view, ops)
        ],
        "resultSecrets": list(result or view.status.result_secrets),
        "timing": _timing(view, ops, moments or {}),
    }
    logistics = view.status.logistics
    if isinstance(view.definition, Loading) and view.definition.logistics is not None:
        logistics = view.definition.logistics
    if logistics is not None:
        status["logistics"] = logistics.model_dump(by_alias=True)
    return {name: value for name, value in status.items() if value not in ([], {})}


def own_part(status: Mapping[str, Any] | None) -> dict[str, Any]:
    """The job controller's fields of a status that was read, in the form that `render` returns."""
    found = {
        name: value for name, value in (status or {}).items() if name in NosanaJobStatus.JOB_FIELDS and value
    }
    own = [c for kind in OWN_CONDITIONS if (c := find_condition(found.get("conditions"), kind)) is not None]
    timing = {name: found["timing"][name] for name in OWN_TIMING if name in found.get("timing", {})}
    for name, value in (("conditions", own), ("timing", timing)):
        if value:
            found[name] = value
        else:
            found.pop(name, None)
    return found


def stalled_status(
    view: JobView, status: Mapping[str, Any], reason: JobReason, problem: str, *, ready: bool | None = None
) -> dict[str, Any]:
    """The status with the problem in Stalled; with `ready=False`, Ready says so too."""
    values = {JobCondition.STALLED: True} | ({JobCondition.READY: ready} if ready is not None else {})
    kept = [c for c in status.get("conditions", ()) if c["type"] not in values]
    stated = [
        condition(view.conditions, kind, value, reason, problem, generation=view.generation, now=view.now)
        for kind, value in values.items()
    ]
    conditions = [c for kind in OWN_CONDITIONS for c in (*kept, *stated) if c["type"] == kind]
    return {**status, "observedGeneration": view.generation, "conditions": conditions}


def minimal_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status without what decisions can do without, for an API server that refused all of it."""
    return {
        **{name: value for name, value in status.items() if name not in ("endpoints", "ops", "conditions")},
        "ops": [{name: op[name] for name in _KEPT_OF_OPS if name in op} for op in status.get("ops", ())],
        "conditions": [{**c, "message": c["message"][:_SHORT_MESSAGE]} for c in status.get("conditions", ())],
    }


def bare_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Phase, conditions and result alone, for an API server that refused `minimal_status` too."""
    names = ("observedGeneration", "phase", "conditions", "resultSecrets")
    return {name: value for name, value in minimal_status(status).items() if name in names}


def within_limits(status: Mapping[str, Any], model: type[BaseModel] = NosanaJobStatus) -> dict[str, Any]:
    """The status with each text and list cut to the length that the CRD allows."""
    result = dict(status)
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key in status:
            limit = next((m.max_length for m in info.metadata if isinstance(m, MaxLen)), None)
            result[key] = _cut(status[key], limit, _item_model(info.annotation))
    return result


def _cut(value: Any, limit: int | None, model: type[BaseModel] | None) -> Any:
    if isinstance(value, str):
        return value if limit is None or len(value) <= limit else f"{value[: limit - 1]}…"
    if isinstance(value, list | tuple):
        items = value if limit is None else value[:limit]
        return [within_limits(item, model) if model is not None else item for item in items]
    return within_limits(value, model) if model is not None and isinstance(value, Mapping) else value


def _item_model(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation like `tuple[OpStatus, ...]` or `Timing | None`."""
    candidates = (annotation, *get_args(annotation))
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def current_condition(view: JobView, kind: JobCondition) -> list[ConditionValue]:
    """The current condition, so that it is written again; an empty list when there is none."""
    found = find_condition(view.conditions, kind)
    if found is None:
        return []
    return [
        ConditionValue(
            kind, {"True": True, "False": False}.get(found["status"]), found["reason"], found["message"]
        )
    ]


def _endpoints(view: JobView, ops: Sequence[OpStatus]) -> list[Endpoint]:
    """The endpoints with their states. An endpoint without health checks is online while its op runs.

    (docs/protocol/node.md#where-this-operator-differs)
    """
    states = {op.id: op.state for op in ops}
    indexes = {op.id: op.index for op in ops}
    silent = {op.id for op in ops if op.reason == OpReason.NODE_SILENT}
    endpoints: Sequence[Endpoint] = view.status.endpoints
    if isinstance(view.definition, Loaded):
        endpoints = view.definition.endpoints
    elif not endpoints:
        return []
    shown = []
    for endpoint in endpoints:
        state = endpoint.state
        if states.get(endpoint.op) != "Running":
            state = "Offline"
        elif endpoint.op in silent:
            state = "Unknown"
        elif isinstance(view.definition, Loaded):
            state = endpoint_state(view, indexes[endpoint.op], endpoint)
        shown.append(endpoint.model_copy(update={"state": state}))
    return shown


def _timing(view: JobView, ops: Sequence[OpStatus], moments: Mapping[str, str]) -> dict[str, str]:
    """The moments of the start; a moment that was written once never changes."""
    pods = [pod for pod in view.pods.values() if worth_a_write(pod, view.now)]
    seen: dict[str, str] = {}
    if ops:
        seen["created"] = str(view.meta["creationTimestamp"])
    for name, when in (
        ("scheduled", min((p.scheduled_at for p in pods if p.scheduled_at), default=None)),
        ("fetched", min((p.fetched_at for p in pods if p.fetched_at), default=None)),
        ("pulled", min((p.pulled_at for p in pods if p.pulled_at), default=None)),
        ("started", view.first_start),
    ):
        if when is not None:
            seen[name] = micro_timestamp(when)
    before = view.status.timing.model_dump(exclude_none=True) if view.status.timing else {}
    merged = {**seen, **moments, **before}
    return {name: merged[name] for name in OWN_TIMING if name in merged}


def all_over(ops: Sequence[OpStatus]) -> bool:
    """Whether every op has ended."""
    return all(op.state in OVER for op in ops)
