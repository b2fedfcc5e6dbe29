"""Is a key used by somebody else too? Then two hosts would run, and settle, the same jobs.

What tells is a transaction that the key signed for the Jobs program and that we have no intent for. Only what
is finalized is judged: our own intents stand in the objects from before they are sent until after that, so
neither a crash nor a fork nor a watch that lags makes one of ours look strange. What was there before this
process looked first is taken as it is.
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

SETTLES = 30.0
"""Seconds after a change of the key's balance at which its history is looked at: what changed it is final then."""
LOOK_EVERY = 600.0
"""Seconds between looks when the balance stays: somebody else may have paid the fees."""
PAGE = 1000
"""Transactions in one answer, where it is known from which one on they are wanted."""
FIRST_PAGE = 50
"""The same where it is not."""
AT_ONCE = 20
"""Requests for one key in one look: strangers who send dust to it keep nobody else waiting."""
TRIES = 3
"""How often a transaction that the nodes do not give is asked for before the look goes on without it."""
LATER_LOOKS = 20
"""Looks that ask for it again; then it is let go."""
LAGS = 3600.0
"""Seconds for which the nodes' histories may lag: an intent that has left its object is remembered for so long after
the look that has judged it."""
LEFT = 86_400.0
"""Seconds for which it is remembered at most: a node may never give a history."""


class _Lost(Unavailable):
    """The node does not know the transaction from which on it was asked."""


@dataclass(slots=True)
class _Way:
    """The way back through a key's history, from its newest transaction to what was judged before."""

    began: datetime
    newest: Past | None = None
    beside: set[str] = field(default_factory=set)
    """Signatures of the newest one's slot."""
    waiting: deque[Past] = field(default_factory=deque)
    """Read and not judged yet, the newest first."""
    last_two: tuple[str, str] | None = None
    """The end of the last page. The next is asked for from before the second-last on, so that it has to begin
    with the last: a node that does not know where to go on gives nothing, as at the end."""
    all_read: bool = False
    tries: Counter[str] = field(default_factory=Counter)
    """By signature: how often the nodes did not give it."""
    found: int = 0
    """Slot of one that is not ours: older ones are no news."""
    paused: bool = False
    """It got no answer, and goes on after a while."""


@dataclass(slots=True)
class _Key:
    """What was judged of one key's history."""

    slot: int
    """Up to here, and `judged` beyond: nothing is judged twice."""
    looked_at: datetime
    lamports: int | None
    """At the last look."""
    lamports_now: int | None
    judged_at: datetime
    """When the last look that came to its end began."""
    changed_at: datetime | None = None
    """When the balance was first seen to be another than at the last look."""
    until: str | None = None
    judged: set[str] = field(default_factory=set)
    foreign: str | None = None
    unread: dict[str, tuple[Past, int]] = field(default_factory=dict)
    """By signature: what the nodes did not give, and in how many looks."""
    way: _Way | None = None
    """A look that is not at its end."""

    def due(self, now: datetime) -> bool:
        """Whether its history is to be looked at now."""
        changed = self.changed_at is not None and (now - self.changed_at).total_seconds() >= SETTLES
        return changed or (now - self.looked_at).total_seconds() >= LOOK_EVERY


