"""One run from verification to settlement: gather, decide (`verify`, `follow`, `settle`), act.

Keyed on the NosanaJob of the run. Everything needed to go on after a crash stands in the NosanaJob's status
and on chain; what is kept here are caches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    MANAGER_MARKET,
    MARKET_KIND,
    ApiError,
    JobCondition,
    JobReason,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    Settlement,
    Transaction,
    find,
    is_true,
    parse_timestamp,
    read,
    timestamp,
)
from nosana_operator.api.result import read_result
from nosana_operator.errors import Conflict, NosanaError, NotFound, Unavailable
from nosana_operator.market.facts import GONE, UNKNOWN, Absent, Fate, JobFacts, Known, Outcome, RunFacts
from nosana_operator.market.follow import follow
from nosana_operator.market.ports import Body, Chain, Edges, Pinner
from nosana_operator.market.record import JobRecord
from nosana_operator.market.settle import (
    Accounts,
    Kind,
    Look,
    ReadFinalized,
    Resend,
    Settled,
    Sign,
    Situation,
    next_step,
)
from nosana_operator.market.verify import verify
from nosana_operator.market.wallets import Wallets

log = logging.getLogger(__name__)

RESEND_AFTER = 2.0
"""Seconds between sends of the same bytes (python-solana.md §6.5)."""
POLL = 0.5
"""Seconds between looks while a transaction is under way: a slot takes 0.4."""
SLOW_POLL = 15.0
PIN_GRACE = timedelta(seconds=30)
"""A pin outage delays the settlement at most so long; the pin then goes on afterwards."""
KEEP_SETTLED = timedelta(hours=24)
"""A settled job's object stays this long (DESIGN 5)."""


@dataclass(slots=True)
class _Memory:
    """Caches of one run; losing them costs only time."""

    result: bytes | None = None
    pinned: bool = False
    sent_at: dict[str, float] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    """Signatures that a node has taken: sent again without preflight."""


