"""The settlement of a run whose job has ended: result, intent, sending, outcome.

(docs/architecture.md#why-it-cannot-pay-twice)

Gather, decide (`settle`), act. The intent is durable before the first byte leaves.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    JOB_KIND,
    MARKET_KIND,
    JobCondition,
    JobReason,
    NosanaMarketSpec,
    Settlement,
    Transaction,
    find_condition,
    parse_timestamp,
    timestamp,
)
from nosana_operator.errors import NosanaError, Refused, Unavailable
from nosana_operator.market.epochs import newest_epoch
from nosana_operator.market.facts import (
    GONE,
    Absent,
    Fate,
    JobFacts,
    Known,
    Outcome,
    PaymentFacts,
    RunFacts,
    Signed,
)
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.ports import Chain, Pinner
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.decide import (
    Accounts,
    Kind,
    Look,
    Obstacle,
    ReadFinalized,
    Resend,
    Settled,
    Sign,
    Situation,
    next_step,
    obstacle,
)
from nosana_operator.market.runs.publish import Publisher
from nosana_operator.market.runs.result import ended_at

log = logging.getLogger(__name__)

RESEND_AFTER = 2.0
"""Seconds between sends of the same bytes (docs/protocol/solana-rpc.md#sending-again)."""
POLL = 0.5
"""Seconds between looks while a transaction is under way: a slot takes 0.4."""
FINALITY_POLL = 2.0
"""Seconds between looks once a transaction is confirmed, for finality takes some 13 s, or where nobody tells."""
SOON = 1.0
SLOW_POLL = 15.0
KEEP_SETTLED = timedelta(hours=24)
"""A settled job's object stays this long (docs/architecture.md#what-stays-and-for-how-long)."""
_MAX_PAUSE = 300.0
MAX_IMPOSSIBLE_PAUSE = 3600.0
"""Seconds between looks at what keeps a run from being paid: each costs a request."""
POSTER_GRACE = timedelta(minutes=10)
"""A poster who has closed his NOS account has so long to make it again; then the run is given back unpaid."""


class _Pay(NamedTuple):
    """For a run, in NOS base units."""

    seconds: int
    earned: int
    refunded: int

    @classmethod
    def of(cls, job: JobFacts) -> _Pay:
        """By the job account."""
        earned = job.price * job.seconds_paid
        return cls(job.seconds_paid, earned, job.price * max(job.timeout, 0) - earned)


class Settler:
    """Settles the run that is looked at."""

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx
        self.publisher = Publisher(ctx)

    async def settle(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        """Take the settlement of a job that has ended a step on; the seconds until the next look."""
        unpaid = self._give_up_unpaid(market)
        digest: bytes | None = None
        if not unpaid:
            cid = await self.publisher.announced(pinner, market)
            if cid is None:
                return SOON
            digest = self.publisher.digest(pinner, cid)
        settlement = self.ctx.record.settlement
        intent = settlement.transaction if settlement else None
        outcome = Outcome(Fate.PENDING)
        if intent is not None:
            outcome = await chain.outcome(intent.signature, intent.last_valid_block_height)
        open_question = intent is None or outcome.dead
        situation = Situation(
            key=self.ctx.run.node,
            run_time=self.ctx.run_time,
            # While a transaction may still land nothing else can be done, whatever the accounts are.
            confirmed=await self.ctx.accounts(chain, finalized=False) if open_question else Accounts(),
            finalized=Accounts(),
            intent=settlement.kind if settlement and intent else None,
            outcome=outcome,
            digest=digest,
            give_up_unpaid=unpaid,
        )
        step = next_step(situation)
        if isinstance(step, ReadFinalized):
            given_back = situation.intent == "quit" and outcome.fate is Fate.FINALIZED
            accounts = await self.ctx.accounts(chain, finalized=True, given_back=given_back)
            situation = replace(situation, finalized=accounts)
            step = next_step(situation)
        match step:
            case Sign(kind):
                return await self._sign(chain, market, kind, situation, outcome)
            case Resend() if intent is not None:
                await self._send(chain, intent)
                return POLL
            case Settled():
                try:
                    sent = await self._paid_by(chain, step, intent)
                except Unavailable as exc:
                    log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
                    return SOON
                return await self.finish_record(step, sent)
            case Look(reason, message):
                log.debug("%s: %s", reason, message, extra=self.ctx.fields())
        return FINALITY_POLL if outcome.fate in (Fate.CONFIRMED, Fate.UNKNOWN) else POLL

    def _give_up_unpaid(self, market: NosanaMarketSpec) -> bool:
        """Whether the run is given back. An intent decides it once: a later edit must not contradict it."""
        if self.ctx.record.settlement is not None:
            return self.ctx.record.settlement.kind == "quit"
        accepted = find_condition(self.ctx.conditions, JobCondition.ACCEPTED)
        refused = accepted is not None and accepted.get("status") == "False"
        failed = find_condition(self.ctx.conditions, JobCondition.FAILED)
        unplaced = failed is not None and failed.get("reason") == JobReason.NO_CAPACITY
        return (refused and market.on_bad_definition == "Quit") or (
            unplaced and market.on_no_capacity == "Quit"
        )

    async def _sign(
        self, chain: Chain, market: NosanaMarketSpec, kind: Kind, situation: Situation, outcome: Outcome
    ) -> float:
        before = self.ctx.record.settlement
        failures = (before.failures or 0) if before else 0
        if before is not None and before.transaction is not None:
            words = self.ctx.memory.refused.get(before.transaction.signature)
            if outcome.fate is Fate.FAILED or words is not None:
                failures += 1
                pause = min(2.0 ** min(failures, 10), _MAX_PAUSE)
                since = (self.ctx.now - parse_timestamp(before.transaction.signed_at)).total_seconds()
                if since < pause:
                    await self._failed(before.kind, outcome.error or words or "")
                    return pause - since
        payment: PaymentFacts | None = None
        if kind == "finish":
            try:
                payment, blocked = await self._payment(chain, market, situation)
            except Unavailable as exc:
                log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
                return SOON
            if blocked is not None:
                waited = self.ctx.now - ended_at(self.ctx.body)
                if not blocked.by_poster or waited < POSTER_GRACE:
                    return await self._impossible(blocked)
                # What is lost is less than getting it would cost, and the run no longer holds a slot.
                kind, payment = "quit", None
        intent = before.transaction if before is not None else None
        epoch = self.ctx.edges.leadership.check(newest_epoch([intent] if intent is not None else []))
        signed = await self._signed(chain, market, kind, situation, payment)
        if signed is None:
            return SLOW_POLL
        self.ctx.memory.blocked = 0
        transaction = Transaction(
            kind=kind,
            key=signed.key,
            signature=signed.signature,
            raw=signed.raw,
            blockhash=signed.blockhash,
            last_valid_block_height=signed.last_valid_block_height,
            signed_at=timestamp(self.ctx.now),
            epoch=epoch,
        )
        cid = self.ctx.record.result_cid if kind != "quit" else None
        self.ctx.record = replace(
            self.ctx.record,
            result_cid=cid,
            settlement=Settlement(
                kind=kind,
                result_cid=cid,
                pinned=None if kind == "quit" else self.publisher.is_pinned(),
                transaction=transaction,
                failures=failures or None,
            ),
        )
        self.ctx.say(JobCondition.SETTLED, False, JobReason.SETTLING, f"{kind} is signed and sent")
        # The intent is durable before the first byte leaves; a lost compare-and-swap ends here.
        await self.ctx.write()
        self.ctx.event("Normal", JobReason.SETTLING, f"{kind} is signed: transaction {signed.signature}")
        await self._send(chain, transaction)
        if before is None:
            waited = self.ctx.edges.clock.now() - ended_at(self.ctx.body)
            self.ctx.edges.metrics.finish_sent(self.ctx.run.market, waited.total_seconds())
        log.info("%s sent", kind, extra=self.ctx.fields() | {"signature": signed.signature})
        return POLL

    async def _payment(
        self, chain: Chain, market: NosanaMarketSpec, situation: Situation
    ) -> tuple[PaymentFacts | None, Obstacle | None]:
        """What a `finish` would find, and what keeps it from going through. Raises Unavailable."""
        job = situation.confirmed.job
        if not isinstance(job, JobFacts):
            # Its address is the run's own, so nobody can open another there without the job's key.
            return None, Obstacle(f"the job account {self.ctx.run.job} was closed though its run is open")
        now, again_at = self.ctx.now, self.ctx.memory.look_again_at
        if again_at is not None and now < again_at:
            return None, self.ctx.memory.obstacle
        payment = await chain.read_payment(job, payout=market.payout_address)
        seconds = (now - chain.our_time(self.ctx.run_time)).total_seconds()
        return payment, obstacle(job, seconds, payment)

    async def _impossible(self, blocked: Obstacle) -> float:
        """Say why it cannot be paid now, and look again: soon at first, then by the hour."""
        memory = self.ctx.memory
        if memory.look_again_at is None or self.ctx.now >= memory.look_again_at:
            memory.blocked += 1
            pause = timedelta(seconds=min(2.0 ** min(memory.blocked, 12), MAX_IMPOSSIBLE_PAUSE))
            memory.obstacle, memory.look_again_at = blocked, self.ctx.now + pause
            if blocked.by_poster:
                # At the end of his time it is looked once more before the pay is given up.
                end = ended_at(self.ctx.body) + POSTER_GRACE
                memory.look_again_at = min(memory.look_again_at, end)
        give_up = f"or give the pay up by the annotation {ANNOTATION_ABANDON}: {self.ctx.run.run}"
        self.ctx.complain(JobReason.SETTLEMENT_IMPOSSIBLE, f"{blocked.message}; {give_up}")
        await self.ctx.write()
        return max((memory.look_again_at - self.ctx.now).total_seconds(), SOON)

    async def _signed(
        self,
        chain: Chain,
        market: NosanaMarketSpec,
        kind: Kind,
        situation: Situation,
        payment: PaymentFacts | None,
    ) -> Signed | None:
        """Signed bytes that nobody has seen yet; None when that is not possible now."""
        wallet = await self.ctx.wallet(market)
        if wallet is None:
            message = (
                f"the key {self.ctx.run.node} is in no Secret of the NosanaMarket; put it back to be paid"
            )
            self.ctx.complain(JobReason.WALLET_MISSING, message)
            await self.ctx.write()
            return None
        run, job, digest = situation.confirmed.run, situation.confirmed.job, situation.digest
        if kind == "complete" and isinstance(situation.finalized.job, JobFacts):
            job = situation.finalized.job
        try:
            if kind == "quit" and isinstance(run, RunFacts):
                return await chain.sign_quit(wallet, run)
            if digest is not None and isinstance(job, JobFacts):
                if kind == "complete":
                    return await chain.sign_complete(wallet, job, digest)
                if kind == "finish" and isinstance(run, RunFacts) and payment is not None:
                    return await chain.sign_finish(
                        wallet,
                        run,
                        job,
                        digest,
                        payout=market.payout_address,
                        make_payer_account=not payment.payer_account,
                    )
        except Refused as exc:
            await self._failed(kind, str(exc))
            return None
        return None

    async def _failed(self, kind: str, words: str) -> None:
        message = f"{kind} failed: {words}; tried again"
        self.ctx.complain(JobReason.TRANSACTION_FAILED, message)
        await self.ctx.write()

    async def _send(self, chain: Chain, transaction: Transaction) -> None:
        now = self.ctx.edges.clock.now().timestamp()
        signature = transaction.signature
        last = self.ctx.memory.sent_at.get(signature)
        if last is not None and now - last < RESEND_AFTER:
            return
        self.ctx.memory.sent_at[signature] = now
        try:
            await chain.send(transaction.raw, first=signature not in self.ctx.memory.accepted)
        except Refused as exc:
            # Whatever it says of this send, the accounts decide.
            self.ctx.memory.refused[signature] = str(exc)
            await self._failed(transaction.kind, str(exc))
            return
        except NosanaError as exc:
            log.warning("%s not taken: %s", transaction.kind, exc, extra=self.ctx.fields())
            return
        self.ctx.memory.refused.pop(signature, None)
        self.ctx.memory.accepted.add(signature)

    async def _paid_by(self, chain: Chain, settled: Settled, intent: Transaction | None) -> _Pay | None:
        """What our `finish` paid, by the transaction: the poster may close his job account at once.

        None: the account tells, or nothing does. Raises Unavailable.
        """
        if settled.paid is not None or intent is None or settled.reason != JobReason.FINISHED:
            return None
        paid = await chain.paid_by(intent.signature)
        return None if paid is None else _Pay(paid[0] // max(self.ctx.run.price, 1), *paid)

    async def finish_record(self, settled: Settled, paid: _Pay | None = None) -> float | None:
        """Write that it is settled, and how; `paid`: what is known of it where no job account tells."""
        settlement = self.ctx.record.settlement
        if settled.paid is not None:
            paid = _Pay.of(settled.paid)
        if paid is not None:
            settlement = (settlement or Settlement(kind="complete")).model_copy(
                update={"seconds_paid": paid.seconds, "earned": paid.earned, "refunded": paid.refunded}
            )
        self.ctx.record = replace(self.ctx.record, settlement=settlement)
        if await self.publisher.is_published() and settlement is not None:
            settlement = settlement.model_copy(update={"published": True})
            self.ctx.record = replace(self.ctx.record, settlement=settlement)
        self.ctx.record = self.ctx.record.settled_at(self.ctx.now)
        self.ctx.say(JobCondition.SETTLED, True, settled.reason, settled.message)
        await self.ctx.write()
        if paid is not None and settlement is not None:
            self.ctx.edges.metrics.settled(
                self.ctx.run.market,
                settlement.kind,
                paid.earned,
                paid.refunded,
                paid.seconds,
                took=(self.ctx.now - ended_at(self.ctx.body)).total_seconds(),
            )
        self.ctx.event("Normal", settled.reason, settled.message)
        log.info("settled: %s", settled.message, extra=self.ctx.fields() | {"reason": str(settled.reason)})
        return await self.after_settlement()

    async def after_settlement(self) -> float | None:
        """Pin what is not pinned yet, then let the object go: when it is deleted, or after a day.

        That of an abandoned run stays for as long as the run is open.
        """
        settled_at = parse_timestamp(self.ctx.record.settled) if self.ctx.record.settled else self.ctx.now
        remaining = (settled_at + KEEP_SETTLED - self.ctx.now).total_seconds()
        again = await self.publisher.go_on() if remaining > 0 else None
        # Somebody who deletes it waits for its result to be kept elsewhere, not for slow gateways.
        if again is not None and not (self.ctx.deleting() and self.publisher.is_pinned()):
            return min(again, remaining)
        self.ctx.memory.result.forget()
        if not self.ctx.deleting() and remaining > 0:
            return remaining
        if self._abandoned() and await self._still_open():
            return SLOW_POLL if self.ctx.deleting() else MAX_IMPOSSIBLE_PAUSE
        if self.ctx.deleting():
            if await self._still_shown():
                return SOON
            await self.ctx.release()
            return None
        await self.ctx.edges.kube.delete(
            JOB_KIND, self.ctx.meta["namespace"], self.ctx.meta["name"], uid=self.ctx.meta["uid"]
        )
        return None

    def _abandoned(self) -> bool:
        settled = find_condition(self.ctx.record.conditions, JobCondition.SETTLED)
        return settled is not None and settled["reason"] == JobReason.ABANDONED

    async def _still_open(self) -> bool:
        """Whether the abandoned run may be open yet: whoever finds it without its NosanaJob serves it again.

        Where there is no NosanaMarket any more nobody does.
        """
        ref = self.ctx.run.market_ref
        market = self.ctx.market()
        if market is None or self.ctx.edges.cache.get(MARKET_KIND, ref.namespace, ref.name) is None:
            return False
        chain = self.ctx.edges.networks.chain(market.network)
        if chain is None or self._shows_run(chain.watched_runs(self.ctx.run.node)):
            return True
        return (await self.ctx.accounts(chain, finalized=True)).run is not GONE

    async def _still_shown(self) -> bool:
        """Whether the watcher shows the closed run yet: without its NosanaJob it would be taken for new."""
        market = self.ctx.market()
        chain = self.ctx.edges.networks.chain(market.network) if market is not None else None
        if chain is None or not self._shows_run(chain.watched_runs(self.ctx.run.node)):
            return False
        try:
            return self._shows_run(await chain.refresh_runs(self.ctx.run.node))
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.ctx.fields())
            return True

    def _shows_run(self, runs: Known[tuple[RunFacts, ...]]) -> bool:
        return not isinstance(runs, Absent) and any(is_run(self.ctx.run, run) for run in runs)
