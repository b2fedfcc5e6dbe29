"""The NosanaJobs of a NosanaMarket's runs, as the cache has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nosana_operator.api import (
    JOB_KIND,
    ApiError,
    JobCondition,
    JobReason,
    MarketRef,
    NosanaJobSpec,
    NosanaMarketSpec,
    condition_is_true,
    find_condition,
    parse_part,
    run_job_name,
)
from nosana_operator.market.facts import UNKNOWN, RunFacts
from nosana_operator.market.host.view import KnownJob, WalletView
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.ports import Cache
from nosana_operator.market.unsettled import unsettled_jobs


@dataclass(frozen=True, slots=True)
class Held:
    """NosanaJobs that still matter."""

    occupied: dict[str, str]
    """Runs whose NosanaJob still needs its slot, with its uid."""
    unsettled: frozenset[str]


class KnownJobs:
    """Finds them; remembers the settled ones for as long as the watcher shows their runs."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._settled: dict[MarketRef, dict[str, KnownJob]] = {}
        """By run: settled NosanaJobs whose run the watcher still shows. When one is deleted, its run must not
        be taken for a new one."""

    def behind(self, ref: MarketRef, namespace: str, runs: Sequence[RunFacts]) -> dict[str, KnownJob]:
        """By run: what stands under the name of its NosanaJob."""
        before = self._settled.get(ref, {})
        known = {}
        for run in runs:
            old = before.get(run.address)
            here = self._known(namespace, run.address)
            if here is None and old is not None and old.run is not None and is_run(old.run, run):
                here = old
            if here is not None:
                known[run.address] = here
        self._settled[ref] = {run: job for run, job in known.items() if job.settled}
        return known

    def _known(self, namespace: str, run: str) -> KnownJob | None:
        body = self._cache.get(JOB_KIND, namespace, run_job_name(run))
        if body is None:
            return None
        meta, conditions = body["metadata"], (body.get("status") or {}).get("conditions")
        verified = find_condition(conditions, JobCondition.RUN_VERIFIED) or {}
        try:
            spec_run = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"]).run
        except ApiError:
            spec_run = None
        return KnownJob(
            namespace=namespace,
            name=meta["name"],
            uid=meta["uid"],
            run=spec_run,
            verified=verified.get("status") == "True",
            refused=verified.get("status") == "False" and verified.get("reason") == JobReason.RUN_MISMATCH,
            settled=condition_is_true(conditions, JobCondition.SETTLED),
            deleting=bool(meta.get("deletionTimestamp")),
            stopping=bool(body["spec"].get("stop"))
            or condition_is_true(conditions, JobCondition.COMPLETE)
            or condition_is_true(conditions, JobCondition.FAILED),
        )

    def held(self, ref: MarketRef, spec: NosanaMarketSpec, wallets: Sequence[WalletView]) -> Held:
        """Runs whose NosanaJob still needs its slot, and runs that are not settled."""
        known = {wallet.address for wallet in wallets if wallet.runs is not UNKNOWN}
        occupied: dict[str, str] = {}
        unsettled = set()
        for body in unsettled_jobs(self._cache, ref, spec.job_namespace):
            run, conditions = body["spec"]["run"], (body.get("status") or {}).get("conditions")
            unsettled.add(run["run"])
            ended = condition_is_true(conditions, JobCondition.COMPLETE) or condition_is_true(
                conditions, JobCondition.FAILED
            )
            verified = condition_is_true(conditions, JobCondition.RUN_VERIFIED)
            if verified and not (ended and run["node"] in known):
                occupied[run["run"]] = body["metadata"]["uid"]
        return Held(occupied, frozenset(unsettled))
