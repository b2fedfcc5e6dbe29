"""Brings what chain, cluster and Secrets say about one NosanaMarket into one frozen view.

There are three gatherings, because the chain is read at different costs. The watcher's snapshots are free, but each
account in them may be of another moment:

    chain            slot 100: the wallet is in the queue      slot 101: the wallet has a run
    watcher, queue   ───────── slot 100 ─────────────────────────────────▶ slot 101
    watcher, runs    ───────── slot 100 ────────────▶ slot 101
                               A                    B                      C

At A and C the snapshots agree. At B the wallet seems to hold a run *and* to stand; in the other order (the queue is
updated first) it seems to hold nothing, and a slot that is given would look free. So the gatherings are:

- `snapshot`: market and runs as the watcher has them, transactions as the status has them (their outcome is not
  asked for). Used to create NosanaJobs at once, and for what the *other* NosanaMarkets hold.
- `view`: the outcome of each transaction is asked for, and once one has landed the watcher reads market and runs
  again at its slot. Used for the decision of each reconcile.
- `fresh_view`: the market is read at the slot of our last transaction or later, then the runs at the market's slot or
  later. Used to confirm an offer before it is signed.

In a fresh view the runs are never older than the queue, so a wallet that has left the queue is found among them. A
wallet that left it in a snapshot without a new run is handled in `departures`: its runs are read again, and until
the chain answers it counts as taken.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nosana_operator.api import (
    ANNOTATION_KEY_USE,
    JOB_KIND,
    MARKET_KIND,
    ApiError,
    MarketReason,
    MarketRef,
    NosanaMarketSpec,
    NosanaMarketStatus,
    Transaction,
    WalletStatus,
    leaves_until,
    parse_part,
)
from nosana_operator.api.placement import NodeSettings
from nosana_operator.errors import NosanaError
from nosana_operator.inventory import REMEMBERED, Cluster, PodStart, Share, divide, pod_start, refusing_nodes
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    YOUNG,
    Absent,
    Fate,
    Funds,
    JobFacts,
    Known,
    MarketFacts,
    Outcome,
    RunFacts,
)
from nosana_operator.market.host.decide import market_demand
from nosana_operator.market.host.departures import Departures, QueueDepartures
from nosana_operator.market.host.job_objects import JobObjects
from nosana_operator.market.host.slots import holder
from nosana_operator.market.host.view import MarketView, PendingTransaction, WalletView, runs_of
from nosana_operator.market.host.watchlist import watch_all
from nosana_operator.market.job_spec import market_ref
from nosana_operator.market.keys.foreign_use import acknowledged_signatures
from nosana_operator.market.keys.polls import ChainPolls
from nosana_operator.market.keys.secrets import LoadedWallet, Wallets
from nosana_operator.market.ports import Chain, Edges
from nosana_operator.market.unsettled import serving_wallets
from nosana_operator.ports import Body

log = logging.getLogger(__name__)

_NO_SHARE = Share(placed=0, reserved=0, free=0, shortage="", must_yield=False)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one gathering has read of the chain."""

    pending: tuple[PendingTransaction, ...]
    market: Known[MarketFacts]
    wallets: Sequence[WalletView]
    """One for each loaded wallet, in their order."""


_Read = Callable[
    [Chain, MarketRef, NosanaMarketSpec, Sequence[Transaction], Sequence[LoadedWallet]], Awaitable[_Reading]
]


