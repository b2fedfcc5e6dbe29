"""Carries out what `decide` says of a run: reads facts, signs, sends, publishes, lets the object go.

(docs/architecture.md#why-it-cannot-pay-twice)

The intent is durable before the first byte leaves: `_sign` writes it by a compare-and-swap, then sends.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from nosana_operator.api import (
    JOB_KIND,
    MARKET_KIND,
    JobCondition,
    JobReason,
    NosanaMarketSpec,
    Settlement,
    Transaction,
)
from nosana_operator.errors import Refused, Unavailable
from nosana_operator.market.epochs import newest_epoch
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    Absent,
    Fate,
    JobFacts,
    Known,
    RunFacts,
    Signed,
)
from nosana_operator.market.intents import POLL, RETRY, intent_of
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.ports import Chain, Pinner, Wallet
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.decide import (
    SLOW_POLL,
    decide,
    key_missing,
    transaction_failed,
)
from nosana_operator.market.runs.effects import (
    Delete,
    Deliver,
    DropResult,
    Effect,
    Pin,
    PrepareResult,
    Publish,
    ReadConfirmed,
    ReadOutcome,
    ReadPayment,
    ReadResult,
    ReadRunAtEnd,
    ReadWatchedRun,
    Release,
    RequestDefinition,
    RunDecision,
)
from nosana_operator.market.runs.on_chain import ReadFinalized, Resend, Settled, Sign
from nosana_operator.market.runs.poster import Poster
from nosana_operator.market.runs.publish import Publisher
from nosana_operator.market.runs.view import Payment, RunView

log = logging.getLogger(__name__)


class _Pay(NamedTuple):
    """What a run was paid, in NOS base units."""

    seconds: int
    earned: int
    refunded: int

    @classmethod
    def of(cls, job: JobFacts) -> _Pay:
        """By the job account."""
        earned = job.price * job.seconds_paid
        return cls(job.seconds_paid, earned, job.price * max(job.timeout, 0) - earned)


class Settler:
    """Acts for one run in one reconcile. `chain`, `pinner` and `market` are None only after the settlement."""

    def __init__(
        self,
        ctx: RunContext,
        *,
        chain: Chain | None = None,
        pinner: Pinner | None = None,
        market: NosanaMarketSpec | None = None,
    ) -> None:
        self.ctx = ctx
        self.chain = chain
        self.market = market
        self.publisher = Publisher(ctx, pinner)
        self.poster = Poster(ctx, market)

    async def run(self) -> float | None:
        """Decide and act until there is nothing more to do now; the seconds until the next reconcile."""
        view = self._view()
        while True:
            decision = decide(view)
            effect = decision.effect
            if isinstance(effect, Sign | Settled):
                self._take(decision)
                return await (self._sign(effect, view) if isinstance(effect, Sign) else self.conclude(effect))
            await self._write(decision)
            if effect is None or await self._act(effect):
                return decision.again_in
            view = await self._gather(effect, view)
            view = replace(view, record=self.ctx.record, attempts=self.ctx.memory.attempts)

    def _view(self) -> RunView:
        view = self.ctx.view(self.market)
        settlement, cid = view.record.settlement, view.record.result_cid
        if settlement is None:
            return view
        intent = settlement.transaction
        if intent is not None:
            view = replace(view, refusal=self.ctx.memory.sender.refusals.get(intent.signature))
        return view if cid is None else replace(view, published=self.publisher.announced(cid))

    def _take(self, decision: RunDecision) -> None:
        self.ctx.record, self.ctx.memory.attempts = decision.record, decision.attempts
        for event in decision.events:
            self.ctx.event(event.type, event.reason, event.note)

    async def _write(self, decision: RunDecision) -> float | None:
        self._take(decision)
        await self.ctx.write()
        return decision.again_in

    async def _act(self, effect: Effect) -> bool:
        """Carry out an effect that brings no fact; False: it is another one."""
        match effect:
            case Resend():
                settlement = self.ctx.record.settlement
                if settlement is not None and settlement.transaction is not None:
                    await self._send(settlement.transaction)
            case DropResult():
                self.ctx.memory.result.drop()
            case Release():
                await self.ctx.release()
            case Delete():
                meta = self.ctx.meta
                await self.ctx.edges.kube.delete(JOB_KIND, meta["namespace"], meta["name"], uid=meta["uid"])
            case _:
                return False
        return True

    async def _gather(self, effect: Effect, view: RunView) -> RunView:
        """The view with the fact that the effect brings."""
        match effect:
            case ReadResult():
                if effect.substitute:
                    self.publisher.substitute()
                return replace(view, result=await self.publisher.read(self.poster))
            case PrepareResult():
                return replace(view, published=await self.publisher.prepare())
            case RequestDefinition():
                return replace(view, reply=await self.poster.request_definition())
            case Deliver():
                return replace(view, reply=await self.poster.deliver(effect, await self.publisher.result()))
            case Pin():
                return replace(view, pin=await self.publisher.pin(effect.limit, view.published))
            case Publish():
                return replace(view, publication=await self.publisher.publish())
            case ReadRunAtEnd():
                return replace(view, open_at_end=await self._may_be_open())
            case ReadWatchedRun():
                return replace(view, watched=await self._is_watched())
        return await self._read_chain(effect, view)

    async def _read_chain(self, effect: Effect, view: RunView) -> RunView:
        chain = self._on_chain()
        settlement = view.record.settlement
        intent = settlement.transaction if settlement else None
        match effect:
            case ReadOutcome() if intent is not None:
                outcome = await chain.outcome(intent.signature, intent.last_valid_block_height)
                return replace(view, outcome=outcome)
            case ReadConfirmed():
                return replace(view, confirmed=await self.ctx.accounts(chain, finalized=False))
            case ReadFinalized():
                is_quit = settlement is not None and settlement.kind == "quit"
                given_back = is_quit and view.outcome is not None and view.outcome.fate is Fate.FINALIZED
                accounts = await self.ctx.accounts(chain, finalized=True, given_back=given_back)
                return replace(view, finalized=accounts)
            case ReadPayment():
                return replace(view, payment=await self._payment(chain, view))
        raise AssertionError(f"no fact of {effect}")

    def _on_chain(self) -> Chain:
        if self.chain is None:
            raise AssertionError("nothing is read for a run whose network is unknown")
        return self.chain

    async def _payment(self, chain: Chain, view: RunView) -> Payment | Absent:
        job = view.confirmed.job if view.confirmed else UNKNOWN
        if not isinstance(job, JobFacts):
            return UNKNOWN
        try:
            facts = await chain.read_payment(job, payout=view.market.payout_address if view.market else None)
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return UNKNOWN
        return Payment(facts, (self.ctx.now - chain.our_time(self.ctx.run_time)).total_seconds())

    # -- transactions

    async def _sign(self, sign: Sign, view: RunView) -> float | None:
        before, kind = self.ctx.record.settlement, sign.kind
        intent = before.transaction if before is not None else None
        epoch = self.ctx.edges.leadership.check(newest_epoch([intent] if intent is not None else []))
        wallet = await self.ctx.wallet(view.market) if view.market else None
        if wallet is None:
            return await self._problem(JobReason.WALLET_MISSING, key_missing(self.ctx.run.node))
        try:
            signed = await self._signed(wallet, sign, view)
        except Refused as exc:
            return await self._problem(JobReason.TRANSACTION_FAILED, transaction_failed(kind, str(exc)))
        self.publisher.stop_pinning()
        self.ctx.memory.attempts = replace(self.ctx.memory.attempts, blocked=0)
        transaction = intent_of(signed, self.ctx.now, epoch)
        cid = self.ctx.record.result_cid if kind != "quit" else None
        settlement = Settlement(
            kind=kind,
            result_cid=cid,
            pinned=None if kind == "quit" else self.publisher.is_pinned(),
            transaction=transaction,
            failures=sign.failures or None,
        )
        self.ctx.record = replace(self.ctx.record, result_cid=cid, settlement=settlement)
        self.ctx.say(JobCondition.SETTLED, False, JobReason.SETTLING, f"{kind} is signed and sent")
        # The intent is durable before the first byte leaves; a lost compare-and-swap ends here.
        await self.ctx.write()
        self.ctx.event("Normal", JobReason.SETTLING, f"{kind} is signed: transaction {signed.signature}")
        await self._send(transaction)
        if before is None:
            waited = self.ctx.edges.clock.now() - view.ended_at
            self.ctx.edges.metrics.finish_sent(self.ctx.run.market, waited.total_seconds())
        log.info("%s sent", kind, extra=self.ctx.fields() | {"signature": signed.signature})
        return POLL

    async def _signed(self, wallet: Wallet, sign: Sign, view: RunView) -> Signed:
        """Signed bytes that nobody has seen yet. Raises Refused."""
        chain, confirmed, published = self._on_chain(), view.confirmed, view.published
        run = confirmed.run if confirmed else UNKNOWN
        job = confirmed.job if confirmed else UNKNOWN
        if sign.kind == "quit" and isinstance(run, RunFacts):
            return await chain.sign_quit(wallet, run)
        if sign.kind == "complete" and view.finalized and isinstance(view.finalized.job, JobFacts):
            job = view.finalized.job
        if published is None or not isinstance(job, JobFacts):
            raise AssertionError(f"{sign.kind} without a result or a job account")
        if sign.kind == "complete":
            return await chain.sign_complete(wallet, job, published.digest)
        if not isinstance(run, RunFacts):
            raise AssertionError("finish without a run account")
        return await chain.sign_finish(
            wallet,
            run,
            job,
            published.digest,
            payout=view.market.payout_address if view.market else None,
            make_payer_account=sign.make_payer_account,
        )

    async def _problem(self, reason: JobReason, message: str) -> float:
        self.ctx.complain(reason, message)
        await self.ctx.write()
        return SLOW_POLL

    async def _send(self, transaction: Transaction) -> None:
        now, fields = self.ctx.edges.clock.now(), self.ctx.fields()
        try:
            await self.ctx.memory.sender.send(self._on_chain(), transaction, now, fields)
        except Refused as exc:
            # This refusal proves nothing about an earlier send; the accounts decide.
            await self._problem(JobReason.TRANSACTION_FAILED, transaction_failed(transaction.kind, str(exc)))

    # -- the end

    async def conclude(self, settled: Settled) -> float | None:
        """Record that the run is settled, and how."""
        try:
            paid = await self._paid(settled)
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return RETRY
        self.publisher.stop_pinning()
        took = self.ctx.now - self.ctx.view(self.market).ended_at
        settlement = self.ctx.record.settlement
        if paid is not None:
            settlement = (settlement or Settlement(kind="complete")).model_copy(
                update={"seconds_paid": paid.seconds, "earned": paid.earned, "refunded": paid.refunded}
            )
        if settlement is not None and await self.publisher.is_published():
            settlement = settlement.model_copy(update={"published": True})
        self.ctx.record = replace(self.ctx.record, settlement=settlement).settled_at(self.ctx.now)
        self.ctx.say(JobCondition.SETTLED, True, settled.reason, settled.message)
        await self.ctx.write()
        if paid is not None and settlement is not None:
            self.ctx.edges.metrics.settled(
                self.ctx.run.market,
                settlement.kind,
                paid.earned,
                paid.refunded,
                paid.seconds,
                took=took.total_seconds(),
            )
        self.ctx.event("Normal", settled.reason, settled.message)
        log.info("settled: %s", settled.message, extra=self.ctx.fields() | {"reason": str(settled.reason)})
        return await self.run()

    async def _paid(self, settled: Settled) -> _Pay | None:
        """What the run was paid, by the job account or, because the poster may close that at once, by our
        `finish` itself; None: neither shows it. Raises Unavailable.
        """
        if settled.paid is not None:
            return _Pay.of(settled.paid)
        settlement = self.ctx.record.settlement
        intent = settlement.transaction if settlement else None
        if self.chain is None or intent is None or settled.reason != JobReason.FINISHED:
            return None
        paid = await self.chain.paid_by(intent.signature)
        return None if paid is None else _Pay(paid[0] // max(self.ctx.run.price, 1), *paid)

    async def _may_be_open(self) -> bool:
        """Whether the abandoned run may still be open: without its NosanaJob it would be served again.

        Where the NosanaMarket is gone nobody serves it.
        """
        ref = self.ctx.run.market_ref
        market = self.ctx.market()
        if market is None or self.ctx.edges.cache.get(MARKET_KIND, ref.namespace, ref.name) is None:
            return False
        chain = self.ctx.edges.networks.chain(market.network)
        if chain is None or self._contains_run(chain.watched_runs(self.ctx.run.node)):
            return True
        return (await self.ctx.accounts(chain, finalized=True)).run is not GONE

    async def _is_watched(self) -> bool:
        """Whether the watcher still lists the closed run: without its NosanaJob it would look like a new one."""
        market = self.ctx.market()
        chain = self.ctx.edges.networks.chain(market.network) if market is not None else None
        if chain is None or not self._contains_run(chain.watched_runs(self.ctx.run.node)):
            return False
        try:
            return self._contains_run(await chain.refresh_runs(self.ctx.run.node))
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return True

    def _contains_run(self, runs: Known[tuple[RunFacts, ...]]) -> bool:
        return not isinstance(runs, Absent) and any(is_run(self.ctx.run, run) for run in runs)
