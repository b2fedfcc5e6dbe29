"""One run from verification to settlement: gather, decide (`verify`, `follow`, `settle`), act.

Keyed on the NosanaJob of the run. `one_run` is what is looked at, `settlement` what comes after its end.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    ApiError,
    JobCondition,
    JobReason,
    NosanaJobSpec,
    NosanaMarketSpec,
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
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges, Pinner
from nosana_operator.market.runs.confidential import ask_for_definition
from nosana_operator.market.runs.context import Memory, RunContext, RunLimits
from nosana_operator.market.runs.decide import Settled, Situation, next_step
from nosana_operator.market.runs.run_status import run_status
from nosana_operator.market.runs.settle import SLOW_POLL, SOON, Settler
from nosana_operator.market.runs.verify import misplaced, verify

log = logging.getLogger(__name__)


class RunController:
    """Verifies, follows and settles the runs of all markets."""

    def __init__(self, edges: Edges, wallets: Wallets) -> None:
        self._edges = edges
        self._wallets = wallets
        self._turns = RunLimits()
        self._memory: dict[tuple[str, str], Memory] = {}

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Take the run of NosanaJob `(namespace, name)` a step on; the seconds until the next look."""
        body = self._edges.cache.get(JOB_KIND, *key)
        if body is None:
            self._memory.pop(key, None)
            return None
        try:
            spec = parse_part(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
            if spec.run is None:
                return None
            memory = self._memory.get(key)
            if memory is None or memory.uid != body["metadata"]["uid"]:
                memory = self._memory[key] = Memory(body["metadata"]["uid"])
            ctx = RunContext(self._edges, self._wallets, self._turns, memory, dict(body), spec, spec.run)
            return await _RunReconciler(ctx).go()
        except ApiError as exc:
            log.warning("run not looked at: %s", exc, extra={"job": f"{key[0]}/{key[1]}"})
            return None
        except Conflict:
            # Somebody wrote in between: what was decided is stale. The watch brings the newer object.
            return 0.1


class _RunReconciler:
    """What is to be done of the run that is looked at."""

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx
        self.settler = Settler(ctx)

    async def go(self) -> float | None:
        if condition_is_true(self.ctx.record.conditions, JobCondition.SETTLED):
            return await self.settler.after_settlement()
        if (self.ctx.meta.get("annotations") or {}).get(ANNOTATION_ABANDON) == self.ctx.run.run:
            return await self.settler.finish_record(
                Settled(
                    JobReason.ABANDONED,
                    "an admin gave up the pay of this run by annotation; this object stays, deleted too, until "
                    "the run is closed on chain: without it the run would be served again",
                )
            )
        market = self.ctx.market()
        if market is None:
            return await self._without_market()
        wrong = misplaced(self.ctx.meta["namespace"], self.ctx.meta["name"], self.ctx.run, market)
        if wrong is not None:
            return await self._refuse(f"{wrong}; this job will not be run")
        chain = self.ctx.edges.networks.chain(market.network)
        pinner = self.ctx.edges.networks.pinner(market.network)
        if chain is None or pinner is None:
            return await self._stuck(
                JobReason.CHAIN_UNAVAILABLE,
                f"network {market.network!r} is not in the operator's settings; put it back",
            )
        if not condition_is_true(self.ctx.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._verify(chain, pinner, market)
        if not self.ctx.ended():
            pause = await self._follow(chain, market)
            posters = self.ctx.edges.networks.posters(market.network)
            again = await ask_for_definition(self.ctx, market, posters) if posters is not None else None
            return pause if again is None else min(pause, again)
        return await self.settler.settle(chain, pinner, market)

    async def _verify(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        run, job = self.ctx.watched_run(chain), chain.watched_job(self.ctx.run.job)
        if isinstance(run, Absent) or not self.ctx.fresh(chain):
            # The watcher may not follow it yet, or lag. A run that has just begun is taken at its word,
            # because its paid time runs; an older one may be closed since, and its pods not be the first.
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
            # After a restart "first seen" is when this process first looked: the object tells more then.
            known = seen is not None and seen < created + timedelta(seconds=1)
            self.ctx.record = self.ctx.record.matched_at(seen if known and seen is not None else created)
            self._take(chain, market, run, job)
            await self.ctx.write()
            self.ctx.event("Normal", verdict.reason, f"{verdict.message}; the run is {self.ctx.run.run}")
            return SLOW_POLL
        if verdict.reason == JobReason.RUN_NOT_FOUND:
            over = await self._over_before(chain)
            if over is not None:
                return await self.settler.finish_record(over)
        if verdict.ok is False and self.ctx.deleting():
            await self.ctx.release()
            return None
        await self.ctx.write()
        return SOON if verdict.ok is None or self.ctx.young(chain) else SLOW_POLL

    async def _over_before(self, chain: Chain) -> Settled | None:
        """The run ended before it could be verified: finality has to say so."""
        if FINALIZER_SETTLEMENT not in (self.ctx.meta.get("finalizers") or ()):
            # Not of the market host's making: it stays where its author put it.
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

    async def _refuse(self, why: str) -> float | None:
        self.ctx.say(JobCondition.RUN_VERIFIED, False, JobReason.RUN_MISMATCH, why)
        if self.ctx.deleting():
            await self.ctx.release()
            return None
        await self.ctx.write()
        # Its NosanaMarket may yet come: that is no change of this object.
        return SLOW_POLL

    async def _without_market(self) -> float | None:
        """Its NosanaMarket is not there: never was, or was deleted by force before this process began."""
        ref = self.ctx.run.market_ref
        why = f"there is no NosanaMarket {ref.namespace}/{ref.name}"
        if not condition_is_true(self.ctx.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._refuse(f"{why}; this job will not be run")
        return await self._stuck(
            JobReason.WALLET_MISSING,
            f"{why}; make it again to be paid, or annotate {ANNOTATION_ABANDON}: {self.ctx.run.run}",
        )

    async def _stuck(self, reason: JobReason, message: str) -> float | None:
        """Nothing can be done on chain for now: say so where a payment waits for it."""
        if self.ctx.ended():
            self.ctx.complain(reason, message)
            await self.ctx.write()
        return SLOW_POLL

    async def _follow(self, chain: Chain, market: NosanaMarketSpec) -> float:
        run, job = self.ctx.watched_run(chain), chain.watched_job(self.ctx.run.job)
        if isinstance(run, RunFacts) and not is_run(self.ctx.run, run):
            run = GONE
        if run is GONE:
            # Ending a job cannot be taken back, and the snapshot may be older than the run.
            found = await self.ctx.accounts(chain, finalized=False)
            run, job = found.run, found.job
        self._take(chain, market, run, job)
        await self.ctx.write()
        return SLOW_POLL

    def _take(
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