class Gatherer:
    """Makes the views of all NosanaMarkets; keeps caches only."""

    def __init__(self, edges: Edges, wallets: Wallets, polls: ChainPolls, nodes: NodeSettings) -> None:
        self._edges = edges
        self._wallets = wallets
        self._polls = polls
        self._nodes = nodes
        self._seen: dict[MarketRef, frozenset[str]] = {}
        """Signatures after whose landing market and runs were read."""
        self._departures = QueueDepartures(edges.clock)
        self._job_refusals: dict[MarketRef, str | None] = {}
        """Why the API server refuses a NosanaMarket's jobs."""
        self._jobs = JobObjects(edges.cache)
        self._pod_starts: dict[str, PodStart] = {}
        """By uid. A pod that a kubelet refused is deleted soon, so each change is read as it comes."""

    def observe_pod(self, pod: Mapping[str, Any]) -> None:
        """Remember whether the pod's node took it. Call it with every change of a pod."""
        start = pod_start(pod)
        if start is not None:
            self._pod_starts[start.uid] = start

    async def snapshot(self, body: Body, spec: NosanaMarketSpec, status: NosanaMarketStatus) -> MarketView:
        """The watcher's snapshots, with the job accounts of the runs: enough to create NosanaJobs.

        Nothing else may be decided from it, because it knows neither the outcome of a transaction nor the share
        of the nodes.
        """
        loaded = await self._wallets.of_market(body, spec)
        return await self._assemble(body, spec, status, loaded, self._read_snapshot)

    async def view(
        self,
        body: Body,
        spec: NosanaMarketSpec,
        status: NosanaMarketStatus,
        *,
        job_refusal: str | None,
        job_accounts: Mapping[str, Known[JobFacts]] | None = None,
    ) -> MarketView:
        """The watcher's snapshots, with the outcome of each transaction and the share of the nodes.

        Args:
            body: the NosanaMarket.
            spec: of it.
            status: of it.
            job_refusal: why the API server refused a NosanaJob of it a moment ago.
            job_accounts: those that `snapshot` read a moment ago.
        """
        return await self._own_view(body, spec, status, job_refusal, self._read_current, job_accounts)

    async def fresh_view(
        self, body: Body, spec: NosanaMarketSpec, status: NosanaMarketStatus, *, job_refusal: str | None
    ) -> MarketView:
        """Like `view`, with market and runs as the chain has them now."""
        return await self._own_view(body, spec, status, job_refusal, self._read_fresh)

    def take_evicted(self, body: Body) -> Collection[str]:
        """Wallets of the NosanaMarket that others removed from the queue since the last call."""
        return self._departures.take_evicted(body["metadata"]["uid"])

    def forget(self) -> None:
        """Drop what is remembered of NosanaMarkets that are gone."""
        markets = self._edges.cache.list(MARKET_KIND)
        self._departures.forget_all_but({one["metadata"]["uid"] for one in markets})
        self.watch_all()

    def watch_all(self) -> None:
        """Replace the set of accounts that each network watches."""
        watch_all(self._edges.cache, self._edges.networks, self._wallets)

    # -- views --------------------------------------------------------------------------------------------

    async def _own_view(
        self,
        body: Body,
        spec: NosanaMarketSpec,
        status: NosanaMarketStatus,
        job_refusal: str | None,
        read: _Read,
        job_accounts: Mapping[str, Known[JobFacts]] | None = None,
    ) -> MarketView:
        """A view that the NosanaMarket itself is decided from."""
        cache = self._edges.cache
        self._polls.foreign_use.record_intents(cache.list(MARKET_KIND), cache.list(JOB_KIND))
        self._job_refusals[market_ref(body)] = job_refusal
        loaded = await self._wallets.of_market(body, spec)
        self.watch_all()
        view = await self._assemble(body, spec, status, loaded, read, job_accounts)
        addresses = frozenset(one.address for one in view.wallets if one.address is not None)
        if view.network_known and not self._polls.has_polled(spec.network, addresses, spec.payout_address):
            view = replace(view, polls_pending=True, held_back=view.held_back | addresses)
        return await self._with_share(body, view)

    async def _with_share(self, body: Body, view: MarketView) -> MarketView:
        """The view with what the nodes hold for it beside the other NosanaMarkets."""
        holders = [holder(view, previous=None, demand=market_demand(view))]
        unread: list[str] = []
        for other, spec, status in self._others(body):
            theirs = await self.snapshot(other, spec, status)
            holders.append(holder(theirs, previous=status.slots, demand=market_demand(theirs)))
            if any(wallet.unread and wallet.address is None for wallet in theirs.wallets):
                unread.append(spec.address)
        cluster = self._cluster()
        shares = divide(cluster, holders)
        return replace(
            view,
            share=shares[holders[0].name],
            refusing_nodes=cluster.refusing_for(view.spec.gpu),
            served=self._served(view, unread),
        )

    def _cluster(self) -> Cluster:
        cache, now = self._edges.cache, self._edges.clock.now()
        self._pod_starts = {
            uid: one for uid, one in self._pod_starts.items() if now - one.scheduled_at < REMEMBERED
        }
        return Cluster(
            nodes=cache.list("Node"),
            pods=cache.list("Pod"),
            quotas=cache.list("ResourceQuota"),
            refusing=refusing_nodes(self._pod_starts.values(), now),
            settings=self._nodes,
        )

    def _others(self, body: Body) -> Iterator[tuple[Body, NosanaMarketSpec, NosanaMarketStatus]]:
        """The other NosanaMarkets that can be read: they may hold slots on the same nodes."""
        for other in self._edges.cache.list(MARKET_KIND):
            if market_ref(other) == market_ref(body):
                continue
            try:
                spec = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", other["spec"])
                status = parse_part(NosanaMarketStatus, MARKET_KIND, "status", other.get("status"))
            except ApiError:
                continue  # Its own reconcile reports that; the pods of its jobs count as they are.
            yield dict(other), spec, status

    def _served(self, view: MarketView, unread: Collection[str]) -> frozenset[tuple[str, str]]:
        """(market, wallet): what the NosanaMarkets of the view's network serve.

        `unread`: markets that may be served with any wallet, because a Secret could not be read.
        """
        out = {(market, wallet.address) for market in unread for wallet in view.wallets if wallet.address}
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") == view.spec.network:
                out |= {(body["spec"].get("address", ""), key) for key in self._wallets.addresses(body)}
        return frozenset(out)

    async def _assemble(
        self,
        body: Body,
        spec: NosanaMarketSpec,
        status: NosanaMarketStatus,
        loaded: Sequence[LoadedWallet],
        read: _Read,
        job_accounts: Mapping[str, Known[JobFacts]] | None = None,
    ) -> MarketView:
        """The view without its share of the nodes, with what `read` reads of the chain."""
        meta, ref = body["metadata"], market_ref(body)
        chain = self._edges.networks.chain(spec.network)
        problem = chain.problem_with(spec.address) if chain else None
        jobs = dict(job_accounts or {})
        wallets: Sequence[WalletView] = [_wallet_view(one, UNKNOWN, UNKNOWN) for one in loaded]
        reading = _Reading((), UNKNOWN, wallets)
        departures = Departures(wallets, frozenset(), frozenset(), frozenset())
        if chain is not None and problem is None:
            reading = await read(chain, ref, spec, status.transactions, loaded)
            wallets = reading.wallets
            if isinstance(reading.market, MarketFacts):
                departures = await self._departures.compare(
                    chain, meta["uid"], reading.market, wallets, status.wallets, reading.pending
                )
                wallets = departures.wallets
            for run in runs_of(wallets):
                if run.job not in jobs:
                    jobs[run.job] = await self._job_account(chain, run.job)
            needed = {one.transaction.key for one in reading.pending}
            needed |= serving_wallets(self._edges.cache, ref, spec.job_namespace)
            wallets = [
                wallet
                for wallet, one in zip(wallets, loaded, strict=True)
                if not one.former
                or wallet.address in needed
                or _may_hold(wallet, reading.market, jobs, spec.address)
            ]
        slot = reading.market.slot if isinstance(reading.market, MarketFacts) else None
        wallets = self._with_foreign_use(spec.network, wallets, status.wallets, slot)
        addresses = frozenset(one.address for one in wallets if one.address is not None)
        live = self._jobs.live(ref, spec, wallets)
        return MarketView(
            ref=ref,
            spec=spec,
            deleting=bool(meta.get("deletionTimestamp")),
            network_known=chain is not None,
            networks=tuple(self._edges.networks.names()),
            address_problem=problem,
            payout_problem=self._payout_problem(spec),
            market=reading.market,
            wallets=tuple(wallets),
            job_accounts=jobs,
            job_objects=self._jobs.of_runs(ref, spec.job_namespace, runs_of(wallets)),
            runs_with_pods=frozenset(live.with_pods),
            job_uids=frozenset(live.with_pods.values()),
            unsettled=live.unsettled,
            served=frozenset(),
            job_refusal=self._job_refusals.get(ref),
            pending=reading.pending,
            leave_until=leaves_until(meta.get("annotations"), self._edges.clock.now()),
            unexplained=departures.unexplained,
            held_back=departures.held_back
            | self._busy_elsewhere(ref, spec.network)
            | {one for one in addresses if not self._polls.foreign_use.is_examined(spec.network, one)},
            queued_by_us=departures.queued_by_us,
            fee_cap=chain.fee_cap() if chain else 0,
            now=self._edges.clock.now(),
            share=_NO_SHARE,
            recent_runs=self._recent(chain, runs_of(wallets)) if chain else frozenset(),
        )

    # -- the three readings -------------------------------------------------------------------------------

    async def _read_snapshot(
        self,
        chain: Chain,
        ref: MarketRef,
        spec: NosanaMarketSpec,
        transactions: Sequence[Transaction],
        loaded: Sequence[LoadedWallet],
    ) -> _Reading:
        seen = self._seen.get(ref, frozenset())
        pending = tuple(
            PendingTransaction(one, Outcome(Fate.UNKNOWN), seen=one.signature in seen) for one in transactions
        )
        return await self._watched(chain, spec, pending, loaded)

    async def _read_current(
        self,
        chain: Chain,
        ref: MarketRef,
        spec: NosanaMarketSpec,
        transactions: Sequence[Transaction],
        loaded: Sequence[LoadedWallet],
    ) -> _Reading:
        pending = await self._outcomes(chain, ref, transactions)
        new = [one for one in pending if _landed(one) and not one.seen]
        if new and await self._read_effects(chain, spec.address, new):
            pending = tuple(replace(one, seen=one.seen or one in new) for one in pending)
            self._remember_seen(ref, pending)
        return await self._watched(chain, spec, pending, loaded)

    async def _read_fresh(
        self,
        chain: Chain,
        ref: MarketRef,
        spec: NosanaMarketSpec,
        transactions: Sequence[Transaction],
        loaded: Sequence[LoadedWallet],
    ) -> _Reading:
        pending = await self._outcomes(chain, ref, transactions)
        not_before = max((one.outcome.slot or 0 for one in pending), default=0)
        market = await self._refreshed_market(chain, spec.address, not_before)
        if isinstance(market, MarketFacts):
            not_before = market.slot
        wallets = [await self._refreshed_wallet(chain, spec.network, one, not_before) for one in loaded]
        if market is not UNKNOWN:
            read = {wallet.address for wallet in wallets if not isinstance(wallet.runs, Absent)}
            pending = tuple(
                replace(one, seen=one.seen or (_landed(one) and one.transaction.key in read))
                for one in pending
            )
            self._remember_seen(ref, pending)
        return _Reading(pending, market, wallets)

    async def _watched(
        self,
        chain: Chain,
        spec: NosanaMarketSpec,
        pending: tuple[PendingTransaction, ...],
        loaded: Sequence[LoadedWallet],
    ) -> _Reading:
        """Market and wallets as the watcher has them; a market that it does not have yet is read."""
        market = chain.watched_market(spec.address)
        if not isinstance(market, MarketFacts):
            market = await self._refreshed_market(chain, spec.address, 0)
        wallets = [
            _wallet_view(one, UNKNOWN, UNKNOWN)
            if one.address is None or one.unknown
            else _wallet_view(
                one, self._polls.funds(spec.network, one.address), chain.watched_runs(one.address)
            )
            for one in loaded
        ]
        return _Reading(pending, market, wallets)

    async def _outcomes(
        self, chain: Chain, ref: MarketRef, transactions: Sequence[Transaction]
    ) -> tuple[PendingTransaction, ...]:
        """What became of the transactions, and whether market and runs were read after that."""
        seen = self._seen.get(ref, frozenset())
        pending = []
        for one in transactions:
            made = PendingTransaction(
                one, await chain.outcome(one.signature, one.last_valid_block_height), seen=False
            )
            pending.append(replace(made, seen=one.signature in seen and _landed(made)))
        self._remember_seen(ref, pending)
        return tuple(pending)

    def _remember_seen(self, ref: MarketRef, pending: Sequence[PendingTransaction]) -> None:
        self._seen[ref] = frozenset(one.transaction.signature for one in pending if one.seen)

    async def _read_effects(self, chain: Chain, address: str, landed: Sequence[PendingTransaction]) -> bool:
        """Make the watcher read market and runs with the effects of these transactions; whether it could."""
        try:
            not_before = max(one.outcome.slot or 0 for one in landed)
            market = await chain.refresh_market(address, not_before=not_before)
            for key in sorted({one.transaction.key for one in landed}):
                await chain.refresh_runs(key, not_before=market.slot if market else 0)
        except NosanaError as exc:
            log.warning("cannot read the effects of transactions yet: %s", exc, extra={"market": address})
            return False
        return True

    async def _refreshed_market(self, chain: Chain, address: str, not_before: int) -> Known[MarketFacts]:
        try:
            return await chain.refresh_market(address, not_before=not_before) or GONE
        except NosanaError as exc:
            log.warning("cannot read the market: %s", exc, extra={"market": address})
            return UNKNOWN

    async def _refreshed_wallet(
        self, chain: Chain, network: str, loaded: LoadedWallet, not_before: int
    ) -> WalletView:
        address = loaded.address
        if address is None or loaded.unknown:
            return _wallet_view(loaded, UNKNOWN, UNKNOWN)
        runs: Known[tuple[RunFacts, ...]]
        try:
            runs = await chain.refresh_runs(address, not_before=not_before)
        except NosanaError as exc:
            log.warning("cannot read the wallet's runs: %s", exc, extra={"wallet": address})
            runs = UNKNOWN
        return _wallet_view(loaded, self._polls.funds(network, address), runs)

    async def _job_account(self, chain: Chain, address: str) -> Known[JobFacts]:
        found = chain.watched_job(address)
        if found is not UNKNOWN:
            return found
        try:
            return await chain.read_job(address) or GONE
        except NosanaError as exc:
            log.warning("cannot read the job account: %s", exc, extra={"job": address})
            return UNKNOWN

    # -- what else is known of the wallets ----------------------------------------------------------------

    def _busy_elsewhere(self, ref: MarketRef, network: str) -> frozenset[str]:
        """Wallets with a transaction under way in another market: each has one at a time."""
        return frozenset(
            one["key"]
            for other in self._edges.cache.list(MARKET_KIND)
            if market_ref(other) != ref and other["spec"].get("network") == network
            for one in (other.get("status") or {}).get("transactions") or ()
            if one["signature"] not in self._seen.get(market_ref(other), frozenset())
        )

    def _with_foreign_use(
        self, network: str, wallets: Sequence[WalletView], previous: Sequence[WalletStatus], slot: int | None
    ) -> list[WalletView]:
        """The wallets with the transactions that somebody else signed with them.

        Where the chain is silent, those that the `previous` status reports. `slot`: the chain's, None while it
        has not answered.
        """
        reported = {one.address: one.foreign for one in previous}
        acknowledged = acknowledged_signatures(self._edges.cache.list(MARKET_KIND))
        out = []
        for wallet in wallets:
            if wallet.address is not None:
                foreign = self._polls.foreign_use.observe(
                    network,
                    wallet.address,
                    slot=slot,
                    lamports=wallet.funds.lamports if isinstance(wallet.funds, Funds) else None,
                    reported=reported.get(wallet.address),
                )
                if foreign is not None and foreign not in acknowledged:
                    wallet = _used_elsewhere(wallet, foreign)
            out.append(wallet)
        return out

    def _recent(self, chain: Chain, runs: Sequence[RunFacts]) -> frozenset[str]:
        """The runs that have just begun."""
        now = self._edges.clock.now()
        return frozenset(run.address for run in runs if now - chain.our_time(run.time) < YOUNG)

    def _payout_problem(self, spec: NosanaMarketSpec) -> str | None:
        """What is known against the payout address, before anything has to be paid there."""
        if spec.payout_address is None:
            return None
        return self._polls.payout_problem(spec.network, spec.payout_address)


