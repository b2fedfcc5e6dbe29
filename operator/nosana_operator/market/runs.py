"""One run from verification to settlement: gather, decide (`verify`, `follow`, `settle`), act.

Keyed on the NosanaJob of the run. Everything needed to go on after a crash stands in the NosanaJob's status
and on chain; what is kept here are caches.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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
    MarketReason,
    NosanaJobSpec,
    NosanaJobStatus,
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
from nosana_operator.errors import Conflict, NosanaError, Refused, Unavailable
from nosana_operator.market.facts import (
    GONE,
    STOPPED,
    UNKNOWN,
    Absent,
    Fate,
    JobFacts,
    Known,
    Outcome,
    RunFacts,
    Signed,
)
from nosana_operator.market.follow import follow
from nosana_operator.market.ports import Body, Chain, Edges, Pinner, Wallet
from nosana_operator.market.record import JobRecord
from nosana_operator.market.report import newest_epoch
from nosana_operator.market.results import KeptResult, ended_at, pin, result_bytes
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
from nosana_operator.market.verify import is_run, misplaced, verify
from nosana_operator.market.wallets import Wallets

log = logging.getLogger(__name__)

RESEND_AFTER = 2.0
"""Seconds between sends of the same bytes (python-solana.md §6.5)."""
POLL = 0.5
"""Seconds between looks while a transaction is under way: a slot takes 0.4."""
FINALITY_POLL = 2.0
"""Seconds between looks once a transaction is confirmed: finality takes some 13 s."""
SOON = 1.0
SLOW_POLL = 15.0
PIN_GRACE = timedelta(seconds=30)
"""A pin outage delays the settlement at most so long; the pin then goes on afterwards."""
LATER_PIN = 60.0
"""Seconds that one attempt at such a later pin may take."""
KEEP_SETTLED = timedelta(hours=24)
"""A settled job's object stays this long (DESIGN 5)."""
YOUNG = timedelta(seconds=30)
"""RPC nodes lag, finality by some 13 s: of a run as young as this, absence alone means nothing."""
_MAX_PAUSE = 300.0


@dataclass(slots=True)
class _Memory:
    """Caches of one run; losing them costs only time."""

    uid: str
    market: NosanaMarketSpec | None = None
    """The NosanaMarket as last seen: its runs still settle when somebody deletes it by force."""
    result: KeptResult = field(default_factory=KeptResult)
    digest: tuple[str, bytes] | None = None
    """The result's CID and what stands on chain for it."""
    sent_at: dict[str, float] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    """Signatures that a node has taken: sent again without preflight."""
    refused: dict[str, str] = field(default_factory=dict)
    """Signatures that the preflight has refused, with its words."""


