"""The market host's part of a NosanaJob's status: read from the object, changed as a value, written whole.

Server-side apply deletes a field that its manager leaves out (docs/architecture.md#two-writers-of-one-status),
so every write contains all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from nosana_operator.api import (
    API_VERSION,
    JOB_KIND,
    Condition,
    Delivery,
    JobCondition,
    NosanaJobStatus,
    RunStatus,
    Settlement,
    condition,
    find_condition,
    micro_timestamp,
    parse_part,
)

_MAX_MESSAGE = 4096
"""Characters of a condition's message: the API server refuses a status with one of more than 32,768."""
_FIELDS_READ = ("run", "delivery", "settlement", "resultCID", "timing", "logistics", "resultSecrets")
OWN_CONDITIONS = (JobCondition.RUN_VERIFIED, JobCondition.SETTLED)


def read_status(job: Mapping[str, Any]) -> NosanaJobStatus:
    """The part of a NosanaJob's status that the market host reads. Raises ApiError when that does not parse.

    The rest may be from a version with other phases or states of ops: a settlement must not wait for that.
    """
    raw = job.get("status") or {}
    part = {name: raw[name] for name in _FIELDS_READ if name in raw}
    return parse_part(NosanaJobStatus, JOB_KIND, "status", part)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What the market host has written about a run."""

    conditions: tuple[Condition, ...] = ()
    run: RunStatus | None = None
    delivery: Delivery | None = None
    settlement: Settlement | None = None
    result_cid: str | None = None
    matched: str | None = None
    settled: str | None = None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> JobRecord:
        """From a NosanaJob. Raises ApiError when the status does not parse."""
        raw = body.get("status") or {}
        status = read_status(body)
        own = tuple(
            dict(found)
            for kind in OWN_CONDITIONS
            if (found := find_condition(raw.get("conditions"), kind)) is not None
        )
        timing = status.timing
        return cls(
            conditions=own,
            run=status.run,
            delivery=status.delivery,
            settlement=status.settlement,
            result_cid=status.result_cid,
            matched=timing.matched if timing else None,
            settled=timing.settled if timing else None,
        )

    def with_condition(
        self,
        kind: JobCondition,
        status: bool | None,
        reason: str,
        message: str,
        *,
        generation: int,
        now: datetime,
    ) -> JobRecord:
        """The record with that condition set."""
        text = message[:_MAX_MESSAGE]
        new = condition(self.conditions, kind, status, reason, text, generation=generation, now=now)
        others = [c for c in self.conditions if c["type"] != kind]
        # A fixed order keeps repeated applies identical.
        ordered = sorted([*others, new], key=lambda c: OWN_CONDITIONS.index(c["type"]))
        return replace(self, conditions=tuple(ordered))

    def matched_at(self, moment: datetime) -> JobRecord:
        """The moment at which the run was first seen, written once."""
        return self if self.matched else replace(self, matched=micro_timestamp(moment))

    def settled_at(self, now: datetime) -> JobRecord:
        """The moment of settlement, written once."""
        return self if self.settled else replace(self, settled=micro_timestamp(now))

    def apply_body(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The server-side apply of this record, as a compare-and-swap on the version it was decided from."""
        meta = job["metadata"]
        status: dict[str, Any] = {"conditions": [dict(c) for c in self.conditions]}
        if self.run is not None:
            status["run"] = _wire(self.run)
        if self.delivery is not None:
            status["delivery"] = _wire(self.delivery)
        if self.settlement is not None:
            status["settlement"] = _wire(self.settlement)
        if self.result_cid is not None:
            status["resultCID"] = self.result_cid
        timing = {"matched": self.matched, "settled": self.settled}
        if any(timing.values()):
            status["timing"] = {k: v for k, v in timing.items() if v}
        return {
            "apiVersion": API_VERSION,
            "kind": JOB_KIND,
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "status": status,
        }


def _wire(model: RunStatus | Delivery | Settlement) -> dict[str, Any]:
    return model.model_dump(by_alias=True, exclude_none=True)