class RunKeeper:
    """Verifies, follows and settles the runs of all markets."""

    def __init__(self, edges: Edges, wallets: Wallets) -> None:
        self._edges = edges
        self._wallets = wallets
        self._memory: dict[str, _Memory] = {}

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Take the run of NosanaJob `(namespace, name)` a step on; the seconds until the next look."""
        body = self._edges.cache.get(JOB_KIND, *key)
        if body is None:
            return None
        try:
            spec = read(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
            if spec.run is None:
                return None
            memory = self._memory.setdefault(body["metadata"]["uid"], _Memory())
            return await _Pass(self._edges, self._wallets, memory, dict(body), spec, spec.run).go()
        except ApiError as exc:
            log.warning("run not looked at: %s", exc, extra={"job": f"{key[0]}/{key[1]}"})
            return None
        except Conflict:
            # Somebody wrote in between: what was decided is stale. The watch brings the newer object.
            return 0.1

    def forget(self, uid: str) -> None:
        """Drop the caches of an object that is gone."""
        self._memory.pop(uid, None)


class _Pass:
    """One reconcile of one run."""

    def __init__(
        self, edges: Edges, wallets: Wallets, memory: _Memory, body: Body, spec: NosanaJobSpec, run: Run
    ) -> None:
        self.edges = edges
        self.wallets = wallets
        self.memory = memory
        self.body = body
        self.spec = spec
        self.run = run
        self.record = JobRecord.of(body)
        self.meta: Mapping[str, Any] = body["metadata"]
        self.generation = int(self.meta.get("generation", 0))
        self.conditions = (body.get("status") or {}).get("conditions")
        self.now = edges.clock.now()

    # -- the way ------------------------------------------------------------------------------------------

    async def go(self) -> float | None:
        if is_true(self.record.conditions, JobCondition.SETTLED):
            return await self._after_settlement()
        if self.meta.get("annotations", {}).get(ANNOTATION_ABANDON) == self.run.run:
            return await self._finish_record(
                Settled(JobReason.ABANDONED, "an admin gave up the pay of this run by annotation")
            )
        market = self._market()
        if market is None:
            return await self._unverifiable(
                f"there is no NosanaMarket {self.run.market_ref.namespace}/{self.run.market_ref.name}"
            )
        chain = self.edges.networks.chain(market.network)
        pinner = self.edges.networks.pinner(market.network)
        if chain is None or pinner is None:
            return SLOW_POLL
        if not is_true(self.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._verify(chain, pinner, market)
        if not self._ended():
            self._follow(chain, self._watched_run(chain), chain.watched_job(self.run.job))
            await self._write()
            return SLOW_POLL
        return await self._settle(chain, pinner, market)

    def _market(self) -> NosanaMarketSpec | None:
        ref = self.run.market_ref
        found = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        return None if found is None else read(NosanaMarketSpec, MARKET_KIND, "spec", found["spec"])

    def _ended(self) -> bool:
        return is_true(self.conditions, JobCondition.COMPLETE) or is_true(
            self.conditions, JobCondition.FAILED
        )

    # -- verification -------------------------------------------------------------------------------------

    async def _verify(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        run, job = self._watched_run(chain), chain.watched_job(self.run.job)
        if isinstance(run, Absent) or isinstance(job, Absent):
            # The watcher may not follow it yet, or lag: what decides is asked for.
            found = await self._accounts(chain, finalized=False)
            run, job = found.run, found.job
        wallets = await self._keys(market)
        verdict = verify(
            self.run,
            self.spec.definition_from.model_dump() if self.spec.definition_from else {},
            definition_cid=pinner.cid_from_digest(job.ipfs_job) if isinstance(job, JobFacts) else None,
            market_address=market.address,
            keys=wallets,
            run=run,
            job=job,
        )
        self.record = self.record.with_condition(
            JobCondition.RUN_VERIFIED,
            verdict.ok,
            verdict.reason,
            verdict.message,
            generation=self.generation,
            now=self.now,
        )
        if verdict.ok:
            self._follow(chain, run, job)
        elif verdict.ok is False and self._deleting():
            await self._release()
            return None
        await self._write()
        return None if verdict.ok else (1.0 if verdict.ok is None else SLOW_POLL)

    async def _unverifiable(self, why: str) -> float | None:
        if not is_true(self.record.conditions, JobCondition.RUN_VERIFIED):
            self.record = self.record.with_condition(
                JobCondition.RUN_VERIFIED,
                False,
                JobReason.RUN_MISMATCH,
                f"{why}; this job will not be run",
                generation=self.generation,
                now=self.now,
            )
            if self._deleting():
                await self._release()
            return None
            await self._write()
        return SLOW_POLL

    async def _keys(self, market: NosanaMarketSpec) -> frozenset[str]:
        if self.wallets.get(self.run.node) is None:
            await self.wallets.load(self.run.market_ref.namespace, market)
        return frozenset({self.run.node} if self.wallets.get(self.run.node) else ())

    # -- following ----------------------------------------------------------------------------------------

    def _watched_run(self, chain: Chain) -> Known[RunFacts]:
        runs = chain.watched_runs(self.run.node)
        if isinstance(runs, Absent):
            return runs
        return next((run for run in runs if run.address == self.run.run), GONE)

    def _follow(self, chain: Chain, run: Known[RunFacts], job: Known[JobFacts]) -> None:
        status = follow(
            self.record.run,
            key=self.run.node,
            run_time=int(parse_timestamp(self.run.started_at).timestamp()),
            run=run,
            job=job,
            settling=self.record.settlement is not None,
            our_time=chain.our_time,
        )
        self.record = replace(self.record, run=status)

    # -- settlement ---------------------------------------------------------------------------------------

    async def _settle(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        unpaid = self._give_up_unpaid(market)
        digest: bytes | None = None
        if not unpaid:
            cid = self.record.result_cid or await self._result_cid(pinner)
            if cid is None:
                return 1.0
            digest = pinner.digest_of(cid)
            self.record = replace(self.record, result_cid=cid)
            if not await self._pinned(pinner, cid) and self.now - self._ended_at() < PIN_GRACE:
                return 1.0
        intent = self.record.settlement.transaction if self.record.settlement else None
        outcome = Outcome(Fate.PENDING)
        if intent is not None:
            outcome = await chain.outcome(intent.signature, intent.last_valid_block_height)
        situation = Situation(
            key=self.run.node,
            confirmed=await self._accounts(chain, finalized=False),
            finalized=Accounts(),
            intent=self.record.settlement.kind if intent and self.record.settlement else None,
            outcome=outcome,
            digest=digest,
            give_up_unpaid=unpaid,
        )
        step = next_step(situation)
        if isinstance(step, ReadFinalized):
            situation = replace(situation, finalized=await self._accounts(chain, finalized=True))
            step = next_step(situation)
        match step:
            case Sign(kind):
                return await self._sign(chain, market, kind, situation, outcome)
            case Resend():
                assert intent is not None  # noqa: S101 - next_step resends only what exists
                await self._send(chain, intent)
                return POLL
            case Settled():
                return await self._finish_record(step)
            case Look(reason, message):
                log.debug("%s: %s", reason, message, extra=self._fields())
        return POLL

    def _give_up_unpaid(self, market: NosanaMarketSpec) -> bool:
        accepted = find(self.conditions, JobCondition.ACCEPTED)
        refused = accepted is not None and accepted.get("status") == "False"
        return refused and market.on_bad_definition == "Quit"

    def _ended_at(self) -> Any:
        ended = ((self.body.get("status") or {}).get("timing") or {}).get("ended")
        return parse_timestamp(ended) if ended else self.now

    async def _result_bytes(self) -> bytes | None:
        if self.memory.result is None:
            names = (self.body.get("status") or {}).get("resultSecrets") or []
            try:
                secrets = [await self.edges.kube.get("Secret", self.meta["namespace"], n) for n in names]
            except NotFound:
                return None
            self.memory.result = read_result(secrets) if secrets else None
        return self.memory.result

    async def _result_cid(self, pinner: Pinner) -> str | None:
        data = await self._result_bytes()
        if data is None:
            log.error("the result's Secrets are missing; the run cannot be settled", extra=self._fields())
            return None
        return pinner.cid_of(data)

    async def _pinned(self, pinner: Pinner, cid: str) -> bool:
        if self.record.settlement is not None and self.record.settlement.pinned:
            return True
        if self.memory.pinned:
            return True
        data = await self._result_bytes()
        if data is None:
            return False
        try:
            await pinner.pin(data, name=f"{self.meta['namespace']}-{self.meta['name']}")
        except NosanaError as exc:
            log.warning("result not pinned yet: %s", exc, extra=self._fields())
            return False
        self.memory.pinned = True
        return True

    async def _accounts(self, chain: Chain, *, finalized: bool) -> Accounts:
        run: Known[RunFacts] = UNKNOWN
        job: Known[JobFacts] = UNKNOWN
        try:
            run = await chain.read_run(self.run.run, finalized=finalized) or GONE
            job = await chain.read_job(self.run.job, finalized=finalized) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self._fields())
        return Accounts(run, job)

    async def _sign(
        self, chain: Chain, market: NosanaMarketSpec, kind: Kind, situation: Situation, outcome: Outcome
    ) -> float:
        before = self.record.settlement
        failures = (before.failures or 0) if before else 0
        if outcome.fate is Fate.FAILED:
            failures += 1
        if before and before.transaction and failures:
            pause = timedelta(seconds=min(2.0**failures, 300))
            remaining = (parse_timestamp(before.transaction.signed_at) + pause - self.now).total_seconds()
            if remaining > 0:
                self._say(
                    JobReason.TRANSACTION_FAILED, f"{before.kind} failed: {outcome.error}; tried again soon"
                )
                await self._write()
                return remaining
        wallet = self.wallets.get(self.run.node)
        if wallet is None:
            await self._keys(market)
            wallet = self.wallets.get(self.run.node)
        if wallet is None:
            self._say(
                JobReason.WALLET_MISSING,
                f"the key {self.run.node} is in no Secret of the NosanaMarket; put it back to be paid",
            )
            await self._write()
            return SLOW_POLL
        run, job = situation.confirmed.run, situation.confirmed.job
        if kind == "complete" and isinstance(job, JobFacts) and situation.digest is not None:
            signed = await chain.sign_complete(wallet, job, situation.digest)
        elif kind == "quit" and isinstance(run, RunFacts):
            signed = await chain.sign_quit(wallet, run)
        elif isinstance(run, RunFacts) and isinstance(job, JobFacts) and situation.digest is not None:
            signed = await chain.sign_finish(wallet, run, job, situation.digest)
        else:
            return POLL
        transaction = Transaction(
            kind=kind,
            key=signed.key,
            signature=signed.signature,
            raw=signed.raw,
            blockhash=signed.blockhash,
            last_valid_block_height=signed.last_valid_block_height,
            signed_at=timestamp(self.now),
        )
        self.record = replace(
            self.record,
            settlement=Settlement(
                kind=kind,
                result_cid=self.record.result_cid if kind != "quit" else None,
                pinned=None if kind == "quit" else self.memory.pinned,
                transaction=transaction,
                failures=failures or None,
            ),
        )
        self._say(JobReason.SETTLING, f"{kind} is signed and sent")
        # The intent is durable before the first byte leaves (DESIGN 4); a lost compare-and-swap ends here.
        await self._write()
        await self._send(chain, transaction)
        self.edges.metrics.finish_sent(
            self.run.market, (self.edges.clock.now() - self._ended_at()).total_seconds()
        )
        log.info("%s sent", kind, extra=self._fields() | {"signature": signed.signature})
        return POLL

    async def _send(self, chain: Chain, transaction: Transaction) -> None:
        now = self.edges.clock.now().timestamp()
        last = self.memory.sent_at.get(transaction.signature)
        if last is not None and now - last < RESEND_AFTER:
            return
        self.memory.sent_at[transaction.signature] = now
        try:
            await chain.send(transaction.raw, first=transaction.signature not in self.memory.accepted)
        except NosanaError as exc:
            # Whatever it says of this send, the accounts decide.
            log.warning("%s not taken: %s", transaction.kind, exc, extra=self._fields())
            return
        self.memory.accepted.add(transaction.signature)

    async def _finish_record(self, settled: Settled) -> float | None:
        settlement = self.record.settlement
        paid = settled.paid
        if paid is not None:
            earned = paid.price * paid.seconds_paid
            refunded = paid.price * max(paid.timeout, 0) - earned
            amounts = {"seconds_paid": paid.seconds_paid, "earned": earned, "refunded": refunded}
            base = settlement or Settlement(kind="finish", result_cid=self.record.result_cid)
            settlement = base.model_copy(update=amounts)
            self.edges.metrics.settled(self.run.market, settlement.kind, earned, refunded, paid.seconds_paid)
        self.record = replace(self.record, settlement=settlement).settled_at(self.now)
        self.record = self.record.with_condition(
            JobCondition.SETTLED,
            True,
            settled.reason,
            settled.message,
            generation=self.generation,
            now=self.now,
        )
        await self._write()
        self._event("Normal", settled.reason, settled.message)
        log.info("settled: %s", settled.message, extra=self._fields() | {"reason": str(settled.reason)})
        return await self._after_settlement()

    async def _after_settlement(self) -> float | None:
        if self._deleting():
            await self._release()
            return None
        settlement = self.record.settlement
        market = self._market()
        pinner = self.edges.networks.pinner(market.network) if market else None
        if settlement and settlement.pinned is False and settlement.kind != "quit" and pinner:
            cid = self.record.result_cid
            if cid is None or not await self._pinned(pinner, cid):
                return SLOW_POLL
            self.record = replace(self.record, settlement=settlement.model_copy(update={"pinned": True}))
            await self._write()
        self.memory.result = None
        settled_at = parse_timestamp(self.record.settled) if self.record.settled else self.now
        remaining = (settled_at + KEEP_SETTLED - self.now).total_seconds()
        if remaining > 0:
            return remaining
        await self.edges.kube.delete(
            JOB_KIND, self.meta["namespace"], self.meta["name"], uid=self.meta["uid"]
        )
        return None

    # -- writing ------------------------------------------------------------------------------------------

    def _say(self, reason: JobReason, message: str) -> None:
        self.record = self.record.with_condition(
            JobCondition.SETTLED, False, reason, message, generation=self.generation, now=self.now
        )

    async def _write(self) -> None:
        if self.record == JobRecord.of(self.body):
            return
        reply = await self.edges.kube.apply(
            self.record.apply_body(self.body), manager=MANAGER_MARKET, subresource="status"
        )
        self.edges.cache.put(reply)
        self.body = reply
        self.meta = reply["metadata"]

    def _deleting(self) -> bool:
        return bool(self.meta.get("deletionTimestamp"))

    async def _release(self) -> None:
        kept = [f for f in self.meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
        if len(kept) != len(self.meta.get("finalizers", [])):
            self.edges.cache.put(
                await self.edges.kube.patch(
                    JOB_KIND,
                    self.meta["namespace"],
                    self.meta["name"],
                    {"metadata": {"finalizers": kept, "resourceVersion": self.meta["resourceVersion"]}},
                )
            )

    def _event(self, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        self.edges.events.event(self.body, type=kind, reason=reason, action="Settle", note=note)

    def _fields(self) -> dict[str, str]:
        return {
            "job": f"{self.meta['namespace']}/{self.meta['name']}",
            "run": self.run.run,
            "market": self.run.market,
        }
