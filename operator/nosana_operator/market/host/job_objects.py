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
from nosana_operator.market.host.view import JobObject, WalletView
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.ports import Cache
from nosana_operator.market.unsettled import unsettled_jobs


@dataclass(frozen=True, slots=True)
class LiveJobs:
    """NosanaJobs that still need something."""

    with_pods: dict[str, str]
    """Run → uid of the NosanaJob that still needs its slot."""
    unsettled: frozenset[str]
    """Runs whose NosanaJob is not settled yet."""


class JobObjects:
    """Looks up NosanaJobs; remembers settled ones for as long as the watcher shows their runs."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._settled: dict[MarketRef, dict[str, JobObject]] = {}
        """By run: settled NosanaJobs whose run the watcher still shows. When one of them is deleted, its run must
        not be taken for a new one."""

    def of_runs(self, ref: MarketRef, namespace: str, runs: Sequence[RunFacts]) -> dict[str, JobObject]:
        """By run: the object that has the name of its NosanaJob."""
        settled = self._settled.get(ref, {})
        out = {}
        for run in runs:
            old = settled.get(run.address)
            found = self._read(namespace, run.address)
            if found is None and old is not None and old.run is not None and is_run(old.run, run):
                found = old
            if found is not None:
                out[run.address] = found
        self._settled[ref] = {run: job for run, job in out.items() if job.settled}
        return out

    def _read(self, namespace: str, run: str) -> JobObject | None:
        body = self._cache.get(JOB_KIND, namespace, run_job_name(run))
        if body is None:
            return None
        meta, conditions = body["metadata"], (body.get("status") or {}).get("conditions")
        verified = find_condition(conditions, JobCondition.RUN_VERIFIED) or {}
        try:
            spec_run = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"]).run
        except ApiError:
            spec_run = None
        return JobObject(
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

    def live(self, ref: MarketRef, spec: NosanaMarketSpec, wallets: Sequence[WalletView]) -> LiveJobs:
        """The NosanaJobs that still need their slot, and those that are not settled."""
        readable = {wallet.address for wallet in wallets if wallet.runs is not UNKNOWN}
        with_pods: dict[str, str] = {}
        unsettled = set()
        for body in unsettled_jobs(self._cache, ref, spec.job_namespace):
            run, conditions = body["spec"]["run"], (body.get("status") or {}).get("conditions")
            unsettled.add(run["run"])
            ended = condition_is_true(conditions, JobCondition.COMPLETE) or condition_is_true(
                conditions, JobCondition.FAILED
            )
            verified = condition_is_true(conditions, JobCondition.RUN_VERIFIED)
            # Once the pods have ended the chain tells whether the run is open, if it can be read.
            if verified and not (ended and run["node"] in readable):
                with_pods[run["run"]] = body["metadata"]["uid"]
        return LiveJobs(with_pods, frozenset(unsettled))
