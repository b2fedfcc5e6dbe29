"""One run from verification to settlement: gather (`context.py`), decide (`verify.py`, `run_status.py`,
`decide.py`), act (`settle.py`). Keyed on the NosanaJob of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    ApiError,
    JobCondition,
    JobReason,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    condition_is_true,
    parse_part,
    parse_timestamp,
)
from nosana_operator.errors import Conflict, Unavailable
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    Absent,
    Fate,
    JobFacts,
    Known,
    Outcome,
    RunFacts,
)
from nosana_operator.market.intents import RETRY
from nosana_operator.market.job_spec import is_run, run_of_unreadable
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges, Pinner
from nosana_operator.market.runs.context import Memory, RunContext, RunLimits
from nosana_operator.market.runs.decide import SLOW_POLL
from nosana_operator.market.runs.on_chain import Settled, Situation, next_step
from nosana_operator.market.runs.run_status import run_status
from nosana_operator.market.runs.settle import Settler
from nosana_operator.market.runs.verify import misplaced, verify
from nosana_operator.market.runs.view import has_ended

log = logging.getLogger(__name__)


class RunController:
    """Verifies, follows and settles the runs of all markets."""

    def __init__(self, edges: Edges, wallets: Wallets) -> None:
        self._edges = edges
        self._wallets = wallets
        self._limits = RunLimits()
        self._memory: dict[tuple[str, str], Memory] = {}

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Do what is due for the run of NosanaJob `(namespace, name)`; the seconds until the next reconcile."""
        body = self._edges.cache.get(JOB_KIND, *key)
        if body is None:
            self._memory.pop(key, None)
            return None
        try:
            spec, run, problem = _spec(body)
            if run is None:
                return None
            memory = self._memory.get(key)
            if memory is None or memory.uid != body["metadata"]["uid"]:
                memory = self._memory[key] = Memory(body["metadata"]["uid"])
            ctx = RunContext(self._edges, self._wallets, self._limits, memory, dict(body), run, spec)
            return await _RunReconciler(ctx, problem).reconcile()
        except ApiError as exc:
            log.warning("run not reconciled: %s", exc, extra={"job": f"{key[0]}/{key[1]}"})
            return None
        except Conflict:
            # Somebody wrote in between, so the decision is stale. The watch brings the newer object.
            return 0.1


def _spec(body: Mapping[str, Any]) -> tuple[NosanaJobSpec | None, Run | None, str]:
    """The spec of a NosanaJob, its run, and why this version cannot read the spec."""
    try:
        spec = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
    except ApiError as exc:
        log.warning("%s", exc, extra={"job": f"{body['metadata']['namespace']}/{body['metadata']['name']}"})
        return None, run_of_unreadable(body), str(exc)
    return spec, spec.run, ""


