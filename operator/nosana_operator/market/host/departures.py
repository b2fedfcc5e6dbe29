"""Wallets that have left a market's queue since the last reconcile, and why.

A wallet leaves the queue when it is given a job, by our own `stop`, or because the market's authority or another
holder of its key removes it. Its run may become visible later than the queue without it, or earlier: the
watcher's snapshots are not of one moment.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from nosana_operator.api import WalletStatus
from nosana_operator.errors import NosanaError
from nosana_operator.market.facts import Absent, Fate, MarketFacts
from nosana_operator.market.host.view import PendingTransaction, WalletView
from nosana_operator.market.ports import Chain, Clock

log = logging.getLogger(__name__)

HOLD_BACK = timedelta(seconds=60)
"""A wallet that was evicted from a queue waits this long before it joins again: each time costs a fee."""


@dataclass(frozen=True, slots=True)
class Departures:
    """What became of a market's wallets since they were last seen in its queue."""

    wallets: Sequence[WalletView]
    """With the runs that were read on the way."""
    unexplained: frozenset[str]
    """Wallets that left the queue for a reason not known yet."""
    held_back: frozenset[str]
    """Wallets that were evicted a moment ago."""
    queued_by_us: frozenset[str]
    """Wallets that are in the queue because of a `work` of ours."""


@dataclass(slots=True)
class _QueueMemory:
    queued: dict[str, frozenset[str] | None]
    """Wallet → the runs that it has had since it was first seen in the queue; None: not seen by this process."""
    queued_by_us: set[str]
    evicted_at: dict[str, datetime] = field(default_factory=dict)
    unreported: set[str] = field(default_factory=set)


class QueueDepartures:
    """The queues as they were; losing this costs only the report of what happened meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._memory: dict[str, _QueueMemory] = {}
        """By the NosanaMarket's uid: one that is created again under an old name has no past."""

    async def compare(
        self,
        chain: Chain,
        uid: str,
        market: MarketFacts,
        wallets: Sequence[WalletView],
        previous: Sequence[WalletStatus],
        pending: Sequence[PendingTransaction],
    ) -> Departures:
        """Compare the queue of NosanaMarket `uid` with how it was; `previous` are the wallets of its status."""
        memory = self._memory.get(uid)
        if memory is None:
            queued = {one.address for one in previous if one.standing and one.address}
            memory = self._memory[uid] = _QueueMemory(dict.fromkeys(queued), queued)
        under_way = {one.transaction.key for one in pending if not one.outcome.dead}
        # A `stop` that has not landed may have come too late, after the wallet was given a job.
        stopped = {one.transaction.key for one in pending if one.transaction.kind == "stop" and _landed(one)}
        working = {one.transaction.key for one in pending if one.transaction.kind == "work"}
        out, unexplained = [], set()
        for wallet in wallets:
            address = wallet.address
            if address is None or isinstance(wallet.runs, Absent):
                out.append(wallet)
                unexplained |= memory.queued.keys() & {address} - market.standing
                continue
            if address in market.standing:
                # The program takes a wallet out of the queue when it gives it a run. So a run that is new here
                # belongs to a later state of the queue than this snapshot shows.
                before = memory.queued.get(address)
                memory.queued[address] = _runs(wallet) if before is None else before & _runs(wallet)
                if address in working:
                    memory.queued_by_us.add(address)
            elif address in memory.queued:
                before = memory.queued[address] or frozenset()
                if address not in stopped and not _runs(wallet) - before:
                    wallet = await self._with_current_runs(chain, wallet, market.slot)
                if isinstance(wallet.runs, Absent):
                    unexplained.add(address)
                else:
                    del memory.queued[address]
                    memory.queued_by_us.discard(address)
                    if address not in under_way and not _runs(wallet) - before:
                        memory.evicted_at[address] = self._clock.now()
                        memory.unreported.add(address)
            out.append(wallet)
        return Departures(
            out, frozenset(unexplained), self._held_back(memory), frozenset(memory.queued_by_us)
        )

    def take_evicted(self, uid: str) -> Collection[str]:
        """Wallets that were evicted from the queue since the last call."""
        memory = self._memory.get(uid)
        if memory is None:
            return ()
        evicted, memory.unreported = sorted(memory.unreported), set()
        return evicted

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop the NosanaMarkets that are gone."""
        self._memory = {uid: memory for uid, memory in self._memory.items() if uid in uids}

    def _held_back(self, memory: _QueueMemory) -> frozenset[str]:
        now = self._clock.now()
        memory.evicted_at = {key: at for key, at in memory.evicted_at.items() if now - at < HOLD_BACK}
        return frozenset(memory.evicted_at)

    async def _with_current_runs(self, chain: Chain, wallet: WalletView, not_before: int) -> WalletView:
        """The wallet with its runs as of a slot at which it had left the queue."""
        try:
            runs = await chain.refresh_runs(wallet.address or "", not_before=not_before)
        except NosanaError as exc:
            log.warning("cannot read the wallet's runs: %s", exc, extra={"wallet": wallet.address})
            return replace(wallet, runs=Absent.UNKNOWN)
        return replace(wallet, runs=runs)


def _landed(pending: PendingTransaction) -> bool:
    return pending.outcome.fate in (Fate.CONFIRMED, Fate.FINALIZED)


def _runs(wallet: WalletView) -> frozenset[str]:
    return frozenset() if isinstance(wallet.runs, Absent) else frozenset(run.address for run in wallet.runs)
