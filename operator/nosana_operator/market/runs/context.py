"""One run in one reconcile: its NosanaJob, the caches, how to read the chain, and what will be written.

Everything needed to continue after a crash is in the NosanaJob's status and on chain; this process keeps
caches only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
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
    Condition,
    JobCondition,
    JobReason,
    MarketReason,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    parse_part,
    parse_timestamp,
)
from nosana_operator.errors import Unavailable
from nosana_operator.market.facts import GONE, STOPPED, UNKNOWN, YOUNG, Absent, JobFacts, Known, RunFacts
from nosana_operator.market.intents import IntentSender
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges, Posters, Wallet
from nosana_operator.market.runs.decide import not_settled, overdue_end
from nosana_operator.market.runs.on_chain import Accounts
from nosana_operator.market.runs.result import ResultCache, ended_at
from nosana_operator.market.runs.status import JobRecord, read_status
from nosana_operator.market.runs.view import Attempts, PublishedResult, RunView
from nosana_operator.ports import Body

log = logging.getLogger(__name__)


FRESH = timedelta(seconds=4)
"""Nobody can have settled a younger run: a NosanaJob goes only when the end of its run is final (13 s)."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How many runs may wait for strangers' servers at once: all runs share the workers."""

    posters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    pins: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    """Pins of results that a settlement waits for."""
    gateways: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


@dataclass(slots=True)
class Memory:
    """Caches of one run; losing them costs only time."""

    uid: str
    market: NosanaMarketSpec | None = None
    """The NosanaMarket as last seen: its runs still settle when somebody deletes it by force."""
    result: ResultCache = field(default_factory=ResultCache)
    digest: PublishedResult | None = None
    sender: IntentSender = field(default_factory=IntentSender)
    attempts: Attempts = field(default_factory=Attempts)


