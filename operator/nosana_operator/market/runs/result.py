"""The result of a run: its exact bytes, the substitute for a lost one, the pin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nosana_operator.api import (
    JobCondition,
    condition_is_true,
    find_condition,
    parse_timestamp,
)
from nosana_operator.api.result import ResultError, read_result
from nosana_operator.definition.flowstate import FlowError, FlowState, FlowStatus
from nosana_operator.errors import NosanaError, NotFound
from nosana_operator.market.ports import Kube, Pinner

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ResultCache:
    """Cache of one run's result; losing it costs a request."""

    data: bytes | None = None
    blank: bytes | None = None
    """The bytes published in place of a confidential result."""
    lost: str | None = None
    """Why the stored result is gone: a substitute takes its place."""
    changed: bool = False
    """The bytes that an intent named are gone, so nothing can be published under their CID."""
    overdue: bool = False
    """`data` is the substitute for a job that did not end."""
    pinned: bool = False
    pinning: asyncio.Task[bool] | None = None
    """The pin that the settlement waits for, if one is under way."""

    def drop(self) -> None:
        """Drop the bytes: nothing needs them any more."""
        self.data = self.blank = None
        self.overdue = False


def ended_at(body: Mapping[str, Any]) -> datetime:
    """When the job ended by our clock, as well as the object shows it."""
    status = body.get("status") or {}
    ended = (status.get("timing") or {}).get("ended")
    if ended:
        return parse_timestamp(ended)
    conditions = status.get("conditions")
    done = (
        find_condition(conditions, JobCondition.COMPLETE)
        or find_condition(conditions, JobCondition.FAILED)
        or {}
    )
    return parse_timestamp(done.get("lastTransitionTime") or body["metadata"]["creationTimestamp"])


def substitute(body: Mapping[str, Any], started: datetime, message: str) -> bytes:
    """The result in place of a lost one, which reports the loss: the same bytes for the same NosanaJob.

    A run that could never be finished would never be paid, and would hold its slot.
    """
    conditions = (body.get("status") or {}).get("conditions")
    done = find_condition(conditions, JobCondition.COMPLETE)
    status = FlowStatus.FAILED
    if done is not None and condition_is_true(conditions, JobCondition.COMPLETE):
        status = FlowStatus.SUCCESS if done["reason"] in ("Succeeded", "Expired") else FlowStatus.STOPPED
    start = int(started.timestamp() * 1000)
    end = max(start, int(ended_at(body).timestamp() * 1000))
    return FlowState(status, start, end, errors=(FlowError("result-lost", message),)).to_bytes()


def overdue_substitute(started: datetime, seconds: int) -> bytes:
    """The result of a run whose job did not end within `seconds`, or at all: the same bytes for the same run."""
    start = int(started.timestamp() * 1000)
    message = "the host could not collect the result of this job when its time was up"
    errors = (FlowError("result-lost", message),)
    return FlowState(FlowStatus.FAILED, start, start + seconds * 1000, errors=errors).to_bytes()


LOST: Final = "the host lost the result of this job before it was published"
"""Without details: the text is published, and names of objects are private."""


async def result_bytes(
    kube: Kube, body: Mapping[str, Any], names: Sequence[str], started: datetime, cache: ResultCache
) -> bytes:
    """The result in the Secrets of these names, or its substitute when it is gone.

    Raises the other errors of the API server.
    """
    if cache.data is not None:
        return cache.data
    namespace = body["metadata"]["namespace"]
    try:
        cache.data = read_result([await kube.get("Secret", namespace, name) for name in names])
    except (NotFound, ResultError) as exc:
        cache.lost = str(exc)
        cache.data = substitute(body, started, LOST)
        log.error("result lost: %s", exc, extra={"job": f"{namespace}/{body['metadata']['name']}"})
    return cache.data


async def pin(
    pinner: Pinner, data: bytes, cid: str, *, name: str, seconds: float, cache: ResultCache
) -> bool:
    """Pin these bytes under that CID within `seconds`; False when that failed, for now."""
    if cache.pinned:
        return True
    if pinner.cid_of(data) != cid:
        # Somebody changed the Secret after its CID went into the intent.
        log.error("result does not match its CID; not pinned", extra={"result": name, "cid": cid})
        cache.changed = True
        return False
    try:
        async with asyncio.timeout(seconds):
            await pinner.pin(data, name=name)
    except TimeoutError:
        log.warning("result not pinned within %.0f s", seconds, extra={"result": name})
        return False
    except NosanaError as exc:
        log.warning("result not pinned yet: %s", exc, extra={"result": name})
        return False
    cache.pinned = True
    return True