def _landed(one: PendingTransaction) -> bool:
    return one.outcome.fate in (Fate.CONFIRMED, Fate.FINALIZED)


def _used_elsewhere(wallet: WalletView, signature: str) -> WalletView:
    message = (
        f"signed the transaction {signature}, which this operator did not make: another host has this key; stop "
        f"that host, then annotate this NosanaMarket {ANNOTATION_KEY_USE}={signature}. Until then the wallet takes "
        "no job; its runs still settle"
    )
    problem = wallet.problem or (MarketReason.KEY_IN_USE_ELSEWHERE, message)
    return replace(wallet, foreign=signature, problem=problem)


def _may_hold(
    wallet: WalletView, market: Known[MarketFacts], jobs: Mapping[str, Known[JobFacts]], address: str
) -> bool:
    """Whether a wallet stands in the market or holds a run of it, as far as is known."""
    if market is UNKNOWN or isinstance(wallet.runs, Absent):
        return True
    if isinstance(market, MarketFacts) and wallet.address in market.standing:
        return True
    accounts = (jobs.get(run.job) for run in wallet.runs)
    return any(not isinstance(job, JobFacts) or job.market == address for job in accounts)


def _wallet_view(
    loaded: LoadedWallet, funds: Funds | Absent, runs: Known[tuple[RunFacts, ...]]
) -> WalletView:
    return WalletView(
        secret=loaded.secret,
        address=loaded.address,
        problem=(loaded.reason, loaded.message) if loaded.reason else None,
        funds=funds,
        runs=runs,
        unread=loaded.unknown,
        lost=loaded.lost is not None,
    )
