"""Detects that somebody else uses one of our wallets: two hosts would run, and settle, the same jobs.

The evidence is a finalized transaction which the wallet signed for the Jobs program and for which we have no intent.
Only finalized transactions are judged, because our own intents are in the objects from before they are sent until
after they are finalized. So neither a crash nor a fork nor a lagging watch makes one of ours look foreign:

    our transaction     intent written ─ sent ─ confirmed ─ finalized ─ intent leaves the status ─ an hour later
    intents known       yes              yes    yes         yes         yes (remembered)           forgotten
    judged                                                  from here on: the signature is known, it is ours

    foreign             sent by another host ─ confirmed ─ finalized
    judged                                                 no intent: reported, and the wallet gets no more jobs

A pass walks back through the wallet's history, from its newest transaction to those that were judged before:

    history   newest  e  d  c  b  a  oldest      the last pass ended at b
    page 1            e  d                       judge e and d
    page 2               d  c  b                 overlaps by one: a node that does not know d answers with nothing,
                                                 as it would at the end of the history, and must not be believed
    end of the pass                              e is where the next one ends

A pass starts when the wallet's balance has changed (each transaction that it pays for changes it), 30 s later so that
the cause is finalized, and every 10 minutes otherwise, for somebody else may have paid the fee. A stranger can fill a
history by sending dust: a pass makes 20 requests at a time and continues in the next reconcile. A transaction that
no node returns is judged later, and hides no other one. What was finalized before this process first saw the wallet
is not judged.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from nosana_operator.api import ANNOTATION_KEY_USE
from nosana_operator.errors import NosanaError, Unavailable
from nosana_operator.market.facts import Past
from nosana_operator.market.ports import Chain, Clock

log = logging.getLogger(__name__)

FINALITY_DELAY = 30.0
"""Seconds from a change of the wallet's balance to the next pass: what changed it is finalized by then."""
PASS_INTERVAL = 600.0
"""Seconds between passes while the balance stays the same: somebody else may have paid the fees."""
PAGE = 1000
"""Transactions in one page, when it is known at which one the pass ends."""
FIRST_PAGE = 50
"""Transactions in the first page when it is not."""
REQUESTS_AT_ONCE = 20
"""Requests for one wallet before the others get theirs: strangers who send dust to it delay nobody else."""
TRIES_PER_PASS = 3
"""How often a pass asks for a transaction that the nodes do not return before it continues without it."""
LATER_PASSES = 20
"""Further passes that ask for it; after them it is given up."""
HISTORY_LAG = 3600.0
"""Seconds by which a node's history may lag: an intent that has left its object is remembered this long after the
start of the oldest complete pass."""
REMEMBERED_AT_MOST = 86_400.0
"""Seconds for which it is remembered even if no pass completes: a node may never return a history."""


class _HistoryGap(Unavailable):
    """The node does not know the transaction at which the page should have begun."""


@dataclass(slots=True)
class _Pass:
    """One walk back through a wallet's history, from its newest transaction to those judged before."""

    began: datetime
    newest: Past | None = None
    in_newest_slot: set[str] = field(default_factory=set)
    """Signatures in the newest one's slot."""
    waiting: deque[Past] = field(default_factory=deque)
    """Read and not judged yet, the newest first."""
    last_two: tuple[str, str] | None = None
    """The last two signatures of the last page. The next page is requested from the second-last on, so that it has to
    begin with the last: a node that does not know that one answers with nothing, as at the end."""
    all_read: bool = False
    tries: Counter[str] = field(default_factory=Counter)
    """By signature: how often the nodes did not return it."""
    foreign_slot: int = 0
    """Slot of the newest foreign one: older ones need no report."""
    paused: bool = False
    """It got no answer, and continues after a while."""


