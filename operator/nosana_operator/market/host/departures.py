"""Who stood in a market's queue when it was last looked at, so that nobody leaves it unnoticed.

A key leaves the queue when a job is given to it (its run may be seen later than the queue without it, or sooner:
what the watcher shows is of no single moment), by our own `stop`, or because the market's authority or another
holder of the key puts it out.
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
"""A key that was put out of a queue does not stand again at once: each time costs a fee."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was found out about a market's keys."""

    wallets: list[WalletView]
    """With the runs that were read on the way."""
    missing: frozenset[str]
    """Keys that have left the queue, it is not known yet by what."""
    held_back: frozenset[str]
    """Keys that were put out a moment ago."""
    ours: frozenset[str]
    """Keys that stand because of a `work` of ours."""


@dataclass(slots=True)
class _Memory:
    stood: dict[str, frozenset[str] | None]
    """Key → the runs that it has had since it was first seen standing; None: this process did not see it yet."""
    ours: set[str]
    put_out: dict[str, datetime] = field(default_factory=dict)
    untold: set[str] = field(default_factory=set)


class Standings:
    """The queues as they were; losing this costs only the news of what happened meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._memory: dict[str, _Memory] = {}
        """By the NosanaMarket's uid: one that is made anew under an old name has no past."""

    async def look(
        self,
        chain: Chain,
        uid: str,
        market: MarketFacts,
        wallets: Sequence[WalletView],
        before: Sequence[WalletStatus],
        pending: Sequence[PendingTransaction],
    ) -> Standing:
        """Compare the queue of NosanaMarket `uid` with how it was; `before` are the keys as its status has them."""
        memory = self._memory.get(uid)
        if memory is None:
            stood = {one.address for one in before if one.standing and one.address}
            memory = self._memory[uid] = _Memory(dict.fromkeys(stood), stood)
        under_way = {one.transaction.key for one in pending if not one.outcome.dead}
        # A `stop` that has not landed may have come too late: a job was given to the key before.
        left = {one.transaction.key for one in pending if one.transaction.kind == "stop" and _landed(one)}
        working = {one.transaction.key for one in pending if one.transaction.kind == "work"}
        out, missing = [], set()
        for wallet in wallets:
            address = wallet.address
            if address is None or isinstance(wallet.runs, Absent):
                out.append(wallet)
                missing |= memory.stood.keys() & {address} - market.standing
                continue
            if address in market.standing:
                # A key that stands is given no run: one that is new is of a queue that is not shown yet.
                had = memory.stood.get(address)
                memory.stood[address] = _runs(wallet) if had is None else had & _runs(wallet)
                if address in working:
                    memory.ours.add(address)
            elif address in memory.stood:
                had = memory.stood[address] or frozenset()
                if address not in left and not _runs(wallet) - had:
                    wallet = await self._runs_now(chain, wallet, market.slot)
                if isinstance(wallet.runs, Absent):
                    missing.add(address)
                else:
                    del memory.stood[address]
                    memory.ours.discard(address)
                    if address not in under_way and not _runs(wallet) - had:
                        memory.put_out[address] = self._clock.now()
                        memory.untold.add(address)
            out.append(wallet)
        return Standing(out, frozenset(missing), self._held_back(memory), frozenset(memory.ours))

    def put_out(self, uid: str) -> Collection[str]:
        """Keys that were put out since this was last asked for."""
        memory = self._memory.get(uid)
        if memory is None:
            return ()
        told, memory.untold = sorted(memory.untold), set()
        return told

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop the NosanaMarkets that are gone."""
        self._memory = {uid: memory for uid, memory in self._memory.items() if uid in uids}

    def _held_back(self, memory: _Memory) -> frozenset[str]:
        now = self._clock.now()
        memory.put_out = {key: at for key, at in memory.put_out.items() if now - at < HOLD_BACK}
        return frozenset(memory.put_out)

    async def _runs_now(self, chain: Chain, wallet: WalletView, not_before: int) -> WalletView:
        """With the runs as they are without the key in the queue."""
        try:
            runs = await chain.refresh_runs(wallet.address or "", not_before=not_before)
        except NosanaError as exc:
            log.warning("runs not read: %s", exc, extra={"wallet": wallet.address})
            return replace(wallet, runs=Absent.UNKNOWN)
        return replace(wallet, runs=runs)


def _landed(pending: PendingTransaction) -> bool:
    return pending.outcome.fate in (Fate.CONFIRMED, Fate.FINALIZED)


def _runs(wallet: WalletView) -> frozenset[str]:
    return frozenset() if isinstance(wallet.runs, Absent) else frozenset(run.address for run in wallet.runs)