class _RunReconciler:
    """One reconcile of one run."""

    def __init__(self, ctx: RunContext, spec_problem: str) -> None:
        self.ctx = ctx
        self.spec_problem = spec_problem

    async def reconcile(self) -> float | None:
        if condition_is_true(self.ctx.record.conditions, JobCondition.SETTLED):
            return await Settler(self.ctx).run()
        if self.ctx.abandoned():
            return await Settler(self.ctx).conclude(
                Settled(
                    JobReason.ABANDONED,
                    "an admin gave up the pay of this run by annotation; this object stays until the run is "
                    "closed on chain, even when it is deleted: without it the run would be served again",
                )
            )
        try:
            market = self.ctx.market()
        except ApiError as exc:
            return await self._stuck(JobReason.SPEC_INVALID, f"the run's NosanaMarket cannot be read: {exc}")
        if market is None:
            return await self._without_market()
        problem = misplaced(self.ctx.meta["namespace"], self.ctx.meta["name"], self.ctx.run, market)
        if problem is not None:
            return await self._refuse(f"{problem}; this job will not be run")
        chain = self.ctx.edges.networks.chain(market.network)
        pinner = self.ctx.edges.networks.pinner(market.network)
        if chain is None or pinner is None:
            return await self._stuck(
                JobReason.CHAIN_UNAVAILABLE,
                f"network {market.network!r} is not in the operator's settings; add it again",
            )
        if not condition_is_true(self.ctx.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._verify(chain, pinner, market)
        # Once a transaction is signed, the chain shows its effect, which is no news for the job controller.
        followed = not has_ended(self.ctx.conditions) and self.ctx.record.settlement is None
        pause = await self._follow(chain, market) if followed else None
        again = await Settler(self.ctx, chain=chain, pinner=pinner, market=market).run()
        return min((one for one in (pause, again) if one is not None), default=None)

    async def _verify(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        if self.ctx.spec is None:
            # Nothing of it ran. The market host replaces it with an object that this version can read.
            message = f"{self.spec_problem}; this job will not be run"
            return await self._refuse(message, JobReason.SPEC_INVALID)
        run, job = self.ctx.watched_run(chain), chain.watched_job(self.ctx.run.job)
        if isinstance(run, Absent) or not self.ctx.fresh(chain):
            # The watcher may not follow it yet, or lag. What it shows of a run that has just begun is
            # believed, because its paid time runs; an older one may be closed since, and was served before.
            run = await self._read_run(chain)
        if not isinstance(job, JobFacts):
            job = await self._read_job(chain)
        keys, complete = await self.ctx.keys(market)
        verdict = verify(
            self.ctx.spec,
            self.ctx.run,
            market,
            definition_cid=pinner.cid_from_digest(job.ipfs_job) if isinstance(job, JobFacts) else None,
            keys=keys,
            keys_complete=complete,
            run=run,
            job=job,
        )
        self.ctx.say(JobCondition.RUN_VERIFIED, verdict.ok, verdict.reason, verdict.message)
        if verdict.ok:
            created = parse_timestamp(self.ctx.meta["creationTimestamp"])
            seen = chain.run_seen_at(self.ctx.run.run)
            # After a restart the watcher sees every run for the first time: then the object is older.
            if seen is None or seen >= created + timedelta(seconds=1):
                seen = created
            self.ctx.record = self.ctx.record.matched_at(seen)
            self._update(chain, market, run, job)
            await self.ctx.write()
            self.ctx.event("Normal", verdict.reason, f"{verdict.message}; the run is {self.ctx.run.run}")
            return SLOW_POLL
        if verdict.reason == JobReason.RUN_NOT_FOUND:
            settled = await self._ended_unverified(chain)
            if settled is not None:
                return await Settler(self.ctx, chain=chain, pinner=pinner, market=market).conclude(settled)
        if verdict.ok is False and self.ctx.deleting():
            await self.ctx.release()
            return None
        await self.ctx.write()
        return RETRY if verdict.ok is None or self.ctx.young(chain) else SLOW_POLL

    async def _ended_unverified(self, chain: Chain) -> Settled | None:
        """The settlement of a run that ended before it could be verified; None: finality does not show that."""
        if FINALIZER_SETTLEMENT not in (self.ctx.meta.get("finalizers") or ()):
            # The market host did not create it: its author keeps it.
            return None
        situation = Situation(
            key=self.ctx.run.node,
            run_time=self.ctx.run_time,
            confirmed=await self.ctx.accounts(chain, finalized=False),
            finalized=await self.ctx.accounts(chain, finalized=True),
            intent=None,
            outcome=Outcome(Fate.PENDING),
            digest=None,
        )
        step = next_step(situation)
        return step if isinstance(step, Settled) else None

    async def _refuse(self, message: str, reason: JobReason = JobReason.RUN_MISMATCH) -> float | None:
        self.ctx.say(JobCondition.RUN_VERIFIED, False, reason, message)
        if self.ctx.deleting():
            await self.ctx.release()
            return None
        await self.ctx.write()
        # Its NosanaMarket may be created later, which does not change this object.
        return SLOW_POLL

    async def _without_market(self) -> float | None:
        """Its NosanaMarket never existed, or was deleted by force before this process began."""
        ref = self.ctx.run.market_ref
        problem = f"there is no NosanaMarket {ref.namespace}/{ref.name}"
        if not condition_is_true(self.ctx.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._refuse(f"{problem}; this job will not be run")
        return await self._stuck(
            JobReason.WALLET_MISSING,
            f"{problem}; create it again to be paid, or annotate {ANNOTATION_ABANDON}: {self.ctx.run.run}",
        )

    async def _stuck(self, reason: JobReason, message: str) -> float | None:
        """Nothing can be done on chain now: report that where a payment waits for it."""
        if has_ended(self.ctx.conditions):
            self.ctx.complain(reason, message)
            await self.ctx.write()
        return SLOW_POLL

    async def _follow(self, chain: Chain, market: NosanaMarketSpec) -> float:
        run, job = self.ctx.watched_run(chain), chain.watched_job(self.ctx.run.job)
        if isinstance(run, RunFacts) and not is_run(self.ctx.run, run):
            run = GONE
        if run is GONE:
            # The end of a job cannot be undone, and the snapshot may be older than the run.
            accounts = await self.ctx.accounts(chain, finalized=False)
            run, job = accounts.run, accounts.job
        self._update(chain, market, run, job)
        await self.ctx.write()
        return SLOW_POLL

    def _update(
        self, chain: Chain, market: NosanaMarketSpec, run: Known[RunFacts], job: Known[JobFacts]
    ) -> None:
        status = run_status(
            self.ctx.record.run,
            key=self.ctx.run.node,
            run_time=self.ctx.run_time,
            run=run,
            job=job,
            young=self.ctx.young(chain),
            our_time=chain.our_time,
            max_timeout=market.max_timeout,
        )
        self.ctx.record = replace(self.ctx.record, run=status)

    async def _read_run(self, chain: Chain) -> Known[RunFacts]:
        try:
            return await chain.read_run(self.ctx.run.run) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return UNKNOWN

    async def _read_job(self, chain: Chain) -> Known[JobFacts]:
        try:
            return await chain.read_job(self.ctx.run.job) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return UNKNOWN
