"""What the job controller has to know of a run: when it expires, and whether somebody else closed it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from nosana_operator.api import RunStatus, micro_timestamp, parse_timestamp
from nosana_operator.market.facts import GONE, NO_RESULT, QUEUED, JobFacts, Known, RunFacts

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""A time-out may be any 64-bit number, which a date cannot hold; the last year is left for the clocks' offset."""
_STEP = timedelta(seconds=5)
"""The measured offset of the clocks varies by a second or two; following each change would write the status
endlessly. The chain's clock itself may jump."""


def expires_at(
    run_time: int, timeout: int, our_time: Callable[[float], datetime], *, max_timeout: int | None = None
) -> datetime:
    """When the run expires by our clock: its start + the job's current time-out, or the host's own limit if earlier.

    A negative time-out expires at once.
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
    """The run as the job controller should see it; unknown facts leave it unchanged.

    `young`: a lagging node may not have the run yet, so its absence alone means nothing.
    `max_timeout`: the NosanaMarket's, seconds.
    """
    status = before or RunStatus()
    if isinstance(job, JobFacts) and job.state == QUEUED:
        moment = expires_at(run_time, job.timeout, our_time, max_timeout=max_timeout)
        previous = parse_timestamp(status.expires_at) if status.expires_at else None
        limits = {
            "timeout": job.timeout,
            "max_timeout": max_timeout if max_timeout is not None and max_timeout < job.timeout else None,
        }
        previous_limits = {"timeout": status.timeout, "max_timeout": status.max_timeout}
        if previous_limits != limits or previous is None or abs(moment - previous) > _STEP:
            status = status.model_copy(update={**limits, "expires_at": micro_timestamp(moment)})
    if status.ended is None and run is GONE:
        if isinstance(job, JobFacts) and job.tells_of(key, run_time) and job.ipfs_result == NO_RESULT:
            status = status.model_copy(update={"ended": "OwnerEnded"})
        elif not young and (isinstance(job, JobFacts) or job is GONE):
            status = status.model_copy(update={"ended": "RunGone"})
    return status if status != RunStatus() else before
