"""The result of a run on its way to IPFS: its exact bytes, the CID that goes on chain, the pin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nosana_operator.api import (
    JobCondition,
    NosanaJobStatus,
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
class KeptResult:
    """Cache of one run's result; losing it costs a request."""

    data: bytes | None = None
    blank: bytes | None = None
    """What is published of a confidential job's."""
    lost: str | None = None
    """Why the stored result cannot be had any more."""
    pinned: bool = False
    pinning: asyncio.Task[bool] | None = None
    """A pin that the settlement waits for; see `pin`."""

    def forget(self) -> None:
        """Nothing more is to be done with it."""
        self.data = self.blank = None


def ended_at(body: Mapping[str, Any]) -> datetime:
    """When the job ended, by our clock; None of its own moments can be missing for good."""
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


def substitute(body: Mapping[str, Any], started: datetime, why: str) -> bytes:
    """What is published when the result was lost: that it was. The same bytes for the same NosanaJob.

    A run that could never be finished would not be paid and would hold its slot for ever.
    """
    conditions = (body.get("status") or {}).get("conditions")
    done = find_condition(conditions, JobCondition.COMPLETE)
    status = FlowStatus.FAILED
    if done is not None and condition_is_true(conditions, JobCondition.COMPLETE):
        status = FlowStatus.SUCCESS if done["reason"] in ("Succeeded", "Expired") else FlowStatus.STOPPED
    start = int(started.timestamp() * 1000)
    end = max(start, int(ended_at(body).timestamp() * 1000))
    return FlowState(status, start, end, errors=(FlowError("result-lost", why),)).to_bytes()


async def result_bytes(
    kube: Kube, body: Mapping[str, Any], status: NosanaJobStatus, started: datetime, kept: KeptResult
) -> bytes:
    """The bytes to publish. Raises what the API server says, other than that they are gone."""
    if kept.data is not None:
        return kept.data
    namespace, names = body["metadata"]["namespace"], status.result_secrets
    try:
        kept.data = read_result([await kube.get("Secret", namespace, name) for name in names])
    except (NotFound, ResultError) as exc:
        kept.lost = str(exc)
        # Not the details: the text is published, and names of objects are nobody's business.
        kept.data = substitute(body, started, "the host lost the result of this job before it was published")
        log.error("a result is lost: %s", exc, extra={"job": f"{namespace}/{body['metadata']['name']}"})
    return kept.data


async def pin(pinner: Pinner, data: bytes, cid: str, *, name: str, seconds: float, kept: KeptResult) -> bool:
    """Pin these bytes under that CID within `seconds`; False when it did not work (yet)."""
    if kept.pinned:
        return True
    if pinner.cid_of(data) != cid:
        # The Secret was changed after its CID went into the intent: what is published must not be a lie.
        log.error("a result does not match its CID and is not pinned", extra={"result": name, "cid": cid})
        kept.lost = kept.lost or "the stored result was changed after it had been announced"
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
    kept.pinned = True
    return True
