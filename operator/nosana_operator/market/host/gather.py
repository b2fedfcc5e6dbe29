"""What is known of one NosanaMarket: chain, cluster and keys, brought into one frozen view."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
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
from nosana_operator.errors import NosanaError
from nosana_operator.inventory import Share, divide
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
from nosana_operator.market.host.decide import wants
from nosana_operator.market.host.departures import Standing, Standings
from nosana_operator.market.host.known_jobs import KnownJobs
from nosana_operator.market.host.slots import holder
from nosana_operator.market.host.view import MarketView, PendingTransaction, WalletView
from nosana_operator.market.host.watchlist import watch_all
from nosana_operator.market.keys.foreign_use import acknowledged
from nosana_operator.market.keys.polls import ChainPolls
from nosana_operator.market.keys.secrets import LoadedWallet, Wallets
from nosana_operator.market.ports import Chain, Edges
from nosana_operator.market.unsettled import serving_keys
from nosana_operator.ports import Body

log = logging.getLogger(__name__)

_NONE = Share(placed=0, reserved=0, room=0, short="", gives_way=False)


class Gatherer:
    """Makes the views of all NosanaMarkets; keeps caches only."""

    def __init__(self, edges: Edges, wallets: Wallets, checks: ChainPolls) -> None:
        self._edges = edges
        self._wallets = wallets
        self._checks = checks
        self._seen: dict[MarketRef, frozenset[str]] = {}
        """Signatures after whose landing market and runs were read."""
        self._standings = Standings(edges.clock)
        self._refusals: dict[MarketRef, str | None] = {}
        """Why the API server does not take a NosanaMarket's jobs."""
        self._jobs = KnownJobs(edges.cache)

    async def view(
        self,
        body: Body,
        spec: NosanaMarketSpec,
        status: NosanaMarketStatus,
        *,
        refusal: str | None,
        jobs: Mapping[str, Known[JobFacts]] | None = None,
        fresh: bool = False,
    ) -> MarketView:
        """The view of now.

        By the watcher's snapshots, whose accounts may be of different moments: a key can have left the queue
        in one while its run is not in the other yet. `fresh=True` asks the chain: the market at the slot of
        our last transaction or later, and the runs at the market's slot or later, so that whatever left the
        queue is found among the runs.

        `jobs`: job accounts that were read a moment ago, as `serving` read them.
        """
        self._checks.use.note(self._edges.cache.list(MARKET_KIND), self._edges.cache.list(JOB_KIND))
        ref = _ref(body)
        self._refusals[ref] = refusal
        view = await self._look(body, spec, status, asked=True, fresh=fresh, jobs=jobs)
        holders = [holder(view, told=None, wanted=wants(view))]
        unread: list[str] = []
        for other, theirs, told in self._others(body):
            seen = await self._look(other, theirs, told, asked=False, fresh=False)
            holders.append(holder(seen, told=told.slots, wanted=wants(seen)))
            if any(wallet.unread and wallet.address is None for wallet in seen.wallets):
                unread.append(theirs.address)
        shares = divide(self._edges.cache.list("Node"), self._edges.cache.list("Pod"), holders)
        return replace(view, share=shares[holders[0].name], served=self._served(view, unread))

    async def serving(self, body: Body, spec: NosanaMarketSpec, status: NosanaMarketStatus) -> MarketView:
        """The watcher's snapshots of the runs, with their jobs: all that making NosanaJobs needs.

        Nothing else may be decided from it: it knows of no transaction, and of no other NosanaMarket.
        """
        return await self._look(body, spec, status, asked=False, fresh=False)

    def put_out(self, body: Body) -> Collection[str]:
        """Keys of the NosanaMarket that were put out of the queue since this was last asked for."""
        return self._standings.put_out(body["metadata"]["uid"])

    def forget(self) -> None:
        """Drop what is remembered of NosanaMarkets that are gone."""
        there = self._edges.cache.list(MARKET_KIND)
        self._standings.forget_all_but({one["metadata"]["uid"] for one in there})
        self.watch_all()

    def _served(self, view: MarketView, unread: Collection[str]) -> frozenset[tuple[str, str]]:
        """(market, key): what the NosanaMarkets of the view's network serve.

        `unread`: markets that may be served with any key, for a Secret could not be read.
        """
        out = {(market, wallet.address) for market in unread for wallet in view.wallets if wallet.address}
        for body in self._edges.cache.list(MARKET_KIND):
            if body["spec"].get("network") == view.spec.network:
                out |= {(body["spec"].get("address", ""), key) for key in self._wallets.addresses(body)}
        return frozenset(out)

    def _others(self, body: Body) -> Iterator[tuple[Body, NosanaMarketSpec, NosanaMarketStatus]]:
        """The other NosanaMarkets that can be read: they may have a hold on the same nodes."""
        for other in self._edges.cache.list(MARKET_KIND):
            if _ref(other) == _ref(body):
                continue
            try:
                spec = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", other["spec"])
                status = parse_part(NosanaMarketStatus, MARKET_KIND, "status", other.get("status"))
            except ApiError:
                continue  # It says so itself; pods of its jobs count as they are.
            yield dict(other), spec, status

    async def _look(
        self,
        body: Body,
        spec: NosanaMarketSpec,
        status: NosanaMarketStatus,
        *,
        asked: bool,
        fresh: bool,
        jobs: Mapping[str, Known[JobFacts]] | None = None,
    ) -> MarketView:
        """The view without its share of the nodes.

        `asked=False`: for what the NosanaMarket holds. Only its own decision asks the chain about its
        transactions; here they count as long as they stand in the status.
        """
        meta, ref = body["metadata"], _ref(body)
        loaded = await self._wallets.of_market(body, spec)
        if asked:
            self.watch_all()
        chain = self._edges.networks.chain(spec.network)
        problem = chain.problem_with(spec.address) if chain else None
        pending: tuple[PendingTransaction, ...] = ()
        market: Known[MarketFacts] = UNKNOWN
        wallets = [_wallet_view(one, UNKNOWN, UNKNOWN) for one in loaded]
        jobs = dict(jobs or {})
        standing = Standing(wallets, frozenset(), frozenset(), frozenset())
        if chain is not None and problem is None:
            pending = (
                await self._pending(chain, ref, spec, status.transactions, fresh=fresh)
                if asked
                else self._unasked(ref, status.transactions)
            )
            landed = max((one.outcome.slot or 0 for one in pending), default=0)
            market = await self._market(chain, spec.address, landed if fresh else None)
            not_before = None
            if fresh:
                not_before = market.slot if isinstance(market, MarketFacts) else landed
            wallets = [await self._wallet(chain, spec.network, one, not_before) for one in loaded]
            if fresh:
                pending = self._seen_by(ref, pending, market, wallets)
            if isinstance(market, MarketFacts):
                standing = await self._standings.look(
                    chain, meta["uid"], market, wallets, status.wallets, pending
                )
                wallets = list(standing.wallets)
            for run in _runs(wallets):
                if run.job not in jobs:
                    jobs[run.job] = await self._job(chain, run.job)
            needed = {one.transaction.key for one in pending}
            needed |= serving_keys(self._edges.cache, ref, spec.job_namespace)
            wallets = [
                wallet
                for wallet, one in zip(wallets, loaded, strict=True)
                if not one.former or wallet.address in needed or _holds(wallet, market, jobs, spec.address)
            ]
        slot = market.slot if isinstance(market, MarketFacts) else None
        wallets = self._use_of_keys(spec.network, wallets, status.wallets, slot)
        keys = frozenset(one.address for one in wallets if one.address is not None)
        early = (
            asked and chain is not None and not self._checks.asked(spec.network, keys, spec.payout_address)
        )
        held = self._jobs.held(ref, spec, wallets)
        return MarketView(
            ref=ref,
            spec=spec,
            deleting=bool(meta.get("deletionTimestamp")),
            network_known=chain is not None,
            networks=tuple(self._edges.networks.names()),
            address_problem=problem,
            payout_problem=self._payout_problem(spec),
            market=market,
            wallets=tuple(wallets),
            jobs=jobs,
            known=self._jobs.behind(ref, spec.job_namespace, _runs(wallets)),
            occupied=frozenset(held.occupied),
            job_uids=frozenset(held.occupied.values()),
            unsettled=held.unsettled,
            served=frozenset(),
            refusal=self._refusals.get(ref),
            pending=pending,
            leaving=leaves_until(meta.get("annotations"), self._edges.clock.now()),
            missing=standing.missing,
            held_back=standing.held_back
            | self._busy_elsewhere(ref, spec.network)
            | frozenset(key for key in keys if early or not self._checks.use.judged(spec.network, key)),
            ours=standing.ours,
            fee_cap=chain.fee_cap() if chain else 0,
            now=self._edges.clock.now(),
            share=_NONE,
            young=self._young(chain, _runs(wallets)) if chain else frozenset(),
            early=early,
        )

    def watch_all(self) -> None:
        """Tell each network which accounts matter now."""
        watch_all(self._edges.cache, self._edges.networks, self._wallets)

    # -- chain --------------------------------------------------------------------------------------------

    async def _pending(
        self,
        chain: Chain,
        ref: MarketRef,
        spec: NosanaMarketSpec,
        transactions: Sequence[Transaction],
        *,
        fresh: bool,
    ) -> tuple[PendingTransaction, ...]:
        pairs = [
            (one, await chain.outcome(one.signature, one.last_valid_block_height)) for one in transactions
        ]
        landed = {one.signature for one, out in pairs if out.fate in (Fate.CONFIRMED, Fate.FINALIZED)}
        seen = self._seen.get(ref, frozenset()) & landed
        new = [(one, out) for one, out in pairs if one.signature in landed - seen]
        # A fresh view reads market and runs after this anyway: see `_seen_by`.
        if new and not fresh and await self._read_again(chain, spec.address, new):
            seen |= landed
        self._seen[ref] = seen
        return tuple(PendingTransaction(one, outcome, seen=one.signature in seen) for one, outcome in pairs)

    def _unasked(self, ref: MarketRef, transactions: Sequence[Transaction]) -> tuple[PendingTransaction, ...]:
        seen = self._seen.get(ref, frozenset())
        return tuple(
            PendingTransaction(one, Outcome(Fate.UNKNOWN), seen=one.signature in seen) for one in transactions
        )

    def _busy_elsewhere(self, ref: MarketRef, network: str) -> frozenset[str]:
        """Keys with a transaction under way in another market: each has one at a time."""
        return frozenset(
            one["key"]
            for other in self._edges.cache.list(MARKET_KIND)
            if _ref(other) != ref and other["spec"].get("network") == network
            for one in (other.get("status") or {}).get("transactions") or ()
            if one["signature"] not in self._seen.get(_ref(other), frozenset())
        )

    def _use_of_keys(
        self, network: str, wallets: Sequence[WalletView], before: Sequence[WalletStatus], slot: int | None
    ) -> list[WalletView]:
        """With what is known of other users of the keys, by the status where the chain is silent.

        `slot`: the chain's; None: it has not answered.
        """
        known = {one.address: one.foreign for one in before}
        done = acknowledged(self._edges.cache.list(MARKET_KIND))
        out = []
        for wallet in wallets:
            if wallet.address is not None:
                address = wallet.address
                told = known.get(address)
                lamports = wallet.funds.lamports if isinstance(wallet.funds, Funds) else None
                foreign = self._checks.use.seen(network, address, slot=slot, lamports=lamports, known=told)
                if foreign is not None and foreign not in done:
                    wallet = _used_elsewhere(wallet, foreign)
            out.append(wallet)
        return out

    def _seen_by(
        self,
        ref: MarketRef,
        pending: Sequence[PendingTransaction],
        market: Known[MarketFacts],
        wallets: Sequence[WalletView],
    ) -> tuple[PendingTransaction, ...]:
        """With what a fresh reading shows the effects of, where it came about."""
        if market is UNKNOWN:
            return tuple(pending)
        read = {wallet.address for wallet in wallets if not isinstance(wallet.runs, Absent)}
        landed = (Fate.CONFIRMED, Fate.FINALIZED)
        out = tuple(
            replace(one, seen=True) if one.outcome.fate in landed and one.transaction.key in read else one
            for one in pending
        )
        self._seen[ref] = frozenset(one.transaction.signature for one in out if one.seen)
        return out

    async def _read_again(
        self, chain: Chain, address: str, landed: Sequence[tuple[Transaction, Outcome]]
    ) -> bool:
        """Read market and runs as they are with the effects of these transactions."""
        try:
            market = await chain.refresh_market(address, not_before=max(out.slot or 0 for _, out in landed))
            for key in sorted({one.key for one, _ in landed}):
                await chain.refresh_runs(key, not_before=market.slot if market else 0)
        except NosanaError as exc:
            log.warning("effects not read yet: %s", exc, extra={"market": address})
            return False
        return True

    async def _market(self, chain: Chain, address: str, not_before: int | None) -> Known[MarketFacts]:
        """The snapshot, or with a slot the market as it is then or later."""
        found = chain.watched_market(address)
        if isinstance(found, MarketFacts) and not_before is None:
            return found
        try:
            return await chain.refresh_market(address, not_before=not_before or 0) or GONE
        except NosanaError as exc:
            log.warning("market not read: %s", exc, extra={"market": address})
            return UNKNOWN

    async def _wallet(
        self, chain: Chain, network: str, loaded: LoadedWallet, not_before: int | None
    ) -> WalletView:
        address = loaded.address
        if address is None or loaded.unknown:
            return _wallet_view(loaded, UNKNOWN, UNKNOWN)
        runs = chain.watched_runs(address)
        if not_before is not None:
            runs = await self._runs_now(chain, address, not_before)
        return _wallet_view(loaded, self._checks.funds(network, address), runs)

    async def _runs_now(self, chain: Chain, key: str, not_before: int) -> Known[tuple[RunFacts, ...]]:
        try:
            return await chain.refresh_runs(key, not_before=not_before)
        except NosanaError as exc:
            log.warning("runs not read: %s", exc, extra={"wallet": key})
            return UNKNOWN

    def _young(self, chain: Chain, runs: Sequence[RunFacts]) -> frozenset[str]:
        """The runs that have just begun."""
        now = self._edges.clock.now()
        return frozenset(run.address for run in runs if now - chain.our_time(run.time) < YOUNG)

    def _payout_problem(self, spec: NosanaMarketSpec) -> str | None:
        """What is known against the payout address, before anything is to be paid there."""
        if spec.payout_address is None:
            return None
        return self._checks.payout_problem(spec.network, spec.payout_address)

    async def _job(self, chain: Chain, address: str) -> Known[JobFacts]:
        found = chain.watched_job(address)
        if found is not UNKNOWN:
            return found
        try:
            return await chain.read_job(address) or GONE
        except NosanaError as exc:
            log.warning("job not read: %s", exc, extra={"job": address})
            return UNKNOWN


