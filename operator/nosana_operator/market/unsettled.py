"""NosanaJobs of a NosanaMarket whose runs are not settled, from the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nosana_operator.api import (
    JOB_KIND,
    JobCondition,
    MarketRef,
    condition_is_true,
    find_condition,
    run_job_name,
)
from nosana_operator.market.ports import Cache


def unsettled_jobs(cache: Cache, ref: MarketRef, namespace: str) -> Iterator[Mapping[str, Any]]:
    """The NosanaJobs of a NosanaMarket that are not settled.

    Only those with the names and in the namespace that the market host gives them: others are not its own.
    """
    mine = ref.model_dump(by_alias=True)
    for body in cache.list(JOB_KIND, namespace):
        run = body["spec"].get("run")
        conditions = (body.get("status") or {}).get("conditions")
        if not run or run["marketRef"] != mine or condition_is_true(conditions, JobCondition.SETTLED):
            continue
        verified = find_condition(conditions, JobCondition.RUN_VERIFIED) or {}
        if verified.get("status") != "False" and body["metadata"]["name"] == run_job_name(run["run"]):
            yield body


def serving_wallets(cache: Cache, ref: MarketRef, namespace: str) -> frozenset[str]:
    """Addresses of the wallets whose runs a NosanaMarket still has to settle."""
    return frozenset(body["spec"]["run"]["node"] for body in unsettled_jobs(cache, ref, namespace))
