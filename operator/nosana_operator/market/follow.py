"""What the job controller has to know of a run: when it expires, and whether somebody else closed it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from nosana_operator.api import RunStatus, micro_timestamp
from nosana_operator.market.facts import DONE, GONE, NO_RESULT, QUEUED, JobFacts, Known, RunFacts

_LAST_MOMENT = 253_402_300_799
"""9999-12-31: a poster may set any 64-bit time-out, a date may not."""


def expires_at(run_time: int, timeout: int, our_time: Callable[[float], datetime]) -> datetime:
    """run.time + the job's current time-out by our clock; a negative time-out has expired at once."""
    moment = max(0, min(run_time + max(timeout, 0), _LAST_MOMENT))
    if moment == _LAST_MOMENT:
        return datetime.fromtimestamp(moment, UTC)
    return our_time(moment)


def follow(
    before: RunStatus | None,
    *,
    key: str,
    run_time: int,
    run: Known[RunFacts],
    job: Known[JobFacts],
    settling: bool,
    our_time: Callable[[float], datetime],
) -> RunStatus | None:
    """The run as the job controller should see it; what is unknown stays as it was.

    `settling`: a transaction of ours may have closed the run itself, so that its going means nothing.
    """
    status = before or RunStatus()
    if isinstance(job, JobFacts) and job.state == QUEUED and status.timeout != job.timeout:
        # Only a change is written: the measured clock offset wobbles, and a status that wobbles with it
        # would be written for ever.
        moment = micro_timestamp(expires_at(run_time, job.timeout, our_time))
        status = status.model_copy(update={"timeout": job.timeout, "expires_at": moment})
    if status.ended is None and not settling and run is GONE:
        if (
            isinstance(job, JobFacts)
            and job.state == DONE
            and job.node == key
            and job.ipfs_result == NO_RESULT
        ):
            status = status.model_copy(update={"ended": "OwnerEnded"})
        elif isinstance(job, JobFacts) or job is GONE:
            status = status.model_copy(update={"ended": "RunGone"})
    return status if status != RunStatus() else before
