"""One look at one run: its NosanaJob, what is remembered, what the chain says, and what is written of it.

Everything needed to go on after a crash stands in the NosanaJob's status and on chain; what is kept here are
caches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from nosana_operator.api import (
    FINALIZER_SETTLEMENT,
    JOB_KIND,
    MANAGER_MARKET,
    MARKET_KIND,
    ApiError,
    JobCondition,
    JobReason,
    MarketReason,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    condition_is_true,
    find_condition,
    parse_part,
    parse_timestamp,
)
from nosana_operator.errors import Unavailable
from nosana_operator.market.facts import GONE, STOPPED, UNKNOWN, YOUNG, Absent, JobFacts, Known, RunFacts
from nosana_operator.market.job_spec import is_run
from nosana_operator.market.keys.secrets import Wallets
from nosana_operator.market.ports import Chain, Edges, Wallet
from nosana_operator.market.runs.decide import Accounts, Obstacle
from nosana_operator.market.runs.result import KeptResult
from nosana_operator.market.runs.status import JobRecord
from nosana_operator.ports import Body

log = logging.getLogger(__name__)


FRESH = timedelta(seconds=4)
"""A run as young as this was not settled before: a NosanaJob goes only when its run's end is final (13 s)."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How many runs may wait for strangers' servers at once: the workers are there for all."""

    posters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    pins: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    """Of results whose settlement waits for it."""
    gateways: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


@dataclass(slots=True)
class Memory:
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
    obstacle: Obstacle | None = None
    """Why it could not be paid when that was last looked at."""
    look_again_at: datetime | None = None
    asked_at: datetime | None = None
    """When the poster of a confidential job was last asked for something."""
    posts: int = 0
    """How often he was given the result."""
    publish_at: datetime | None = None
    """When the gateways are next asked for the result."""
    publish_tries: int = 0
    blocked: int = 0
    """Looks in a row that found it so."""


class RunContext:
    """A run as it is looked at in one reconcile."""

    def __init__(
        self,
        edges: Edges,
        wallets: Wallets,
        turns: RunLimits,
        memory: Memory,
        body: Body,
        spec: NosanaJobSpec,
        run: Run,
    ) -> None:
        self.edges = edges
        self.wallets = wallets
        self.turns = turns
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

    def market(self) -> NosanaMarketSpec | None:
        """Its NosanaMarket; None: not there, and not in memory."""
        ref = self.run.market_ref
        found = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if found is not None:
            try:
                self.memory.market = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", found["spec"])
            except ApiError:
                if self.memory.market is None:
                    raise
        return self.memory.market

    def ended(self) -> bool:
        """The job has ended and its result is fixed."""
        return condition_is_true(self.conditions, JobCondition.COMPLETE) or condition_is_true(
            self.conditions, JobCondition.FAILED
        )

    async def keys(self, market: NosanaMarketSpec) -> tuple[set[str], bool]:
        """Addresses of the NosanaMarket's keys, and whether all of them are known."""
        ref = self.run.market_ref
        body = self.edges.cache.get(MARKET_KIND, ref.namespace, ref.name)
        if body is None:
            found = self.wallets.key(self.run.node, ref, market)
            return ({found.address} if found else set()), False
        loaded = await self.wallets.of_market(body, market)
        keys = {one.wallet.address for one in loaded if one.wallet is not None}
        return keys, all(one.wallet or one.reason == MarketReason.WALLET_SHARED for one in loaded)

    def young(self, chain: Chain) -> bool:
        """Whether its absence alone means nothing yet."""
        return self._age(chain) < YOUNG

    def fresh(self, chain: Chain) -> bool:
        """Whether nobody can have served and settled it yet."""
        return self._age(chain) < FRESH

    def _age(self, chain: Chain) -> timedelta:
        return self.now - chain.our_time(self.run_time)

    async def accounts(self, chain: Chain, *, finalized: bool, given_back: bool = False) -> Accounts:
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
        """The key that holds the run; None: no Secret of the NosanaMarket has it, or has had it since the start."""
        wallet = self.wallets.key(self.run.node, self.run.market_ref, market)
        if wallet is None:
            await self.keys(market)
            wallet = self.wallets.key(self.run.node, self.run.market_ref, market)
        return wallet

    def say(self, kind: JobCondition, status: bool | None, reason: str, message: str) -> None:
        """State a condition; `write` makes it known."""
        self.record = self.record.with_condition(
            kind, status, reason, message, generation=self.generation, now=self.now
        )

    async def write(self) -> None:
        """Write the record, if it says anything new. Raises Conflict when what was read is stale."""
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
        """Let the NosanaJob go."""
        kept = [f for f in self.meta.get("finalizers", []) if f != FINALIZER_SETTLEMENT]
        if len(kept) != len(self.meta.get("finalizers", [])):
            await self.edges.kube.patch(
                JOB_KIND,
                self.meta["namespace"],
                self.meta["name"],
                {"metadata": {"finalizers": kept, "resourceVersion": self.meta["resourceVersion"]}},
            )

    def complain(self, reason: JobReason, message: str) -> None:
        """Say why it is not settled yet; the first time in an Event too."""
        before = find_condition(self.record.conditions, JobCondition.SETTLED)
        if before is None or before["reason"] != reason:
            self.event("Warning", reason, message)
        self.say(JobCondition.SETTLED, False, reason, message)

    def event(self, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Tell it in an Event of the NosanaJob."""
        self.edges.events.event(self.body, type=kind, reason=reason, action="Settle", note=note)

    def fields(self) -> dict[str, str]:
        """For the log."""
        return {
            "job": f"{self.meta['namespace']}/{self.meta['name']}",
            "run": self.run.run,
            "market": self.run.market,
        }

    def watched_run(self, chain: Chain) -> Known[RunFacts]:
        """Whatever the watcher has at the run's address."""
        runs = chain.watched_runs(self.run.node)
        if isinstance(runs, Absent):
            return runs
        return next((run for run in runs if run.address == self.run.run), GONE)