@dataclass(slots=True)
class _WalletHistory:
    """What was judged of one wallet's history."""

    slot: int
    """Everything up to this slot is judged, and `judged` beyond it: nothing is judged twice."""
    started_at: datetime
    lamports: int | None
    """At the start of the last pass."""
    lamports_now: int | None
    judged_at: datetime
    """When the last complete pass began."""
    changed_at: datetime | None = None
    """When the balance was first seen to differ from that at the last pass."""
    until: str | None = None
    judged: set[str] = field(default_factory=set)
    foreign: str | None = None
    unreturned: dict[str, tuple[Past, int]] = field(default_factory=dict)
    """By signature: what the nodes did not return, and in how many passes."""
    walk: _Pass | None = None
    """A pass that is not complete."""

    def due(self, now: datetime) -> bool:
        """Whether a pass should start now."""
        changed = self.changed_at is not None and (now - self.changed_at).total_seconds() >= FINALITY_DELAY
        return changed or (now - self.started_at).total_seconds() >= PASS_INTERVAL


class ForeignUse:
    """Examines the histories of all wallets; keeps caches only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._histories: dict[tuple[str, str], _WalletHistory] = {}
        self._intents: frozenset[str] = frozenset()
        """Signatures of the intents in the objects."""
        self._former_intents: dict[str, datetime] = {}
        """Signature → when the intent had left its object; the earliest first."""

    def record_intents(self, markets: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]]) -> None:
        """Read the intents in all objects, and remember those that have left them."""
        intents = [
            one["signature"]
            for market in markets
            for one in (market.get("status") or {}).get("transactions") or ()
        ]
        for job in jobs:
            intent = ((job.get("status") or {}).get("settlement") or {}).get("transaction")
            intents += [intent["signature"]] if intent else []
        before, self._intents = self._intents, frozenset(intents)
        now = self._clock.now()
        for signature in before - self._intents:
            self._former_intents.pop(signature, None)
            self._former_intents[signature] = now
        judged = min((state.judged_at for state in self._histories.values()), default=now)
        keep = max(judged - timedelta(seconds=HISTORY_LAG), now - timedelta(seconds=REMEMBERED_AT_MOST))
        while self._former_intents and next(iter(self._former_intents.values())) < keep:
            del self._former_intents[next(iter(self._former_intents))]

    def observe(
        self, network: str, wallet: str, *, slot: int | None, lamports: int | None, reported: str | None
    ) -> str | None:
        """Record a wallet's balance; returns the signature of its newest foreign transaction, or None.

        Args:
            network: of the wallet.
            wallet: its address.
            slot: the chain's, as just read: what is finalized when the wallet is first observed is not judged.
                None: not known, and the wallet is not observed yet.
            lamports: its balance. Each transaction that it pays for changes that, so no request is made while it
                stays the same. None: not known.
            reported: the signature that its status reports already.
        """
        now = self._clock.now()
        state = self._histories.get((network, wallet))
        if state is None:
            if slot is None:
                return reported
            state = self._histories[network, wallet] = _WalletHistory(slot, now, lamports, lamports, now)
        state.foreign = state.foreign or reported
        if lamports is not None:
            state.lamports_now = lamports
            if lamports != state.lamports and state.changed_at is None:
                state.changed_at = now
        return state.foreign

    def is_examined(self, network: str, wallet: str) -> bool:
        """Whether nothing in the wallet's history waits to be judged; a pass that got no answer counts as made."""
        state = self._histories.get((network, wallet))
        return state is not None and not _under_way(state) and not state.due(self._clock.now())

    def has_backlog(self, network: str) -> bool:
        """Whether the pass of some wallet continues at once."""
        return any(_under_way(state) for (other, _), state in self._histories.items() if other == network)

    async def examine(self, chain: Chain, network: str, wallets: Iterable[str]) -> bool:
        """Start or continue the pass of each wallet that is due; returns whether anything new is known."""
        news = False
        for wallet in wallets:
            state = self._histories.get((network, wallet))
            now = self._clock.now()
            if state is None or not (_under_way(state) or state.due(now)):
                continue
            if state.walk is None or state.walk.paused:
                state.started_at, state.lamports, state.changed_at = now, state.lamports_now, None
            walk = state.walk or _Pass(now)
            before = state.foreign
            state.walk, walk.paused = walk, False
            try:
                await self._walk_back(chain, wallet, state, walk)
            except NosanaError as exc:
                log.warning("cannot read the wallet's history: %s", exc, extra={"wallet": wallet})
                # Try again after the usual delay, however often this is called.
                state.changed_at, walk.paused = now, True
                if isinstance(exc, _HistoryGap):
                    state.walk = None
            news = news or state.foreign != before or not _under_way(state)
        return news

    async def _walk_back(self, chain: Chain, wallet: str, state: _WalletHistory, walk: _Pass) -> None:
        """Continue a pass. Once it is complete, the next one ends where this one began."""
        for _ in range(REQUESTS_AT_ONCE):
            while walk.waiting and not self._in_question(walk.waiting[0], state):
                walk.waiting.popleft()
            if walk.waiting:
                await self._judge(chain, wallet, state, walk)
            elif not walk.all_read:
                await self._read_page(chain, wallet, state, walk)
            else:
                break
        if walk.waiting or not walk.all_read:
            return
        state.walk, state.judged_at = None, walk.began
        if walk.newest is not None and walk.newest.slot > state.slot:
            # The next pass ends at this transaction, so what is older need not be remembered.
            state.until, state.slot, state.judged = (
                walk.newest.signature,
                walk.newest.slot - 1,
                walk.in_newest_slot,
            )

    async def _read_page(self, chain: Chain, wallet: str, state: _WalletHistory, walk: _Pass) -> None:
        limit = FIRST_PAGE if state.until is None and walk.last_two is None else PAGE
        before, last = walk.last_two or (None, None)
        page = await chain.read_history(wallet, until=state.until, before=before, limit=limit)
        if last is not None and (not page or page[0].signature != last):
            raise _HistoryGap(f"the node that answers does not know {last}")
        if walk.newest is None and page:
            walk.newest = page[0]
        if walk.newest is not None:
            walk.in_newest_slot |= {one.signature for one in page if one.slot == walk.newest.slot}
        walk.all_read = len(page) < limit or page[-1].slot <= state.slot
        walk.waiting.extend(one for one in (page if last is None else page[1:]) if one.slot > state.slot)
        if walk.all_read:
            walk.waiting.extend(one for one, _ in state.unreturned.values())
        if len(page) > 1:
            walk.last_two = page[-2].signature, page[-1].signature

    def _in_question(self, one: Past, state: _WalletHistory) -> bool:
        new = one.signature not in state.judged or one.signature in state.unreturned
        own = one.signature in self._intents or one.signature in self._former_intents
        return new and not one.failed and not own

    async def _judge(self, chain: Chain, wallet: str, state: _WalletHistory, walk: _Pass) -> None:
        one = walk.waiting.popleft()
        try:
            kind = await chain.signed_by(one.signature, wallet)
        except NosanaError:
            self._postpone(state, walk, one)
            raise
        state.unreturned.pop(one.signature, None)
        if kind is None:
            return
        log.error(
            "another host uses this wallet: it signed a %s that is not ours",
            kind,
            extra={"wallet": wallet, "signature": one.signature},
        )
        if one.slot > walk.foreign_slot:
            state.foreign, walk.foreign_slot = one.signature, one.slot

    def _postpone(self, state: _WalletHistory, walk: _Pass, one: Past) -> None:
        """Judge it after the others of this pass, then in later passes: one that no node returns hides no other."""
        walk.tries[one.signature] += 1
        if walk.tries[one.signature] < TRIES_PER_PASS:
            walk.waiting.append(one)
            return
        _, passes = state.unreturned.pop(one.signature, (one, 0))
        if passes < LATER_PASSES:
            state.unreturned[one.signature] = one, passes + 1
        else:
            log.warning(
                "giving up on a transaction that no node returns: not judged",
                extra={"signature": one.signature},
            )


def _under_way(state: _WalletHistory) -> bool:
    return state.walk is not None and not state.walk.paused


def acknowledged_signatures(markets: Iterable[Mapping[str, Any]]) -> Collection[str]:
    """Signatures of foreign transactions that admins have acknowledged."""
    return {
        signature
        for market in markets
        for signature in str(
            (market["metadata"].get("annotations") or {}).get(ANNOTATION_KEY_USE, "")
        ).split()
    }