class RunContext:
    """Gathers what is known of a run in one reconcile, and writes what was decided."""

    def __init__(
        self,
        edges: Edges,
        wallets: Wallets,
        limits: RunLimits,
        memory: Memory,
        body: Body,
        run: Run,
        spec: NosanaJobSpec | None,
    ) -> None:
        self.edges = edges
        self.wallets = wallets
        self.limits = limits
        self.memory = memory
        self.body = body
        self.run = run
        self.spec = spec
        """None: this version cannot read it."""
        self.run_time = int(parse_timestamp(run.started_at).timestamp())
        self.record = JobRecord.of(body)
        self.meta: Mapping[str, Any] = body["metadata"]
        self.generation = int(self.meta.get("generation", 0))
        self.conditions: Sequence[Condition] = (body.get("status") or {}).get("conditions") or ()
        self.logistics = read_status(body).logistics
        """Where the definition comes from and the result goes to; None: the job is not confidential."""
        self.ended_at = ended_at(body)
        self.now = edges.clock.now()

    def view(self, market: NosanaMarketSpec | None) -> RunView:
        """What a decision reads, without the facts that cost a request."""
        market = market or self.known_market()
        networks = self.edges.networks
        view = RunView(
            now=self.now,
            run=self.run,
            run_time=self.run_time,
            ended_at=self.ended_at,
            generation=self.generation,
            conditions=self.conditions,
            record=self.record,
            attempts=self.memory.attempts,
            market=market,
            confidential=self.logistics is not None and self.posters(market) is not None,
            deleting=self.deleting(),
            abandoned=self.abandoned(),
            publishable=market is not None and networks.pinner(market.network) is not None,
            posters_busy=self.limits.posters.locked(),
            gateways_busy=self.limits.gateways.locked(),
        )
        return view if view.ended else replace(view, ended_at=overdue_end(view))

    def posters(self, market: NosanaMarketSpec | None) -> Posters | None:
        """Asks posters of the market's network; None: the settings do not have that network."""
        return self.edges.networks.posters(market.network) if market is not None else None

    def abandoned(self) -> bool:
        """An admin gave up the pay of this run by annotation."""
        return (self.meta.get("annotations") or {}).get(ANNOTATION_ABANDON) == self.run.run

    def known_market(self) -> NosanaMarketSpec | None:
        """The NosanaMarket as last readable; None: this process never saw one that it can read."""
        try:
            return self.market()
        except ApiError:
            return None

    def market(self) -> NosanaMarketSpec | None:
        """The run's NosanaMarket, as last seen; None: never seen. Raises ApiError when only an unreadable one was."""
        ref = self.run.market_ref
        body = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if body is not None:
            try:
                self.memory.market = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", body["spec"])
            except ApiError:
                if self.memory.market is None:
                    raise
        return self.memory.market

    async def keys(self, market: NosanaMarketSpec) -> tuple[set[str], bool]:
        """Addresses of the NosanaMarket's keys, and whether these are all of them."""
        ref = self.run.market_ref
        body = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if body is None:
            wallet = self.wallets.by_address(self.run.node, ref, market)
            return ({wallet.address} if wallet else set()), False
        loaded = await self.wallets.of_market(body, market)
        keys = {one.wallet.address for one in loaded if one.wallet is not None}
        return keys, all(one.wallet or one.reason == MarketReason.WALLET_SHARED for one in loaded)

    def young(self, chain: Chain) -> bool:
        """Whether its absence alone means nothing yet."""
        return self._age(chain) < YOUNG

    def fresh(self, chain: Chain) -> bool:
        """Whether the run is so young that nobody can have settled it."""
        return self._age(chain) < FRESH

    def _age(self, chain: Chain) -> timedelta:
        return self.now - chain.our_time(self.run_time)

    async def accounts(self, chain: Chain, *, finalized: bool, given_back: bool = False) -> Accounts:
        """Run and job as the chain has them now. `given_back`: our `quit` is finalized."""
        run: Known[RunFacts] = UNKNOWN
        job: Known[JobFacts] = UNKNOWN
        try:
            # The time first: what is read after it is at least as new. Likewise the run before the job, which
            # tells how the run ended.
            until = await chain.finalized_time() if finalized else None
            run = await chain.read_run(self.run.run, finalized=finalized) or GONE
            job = await chain.read_job(self.run.job, finalized=finalized) or GONE
        except Unavailable as exc:
            log.warning("chain does not answer: %s", exc, extra=self.fields())
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

    async def wallet(self, market: NosanaMarketSpec) -> Wallet | None:
        """The key that holds the run; None: no Secret of the NosanaMarket has held it since this process began."""
        wallet = self.wallets.by_address(self.run.node, self.run.market_ref, market)
        if wallet is None:
            await self.keys(market)
            wallet = self.wallets.by_address(self.run.node, self.run.market_ref, market)
        return wallet

    def say(self, kind: JobCondition, status: bool | None, reason: str, message: str) -> None:
        """Set a condition in the record; `write` writes it."""
        self.record = self.record.with_condition(
            kind, status, reason, message, generation=self.generation, now=self.now
        )

    async def write(self) -> None:
        """Write the record if it has changed. Raises Conflict when the object was read before another write."""
        if self.record == JobRecord.of(self.body):
            return
        reply = await self.edges.kube.apply(
            self.record.apply_body(self.body), manager=MANAGER_MARKET, subresource="status"
        )
        self.body = reply
        self.meta = reply["metadata"]

    def deleting(self) -> bool:
        """Somebody deleted the NosanaJob."""
        return bool(self.meta.get("deletionTimestamp"))

    async def release(self) -> None:
        """Remove our finalizer from the NosanaJob."""
        kept = [f for f in self.meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
        if len(kept) != len(self.meta.get("finalizers", [])):
            await self.edges.kube.patch(
                JOB_KIND,
                self.meta["namespace"],
                self.meta["name"],
                {"metadata": {"finalizers": kept, "resourceVersion": self.meta["resourceVersion"]}},
            )

    def complain(self, reason: JobReason, message: str) -> None:
        """Record why the run is not settled yet; an Event announces a new reason."""
        decision = not_settled(
            self.record,
            self.memory.attempts,
            reason,
            message,
            generation=self.generation,
            now=self.now,
            again_in=0,
        )
        self.record = decision.record
        for event in decision.events:
            self.event(event.type, event.reason, event.note)

    def event(self, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Emit an Event of the NosanaJob."""
        self.edges.events.event(self.body, type=kind, reason=reason, action="Settle", note=note)

    def fields(self) -> dict[str, str]:
        """The fields that every log line about the run carries."""
        return {
            "job": f"{self.meta['namespace']}/{self.meta['name']}",
            "run": self.run.run,
            "market": self.run.market,
        }

    def watched_run(self, chain: Chain) -> Known[RunFacts]:
        """What the watcher has at the run's address."""
        runs = chain.watched_runs(self.run.node)
        if isinstance(runs, Absent):
            return runs
        return next((run for run in runs if run.address == self.run.run), GONE)