def _ref(body: Mapping[str, Any]) -> MarketRef:
    return MarketRef(namespace=body["metadata"]["namespace"], name=body["metadata"]["name"])


def _used_elsewhere(wallet: WalletView, signature: str) -> WalletView:
    said = (
        f"signed the transaction {signature}, which this operator did not make: another host has this key; end "
        f"that one, then annotate this NosanaMarket {ANNOTATION_KEY_USE}={signature}. Until then it takes no "
        "job; its runs still settle"
    )
    problem = wallet.problem or (MarketReason.KEY_IN_USE_ELSEWHERE, said)
    return replace(wallet, foreign=signature, problem=problem)


def _runs(wallets: Sequence[WalletView]) -> list[RunFacts]:
    return [run for wallet in wallets if not isinstance(wallet.runs, Absent) for run in wallet.runs]


def _holds(
    wallet: WalletView, market: Known[MarketFacts], jobs: Mapping[str, Known[JobFacts]], address: str
) -> bool:
    """Whether a key stands in the market or holds a run of it, or may."""
    if market is UNKNOWN or isinstance(wallet.runs, Absent):
        return True
    if isinstance(market, MarketFacts) and wallet.address in market.standing:
        return True
    found = (jobs.get(run.job) for run in wallet.runs)
    return any(not isinstance(job, JobFacts) or job.market == address for job in found)


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