class RunKeeper:
    """Verifies, follows and settles the runs of all markets."""

    def __init__(self, edges: Edges, wallets: Wallets) -> None:
        self._edges = edges
        self._wallets = wallets
        self._memory: dict[tuple[str, str], _Memory] = {}

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Take the run of NosanaJob `(namespace, name)` a step on; the seconds until the next look."""
        body = self._edges.cache.get(JOB_KIND, *key)
        if body is None:
            self._memory.pop(key, None)
            return None
        try:
            spec = read(NosanaJobSpec, JOB_KIND, "spec", body["spec"])
            if spec.run is None:
                return None
            memory = self._memory.get(key)
            if memory is None or memory.uid != body["metadata"]["uid"]:
                memory = self._memory[key] = _Memory(body["metadata"]["uid"])
            return await _Pass(self._edges, self._wallets, memory, dict(body), spec, spec.run).go()
        except ApiError as exc:
            log.warning("run not looked at: %s", exc, extra={"job": f"{key[0]}/{key[1]}"})
            return None
        except Conflict:
            # Somebody wrote in between: what was decided is stale. The watch brings the newer object.
            return 0.1


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
        self.run_time = int(parse_timestamp(run.started_at).timestamp())
        self.record = JobRecord.of(body)
        self.meta: Mapping[str, Any] = body["metadata"]
        self.generation = int(self.meta.get("generation", 0))
        self.conditions = (body.get("status") or {}).get("conditions")
        self.now = edges.clock.now()

    # -- the way ------------------------------------------------------------------------------------------

    async def go(self) -> float | None:
        if is_true(self.record.conditions, JobCondition.SETTLED):
            return await self._after_settlement()
        if (self.meta.get("annotations") or {}).get(ANNOTATION_ABANDON) == self.run.run:
            return await self._finish_record(
                Settled(JobReason.ABANDONED, "an admin gave up the pay of this run by annotation")
            )
        market = self._market()
        if market is None:
            return await self._without_market()
        wrong = misplaced(self.meta["namespace"], self.meta["name"], self.run, market)
        if wrong is not None:
            return await self._refuse(f"{wrong}; this job will not be run")
        chain = self.edges.networks.chain(market.network)
        pinner = self.edges.networks.pinner(market.network)
        if chain is None or pinner is None:
            return await self._stuck(
                JobReason.CHAIN_UNAVAILABLE,
                f"network {market.network!r} is not in the operator's settings; put it back",
            )
        if not is_true(self.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._verify(chain, pinner, market)
        if not self._ended():
            return await self._follow(chain)
        return await self._settle(chain, pinner, market)

    def _market(self) -> NosanaMarketSpec | None:
        ref = self.run.market_ref
        found = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if found is not None:
            try:
                self.memory.market = read(NosanaMarketSpec, MARKET_KIND, "spec", found["spec"])
            except ApiError:
                if self.memory.market is None:
                    raise
        return self.memory.market

    def _ended(self) -> bool:
        return is_true(self.conditions, JobCondition.COMPLETE) or is_true(
            self.conditions, JobCondition.FAILED
        )

    # -- verification -------------------------------------------------------------------------------------

    async def _verify(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        run, job = self._watched_run(chain), chain.watched_job(self.run.job)
        if isinstance(run, Absent) or not self._young(chain):
            # The watcher may not follow it yet, or lag. A run that was just notified is taken at its word,
            # because its paid time runs; an older one may be closed since.
            run = await self._read_run(chain)
        if not isinstance(job, JobFacts):
            job = await self._read_job(chain)
        keys, complete = await self._keys(market)
        verdict = verify(
            self.spec,
            self.run,
            market,
            definition_cid=pinner.cid_from_digest(job.ipfs_job) if isinstance(job, JobFacts) else None,
            keys=keys,
            keys_complete=complete,
            run=run,
            job=job,
        )
        self._say(JobCondition.RUN_VERIFIED, verdict.ok, verdict.reason, verdict.message)
        if verdict.ok:
            created = parse_timestamp(self.meta["creationTimestamp"])
            seen = chain.run_seen_at(self.run.run)
            # After a restart "first seen" is when this process first looked: the object tells more then.
            known = seen is not None and seen < created + timedelta(seconds=1)
            self.record = self.record.matched_at(seen if known and seen is not None else created)
            self._take(chain, run, job)
            await self._write()
            return SLOW_POLL
        if verdict.reason == JobReason.RUN_NOT_FOUND:
            over = await self._over_before(chain)
            if over is not None:
                return await self._finish_record(over)
        if verdict.ok is False and self._deleting():
            await self._release()
            return None
        await self._write()
        return SOON if verdict.ok is None or self._young(chain) else SLOW_POLL

    async def _over_before(self, chain: Chain) -> Settled | None:
        """The run ended before it could be verified: finality has to say so."""
        if FINALIZER_SETTLEMENT not in (self.meta.get("finalizers") or ()):
            # Not of the market host's making: it stays where its author put it.
            return None
        situation = Situation(
            key=self.run.node,
            run_time=self.run_time,
            confirmed=await self._accounts(chain, finalized=False),
            finalized=await self._accounts(chain, finalized=True),
            intent=None,
            outcome=Outcome(Fate.PENDING),
            digest=None,
        )
        step = next_step(situation)
        return step if isinstance(step, Settled) else None

    async def _refuse(self, why: str) -> float | None:
        self._say(JobCondition.RUN_VERIFIED, False, JobReason.RUN_MISMATCH, why)
        if self._deleting():
            await self._release()
            return None
        await self._write()
        # Its NosanaMarket may yet come: that is no change of this object.
        return SLOW_POLL

    async def _without_market(self) -> float | None:
        """Its NosanaMarket is not there: never was, or was deleted by force before this process began."""
        ref = self.run.market_ref
        why = f"there is no NosanaMarket {ref.namespace}/{ref.name}"
        if not is_true(self.record.conditions, JobCondition.RUN_VERIFIED):
            return await self._refuse(f"{why}; this job will not be run")
        return await self._stuck(
            JobReason.WALLET_MISSING,
            f"{why}; make it again to be paid, or annotate {ANNOTATION_ABANDON}: {self.run.run}",
        )

    async def _stuck(self, reason: JobReason, message: str) -> float | None:
        """Nothing can be done on chain for now: say so where a payment waits for it."""
        if self._ended():
            self._say(JobCondition.SETTLED, False, reason, message)
            await self._write()
        return SLOW_POLL

    async def _keys(self, market: NosanaMarketSpec) -> tuple[set[str], bool]:
        """Addresses of the NosanaMarket's keys, and whether all of them are known."""
        ref = self.run.market_ref
        body = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if body is None:
            found = self.wallets.key(self.run.node, ref.namespace, market)
            return ({found.address} if found else set()), False
        loaded = await self.wallets.of_market(body, market)
        keys = {one.wallet.address for one in loaded if one.wallet is not None}
        return keys, all(one.wallet or one.reason == MarketReason.WALLET_SHARED for one in loaded)

    # -- following ----------------------------------------------------------------------------------------

    async def _follow(self, chain: Chain) -> float:
        run, job = self._watched_run(chain), chain.watched_job(self.run.job)
        if isinstance(run, RunFacts) and not is_run(self.run, run):
            run = GONE
        if run is GONE:
            # Ending a job cannot be taken back, and the snapshot may be older than the run.
            found = await self._accounts(chain, finalized=False)
            run, job = found.run, found.job
        self._take(chain, run, job)
        await self._write()
        return SLOW_POLL

    def _take(self, chain: Chain, run: Known[RunFacts], job: Known[JobFacts]) -> None:
        status = follow(
            self.record.run,
            key=self.run.node,
            run_time=self.run_time,
            run=run,
            job=job,
            young=self._young(chain),
            our_time=chain.our_time,
        )
        self.record = replace(self.record, run=status)

    def _young(self, chain: Chain) -> bool:
        return self.now - chain.our_time(self.run_time) < YOUNG

    def _watched_run(self, chain: Chain) -> Known[RunFacts]:
        """Whatever the watcher has at the run's address."""
        runs = chain.watched_runs(self.run.node)
        if isinstance(runs, Absent):
            return runs
        return next((run for run in runs if run.address == self.run.run), GONE)

    async def _read_run(self, chain: Chain) -> Known[RunFacts]:
        try:
            return await chain.read_run(self.run.run) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self._fields())
            return UNKNOWN

    async def _read_job(self, chain: Chain) -> Known[JobFacts]:
        try:
            return await chain.read_job(self.run.job) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self._fields())
            return UNKNOWN

    async def _accounts(self, chain: Chain, *, finalized: bool, given_back: bool = False) -> Accounts:
        """Run and job as the chain has them now; `given_back`: our `quit` is known to be finalized."""
        run: Known[RunFacts] = UNKNOWN
        job: Known[JobFacts] = UNKNOWN
        try:
            # The time first: what is read after it is at least as new. Likewise the run before the job, which
            # tells how the run ended.
            until = await chain.finalized_time() if finalized else None
            run = await chain.read_run(self.run.run, finalized=finalized) or GONE
            job = await chain.read_job(self.run.job, finalized=finalized) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self._fields())
            return Accounts(run if isinstance(run, RunFacts) else UNKNOWN, UNKNOWN)
        if isinstance(run, RunFacts) and not is_run(self.run, run):
            run = GONE
        over = isinstance(job, JobFacts) and (
            job.tells_of(self.run.node, self.run_time) or (given_back and job.state == STOPPED)
        )
        if until is not None and until < self.run_time + YOUNG.total_seconds() and not over:
            # Not there yet is not gone, unless the job account has the run's end: a short job keeps its slot
            # no longer than finality takes.
            run = UNKNOWN if run is GONE else run
            job = UNKNOWN if job is GONE else job
        return Accounts(run, job)

    # -- settlement ---------------------------------------------------------------------------------------

    async def _settle(self, chain: Chain, pinner: Pinner, market: NosanaMarketSpec) -> float | None:
        unpaid = self._give_up_unpaid(market)
        digest: bytes | None = None
        if not unpaid:
            cid = await self._announced(pinner)
            if cid is None:
                return SOON
            digest = self._digest(pinner, cid)
        settlement = self.record.settlement
        intent = settlement.transaction if settlement else None
        outcome = Outcome(Fate.PENDING)
        if intent is not None:
            outcome = await chain.outcome(intent.signature, intent.last_valid_block_height)
        open_question = intent is None or outcome.dead
        situation = Situation(
            key=self.run.node,
            run_time=self.run_time,
            # While a transaction may still land nothing else can be done, whatever the accounts are.
            confirmed=await self._accounts(chain, finalized=False) if open_question else Accounts(),
            finalized=Accounts(),
            intent=settlement.kind if settlement and intent else None,
            outcome=outcome,
            digest=digest,
            give_up_unpaid=unpaid,
        )
        step = next_step(situation)
        if isinstance(step, ReadFinalized):
            given_back = situation.intent == "quit" and outcome.fate is Fate.FINALIZED
            accounts = await self._accounts(chain, finalized=True, given_back=given_back)
            situation = replace(situation, finalized=accounts)
            step = next_step(situation)
        match step:
            case Sign(kind):
                return await self._sign(chain, market, kind, situation, outcome)
            case Resend() if intent is not None:
                await self._send(chain, intent)
                return POLL
            case Settled():
                return await self._finish_record(step)
            case Look(reason, message):
                log.debug("%s: %s", reason, message, extra=self._fields())
        return FINALITY_POLL if outcome.fate is Fate.CONFIRMED else POLL

    def _give_up_unpaid(self, market: NosanaMarketSpec) -> bool:
        """Whether the run is given back. An intent decides it once: a later edit must not contradict it."""
        if self.record.settlement is not None:
            return self.record.settlement.kind == "quit"
        accepted = find(self.conditions, JobCondition.ACCEPTED)
        refused = accepted is not None and accepted.get("status") == "False"
        failed = find(self.conditions, JobCondition.FAILED)
        unplaced = failed is not None and failed.get("reason") == JobReason.NO_CAPACITY
        return (refused and market.on_bad_definition == "Quit") or (
            unplaced and market.on_no_capacity == "Quit"
        )

    async def _announced(self, pinner: Pinner) -> str | None:
        """The CID to go on chain, its content pinned or the grace for that over; None: not yet."""
        if self.record.settlement is not None and self.record.result_cid is not None:
            return self.record.result_cid
        try:
            data = await self._result()
        except Refused as exc:
            message = f"the result cannot be read: {exc}; give the operator `get` on Secrets"
            self._say(JobCondition.SETTLED, False, JobReason.RESULT_LOST, message)
            await self._write()
            return None
        cid = pinner.cid_of(data)
        grace = (ended_at(self.body) + PIN_GRACE - self.now).total_seconds()
        if not await self._pin(pinner, data, cid, max(grace, SOON)) and grace > 0:
            return None
        self.record = replace(self.record, result_cid=cid)
        return cid

    def _digest(self, pinner: Pinner, cid: str) -> bytes:
        """Kept, because the looks while a transaction is under way are many and reading a CID is slow."""
        if self.memory.digest is None or self.memory.digest[0] != cid:
            self.memory.digest = (cid, pinner.digest_of(cid))
        return self.memory.digest[1]

    async def _result(self) -> bytes:
        status = read(NosanaJobStatus, JOB_KIND, "status", self.body.get("status"))
        started = datetime.fromtimestamp(self.run_time, UTC)
        known = self.memory.result.lost
        data = await result_bytes(self.edges.kube, self.body, status, started, self.memory.result)
        if self.memory.result.lost != known:
            self._event("Warning", JobReason.RESULT_LOST, f"published without it: {self.memory.result.lost}")
        return data

    async def _pin(self, pinner: Pinner, data: bytes, cid: str, seconds: float) -> bool:
        name = f"{self.meta['namespace']}-{self.meta['name']}"
        return await pin(pinner, data, cid, name=name, seconds=seconds, kept=self.memory.result)

    async def _sign(
        self, chain: Chain, market: NosanaMarketSpec, kind: Kind, situation: Situation, outcome: Outcome
    ) -> float:
        before = self.record.settlement
        failures = (before.failures or 0) if before else 0
        if before is not None and before.transaction is not None:
            words = self.memory.refused.get(before.transaction.signature)
            if outcome.fate is Fate.FAILED or words is not None:
                failures += 1
                pause = min(2.0 ** min(failures, 10), _MAX_PAUSE)
                since = (self.now - parse_timestamp(before.transaction.signed_at)).total_seconds()
                if since < pause:
                    await self._failed(before.kind, outcome.error or words or "")
                    return pause - since
        intent = before.transaction if before is not None else None
        epoch = self.edges.leadership.check(newest_epoch([intent] if intent is not None else []))
        signed = await self._signed(chain, market, kind, situation)
        if signed is None:
            return SLOW_POLL
        transaction = Transaction(
            kind=kind,
            key=signed.key,
            signature=signed.signature,
            raw=signed.raw,
            blockhash=signed.blockhash,
            last_valid_block_height=signed.last_valid_block_height,
            signed_at=timestamp(self.now),
            epoch=epoch,
        )
        self.record = replace(
            self.record,
            settlement=Settlement(
                kind=kind,
                result_cid=self.record.result_cid if kind != "quit" else None,
                pinned=None if kind == "quit" else self._is_pinned(),
                transaction=transaction,
                failures=failures or None,
            ),
        )
        self._say(JobCondition.SETTLED, False, JobReason.SETTLING, f"{kind} is signed and sent")
        # The intent is durable before the first byte leaves (DESIGN 4); a lost compare-and-swap ends here.
        await self._write()
        await self._send(chain, transaction)
        if before is None:
            waited = self.edges.clock.now() - ended_at(self.body)
            self.edges.metrics.finish_sent(self.run.market, waited.total_seconds())
        log.info("%s sent", kind, extra=self._fields() | {"signature": signed.signature})
        return POLL

    async def _signed(
        self, chain: Chain, market: NosanaMarketSpec, kind: Kind, situation: Situation
    ) -> Signed | None:
        """Signed bytes that nobody has seen yet; None when that is not possible now."""
        wallet = await self._wallet(market)
        if wallet is None:
            message = f"the key {self.run.node} is in no Secret of the NosanaMarket; put it back to be paid"
            self._say(JobCondition.SETTLED, False, JobReason.WALLET_MISSING, message)
            await self._write()
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
                if kind == "finish" and isinstance(run, RunFacts):
                    return await chain.sign_finish(wallet, run, job, digest)
        except Refused as exc:
            await self._failed(kind, str(exc))
            return None
        if isinstance(run, RunFacts) and job is GONE:
            await self._failed(kind, f"the job account {self.run.job} is closed though its run is open")
        return None

    async def _wallet(self, market: NosanaMarketSpec) -> Wallet | None:
        namespace = self.run.market_ref.namespace
        wallet = self.wallets.key(self.run.node, namespace, market)
        if wallet is None:
            await self._keys(market)
            wallet = self.wallets.key(self.run.node, namespace, market)
        return wallet

    def _is_pinned(self) -> bool:
        before = self.record.settlement
        return self.memory.result.pinned or bool(before and before.pinned)

    async def _failed(self, kind: str, words: str) -> None:
        message = f"{kind} failed: {words}; tried again"
        self._say(JobCondition.SETTLED, False, JobReason.TRANSACTION_FAILED, message)
        await self._write()

    async def _send(self, chain: Chain, transaction: Transaction) -> None:
        now = self.edges.clock.now().timestamp()
        signature = transaction.signature
        last = self.memory.sent_at.get(signature)
        if last is not None and now - last < RESEND_AFTER:
            return
        self.memory.sent_at[signature] = now
        try:
            await chain.send(transaction.raw, first=signature not in self.memory.accepted)
        except Refused as exc:
            # Whatever it says of this send, the accounts decide.
            self.memory.refused[signature] = str(exc)
            await self._failed(transaction.kind, str(exc))
            return
        except NosanaError as exc:
            log.warning("%s not taken: %s", transaction.kind, exc, extra=self._fields())
            return
        self.memory.refused.pop(signature, None)
        self.memory.accepted.add(signature)

    async def _finish_record(self, settled: Settled) -> float | None:
        settlement = self.record.settlement
        paid = settled.paid
        if paid is not None:
            earned = paid.price * paid.seconds_paid
            settlement = (settlement or Settlement(kind="complete")).model_copy(
                update={
                    "seconds_paid": paid.seconds_paid,
                    "earned": earned,
                    "refunded": paid.price * max(paid.timeout, 0) - earned,
                }
            )
        self.record = replace(self.record, settlement=settlement).settled_at(self.now)
        self._say(JobCondition.SETTLED, True, settled.reason, settled.message)
        await self._write()
        if paid is not None and settlement is not None:
            self.edges.metrics.settled(
                self.run.market,
                settlement.kind,
                settlement.earned or 0,
                settlement.refunded or 0,
                paid.seconds_paid,
            )
        self._event("Normal", settled.reason, settled.message)
        log.info("settled: %s", settled.message, extra=self._fields() | {"reason": str(settled.reason)})
        return await self._after_settlement()

    async def _after_settlement(self) -> float | None:
        settled_at = parse_timestamp(self.record.settled) if self.record.settled else self.now
        remaining = (settled_at + KEEP_SETTLED - self.now).total_seconds()
        if remaining > 0 and not await self._pinned_since():
            # The result goes with the object, and its CID stands on chain.
            return SLOW_POLL
        self.memory.result.data = None
        if self._deleting():
            if await self._still_shown():
                return SOON
            await self._release()
            return None
        if remaining > 0:
            return remaining
        await self.edges.kube.delete(
            JOB_KIND, self.meta["namespace"], self.meta["name"], uid=self.meta["uid"]
        )
        return None

    async def _pinned_since(self) -> bool:
        """Pin what could not be pinned before the settlement; True when nothing is left to pin."""
        settlement, cid = self.record.settlement, self.record.result_cid
        if settlement is None or settlement.pinned is not False or cid is None:
            return True
        abandoned = (self.meta.get("annotations") or {}).get(ANNOTATION_ABANDON) == self.run.run
        market = self._market()
        pinner = self.edges.networks.pinner(market.network) if market else None
        if pinner is None or abandoned:
            return abandoned
        if not await self._pin(pinner, await self._result(), cid, LATER_PIN):
            return self.memory.result.lost is not None
        self.record = replace(self.record, settlement=settlement.model_copy(update={"pinned": True}))
        await self._write()
        return True

    async def _still_shown(self) -> bool:
        """Whether the watcher has the closed run yet: without its NosanaJob it would be taken for a new one."""
        settled = find(self.record.conditions, JobCondition.SETTLED)
        if settled is None or settled["reason"] == JobReason.ABANDONED:
            return False  # The run of an abandoned settlement is not closed.
        market = self._market()
        chain = self.edges.networks.chain(market.network) if market is not None else None
        if chain is None or not self._shows_run(chain.watched_runs(self.run.node)):
            return False
        try:
            return self._shows_run(await chain.refresh_runs(self.run.node))
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self._fields())
            return True

    def _shows_run(self, runs: Known[tuple[RunFacts, ...]]) -> bool:
        return not isinstance(runs, Absent) and any(is_run(self.run, run) for run in runs)

    # -- writing ------------------------------------------------------------------------------------------

    def _say(self, kind: JobCondition, status: bool | None, reason: str, message: str) -> None:
        self.record = self.record.with_condition(
            kind, status, reason, message, generation=self.generation, now=self.now
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