class KeyUse:
    """Looks through the keys' histories."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[tuple[str, str], _Key] = {}
        self._standing: frozenset[str] = frozenset()
        """Signatures of the intents that stand in the objects."""
        self._left: dict[str, datetime] = {}
        """By signature, the earliest first: when an intent had left its object."""

    def note(self, markets: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]]) -> None:
        """Take in the intents as they stand in the objects."""
        intents = [
            one["signature"]
            for market in markets
            for one in (market.get("status") or {}).get("transactions") or ()
        ]
        for job in jobs:
            intent = ((job.get("status") or {}).get("settlement") or {}).get("transaction")
            intents += [intent["signature"]] if intent else []
        before, self._standing = self._standing, frozenset(intents)
        now = self._clock.now()
        for signature in before - self._standing:
            self._left.pop(signature, None)
            self._left[signature] = now
        judged = min((state.judged_at for state in self._keys.values()), default=now)
        keep = max(judged - timedelta(seconds=LAGS), now - timedelta(seconds=LEFT))
        while self._left and next(iter(self._left.values())) < keep:
            del self._left[next(iter(self._left))]

    def seen(
        self, network: str, key: str, *, slot: int | None, lamports: int | None, known: str | None
    ) -> str | None:
        """Take in how a key is; the signature of its newest transaction that is not ours, or None.

        Args:
            network: where.
            key: its address.
            slot: the chain's, as just read: what is finalized when the key is first seen is not judged. None:
                not known; the key is not seen yet.
            lamports: what the key has. Each transaction that it pays for changes that, so as long as it stays
                the same nothing is asked. None: not known.
            known: what the status says of it already.
        """
        now = self._clock.now()
        state = self._keys.get((network, key))
        if state is None:
            if slot is None:
                return known
            state = self._keys[network, key] = _Key(slot, now, lamports, lamports, now)
        state.foreign = state.foreign or known
        if lamports is not None:
            state.lamports_now = lamports
            if lamports != state.lamports and state.changed_at is None:
                state.changed_at = now
        return state.foreign

    def judged(self, network: str, key: str) -> bool:
        """Whether nothing of the key's history waits to be judged; a look without an answer is one."""
        state = self._keys.get((network, key))
        return state is not None and not _under_way(state) and not state.due(self._clock.now())

    def behind(self, network: str) -> bool:
        """Whether some key's look goes on at once."""
        return any(_under_way(state) for (where, _), state in self._keys.items() if where == network)

    async def look(self, chain: Chain, network: str, keys: Iterable[str]) -> bool:
        """Go on with each key's history that is due; whether something new is known of one."""
        news = False
        for key in keys:
            state = self._keys.get((network, key))
            now = self._clock.now()
            if state is None or not (_under_way(state) or state.due(now)):
                continue
            if state.way is None or state.way.paused:
                state.looked_at, state.lamports, state.changed_at = now, state.lamports_now, None
            way = state.way or _Way(now)
            before = state.foreign
            state.way, way.paused = way, False
            try:
                await self._go_back(chain, key, state, way)
            except NosanaError as exc:
                log.warning("history of the key not read: %s", exc, extra={"wallet": key})
                # Not before the next pause, however often this is called.
                state.changed_at, way.paused = now, True
                if isinstance(exc, _Lost):
                    state.way = None
            news = news or state.foreign != before or not _under_way(state)
        return news

    async def _go_back(self, chain: Chain, key: str, state: _Key, way: _Way) -> None:
        """Some way back; at its end the next look begins where this one did."""
        for _ in range(AT_ONCE):
            while way.waiting and not self._in_question(way.waiting[0], state):
                way.waiting.popleft()
            if way.waiting:
                await self._judge(chain, key, state, way)
            elif not way.all_read:
                await self._read_page(chain, key, state, way)
            else:
                break
        if way.waiting or not way.all_read:
            return
        state.way, state.judged_at = None, way.began
        if way.newest is not None and way.newest.slot > state.slot:
            # What is older than the one from which the next look goes on needs no remembering.
            state.until, state.slot, state.judged = way.newest.signature, way.newest.slot - 1, way.beside

    async def _read_page(self, chain: Chain, key: str, state: _Key, way: _Way) -> None:
        limit = FIRST_PAGE if state.until is None and way.last_two is None else PAGE
        before, last = way.last_two or (None, None)
        page = await chain.read_history(key, until=state.until, before=before, limit=limit)
        if last is not None and (not page or page[0].signature != last):
            raise _Lost(f"the node that answers does not know {last}")
        if way.newest is None and page:
            way.newest = page[0]
        if way.newest is not None:
            way.beside |= {one.signature for one in page if one.slot == way.newest.slot}
        way.all_read = len(page) < limit or page[-1].slot <= state.slot
        way.waiting.extend(one for one in (page if last is None else page[1:]) if one.slot > state.slot)
        if way.all_read:
            way.waiting.extend(one for one, _ in state.unread.values())
        if len(page) > 1:
            way.last_two = page[-2].signature, page[-1].signature

    def _in_question(self, one: Past, state: _Key) -> bool:
        new = one.signature not in state.judged or one.signature in state.unread
        own = one.signature in self._standing or one.signature in self._left
        return new and not one.failed and not own

    async def _judge(self, chain: Chain, key: str, state: _Key, way: _Way) -> None:
        one = way.waiting.popleft()
        try:
            kind = await chain.signed_by(one.signature, key)
        except NosanaError:
            self._put_off(state, way, one)
            raise
        state.unread.pop(one.signature, None)
        if kind is None:
            return
        log.error(
            "the key is used elsewhere: it signed a %s that is not ours",
            kind,
            extra={"wallet": key, "signature": one.signature},
        )
        if one.slot > way.found:
            state.foreign, way.found = one.signature, one.slot

    def _put_off(self, state: _Key, way: _Way, one: Past) -> None:
        """Behind the others of this look, then to later looks: one that no node gives hides no other."""
        way.tries[one.signature] += 1
        if way.tries[one.signature] < TRIES:
            way.waiting.append(one)
            return
        _, looks = state.unread.pop(one.signature, (one, 0))
        if looks < LATER_LOOKS:
            state.unread[one.signature] = one, looks + 1
        else:
            log.warning("no node gives the transaction: not judged", extra={"signature": one.signature})


def _under_way(state: _Key) -> bool:
    return state.way is not None and not state.way.paused


def acknowledged(markets: Iterable[Mapping[str, Any]]) -> Collection[str]:
    """Signatures of which admins have said that they are over with."""
    return {
        signature
        for market in markets
        for signature in str(
            (market["metadata"].get("annotations") or {}).get(ANNOTATION_KEY_USE, "")
        ).split()
    }
