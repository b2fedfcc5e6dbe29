"""What the job controller has to know of a run: when it expires, and whether somebody else closed it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from nosana_operator.api import RunStatus, micro_timestamp, parse_timestamp
from nosana_operator.market.facts import GONE, NO_RESULT, QUEUED, JobFacts, Known, RunFacts

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""A poster may set any 64-bit time-out, a date may not; a year is kept free for the clocks' offset."""
_STEP = timedelta(seconds=5)
"""The measured offset of the clocks wobbles by a second or two; a status that wobbles with it would be
written for ever. The chain's clock itself may jump."""


def expires_at(
    run_time: int, timeout: int, our_time: Callable[[float], datetime], *, max_timeout: int | None = None
) -> datetime:
    """run.time + the job's current time-out by our clock, and no later than the host's own bound.

    A negative time-out has expired at once.
    """
    moment = run_time + max(timeout if max_timeout is None else min(timeout, max_timeout), 0)
    return _NEVER if moment >= _NEVER.timestamp() else our_time(moment)


def run_status(
    before: RunStatus | None,
    *,
    key: str,
    run_time: int,
    run: Known[RunFacts],
    job: Known[JobFacts],
    young: bool,
    our_time: Callable[[float], datetime],
    max_timeout: int | None = None,
) -> RunStatus | None:
    """The run as the job controller should see it; what is unknown stays as it was.

    `young`: a node that lags may not have the run yet, so that its absence alone means nothing.
    `max_timeout`: the NosanaMarket's.
    """
    status = before or RunStatus()
    if isinstance(job, JobFacts) and job.state == QUEUED:
        moment = expires_at(run_time, job.timeout, our_time, max_timeout=max_timeout)
        told = parse_timestamp(status.expires_at) if status.expires_at else None
        limits = {
            "timeout": job.timeout,
            "max_timeout": max_timeout if max_timeout is not None and max_timeout < job.timeout else None,
        }
        said = {"timeout": status.timeout, "max_timeout": status.max_timeout}
        if said != limits or told is None or abs(moment - told) > _STEP:
            status = status.model_copy(update={**limits, "expires_at": micro_timestamp(moment)})
    if status.ended is None and run is GONE:
        if isinstance(job, JobFacts) and job.tells_of(key, run_time) and job.ipfs_result == NO_RESULT:
            status = status.model_copy(update={"ended": "OwnerEnded"})
        elif not young and (isinstance(job, JobFacts) or job is GONE):
            status = status.model_copy(update={"ended": "RunGone"})
    return status if status != RunStatus() else before
