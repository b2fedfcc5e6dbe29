"""Several NosanaMarkets may see the same free slot: the first to write its intent gets it.

An offer is a `work` transaction whose intent is durable in `status.transactions`. Two offers of one slot would
give this host two paid jobs with one GPU between them, so each offer has to be decided from a view that shows
every other offer. No NosanaMarket waits for another one's chain. Instead each takes a ticket before it gathers its
view, and its write is dropped when somebody else wrote an offer after that ticket:

    market A                        market B                       counter
    ticket 7                        ticket 7                          7
    gather: 1 slot is free          gather: 1 slot is free
    sign work                       sign work
    write the intent, ticket is 7                                     8
    send                            ticket 7 is not 8: drop the
                                    bytes and gather again

A write that got no answer may still be carried out. Until the watch shows a later version of that object (or 30 s
have passed), every other NosanaMarket gets no ticket.

The same fence holds across two leaders, because a deposed leader may have a write on its way to any NosanaMarket:

    leader 4 (deposed)              API server                     leader 5
    gather A: 1 slot is free                                       acquires the Lease
    write A's intent ─ ─ ─ ┐        A is at version 10             write epoch 5 into A and B
                           │        A is at version 11, epoch 5
                           └ ─ ─ ─▶ refused: it expects version 10
                                                                   every NosanaMarket shows epoch 5:
                                                                   take a ticket, gather, offer

Had leader 4's write arrived first, leader 5's write of the epoch would have failed with a conflict, and its next
view would show the offer. So leader 5 gets no ticket while any NosanaMarket shows another epoch. Exempt are objects
whose status the API server takes from nobody: an earlier leader's offer is refused there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from nosana_operator.api import MARKET_KIND
from nosana_operator.errors import Conflict, NosanaError
from nosana_operator.market.epochs import epoch_of
from nosana_operator.market.ports import Cache, Clock, Leadership
from nosana_operator.ports import Body

MAX_WRITE_DELAY = timedelta(seconds=30)
"""A write without an answer may still be carried out for this long."""

Key = tuple[str, str]
"""Namespace and name of a NosanaMarket."""


class OfferFence:
    """Lets one NosanaMarket at a time offer a slot, and only from a view that shows all other offers."""

    def __init__(self, cache: Cache, clock: Clock, leadership: Leadership) -> None:
        self._cache = cache
        self._clock = clock
        self._leadership = leadership
        self._writing = asyncio.Lock()
        self._tickets = 0
        """Writes of offers so far, whatever became of them."""
        self._unanswered: dict[Key, tuple[str, datetime]] = {}
        """NosanaMarkets whose write of an offer got no answer: the version before it, and when."""
        self._unwritable: set[str] = set()
        """uids of NosanaMarkets whose status the API server takes from nobody."""

    def exempt(self, body: Body) -> None:
        """The API server refused our epoch on this object, as it would refuse an earlier leader's offer."""
        self._unwritable.add(body["metadata"]["uid"])

    def ticket(self, key: Key) -> int | None:
        """Taken before a view is gathered; None: that view could miss an offer, so nothing may be offered."""
        now = self._clock.now()
        self._unanswered = {
            other: (version, at)
            for other, (version, at) in self._unanswered.items()
            if now - at < MAX_WRITE_DELAY and self._version(other) == version
        }
        return None if self._unanswered.keys() - {key} or not self._fenced() else self._tickets

    @asynccontextmanager
    async def offer(self, ticket: int | None, body: Body) -> AsyncIterator[bool]:
        """Surrounds the write of an offer; False: somebody else offered since the ticket, so do not write.

        The object's own next write needs no such care: it is a compare-and-swap.
        """
        meta = body["metadata"]
        key = meta["namespace"], meta["name"]
        async with self._writing:
            if ticket is None or ticket != self._tickets:
                yield False
                return
            try:
                yield True
            except Conflict:
                raise
            except NosanaError:
                self._unanswered[key] = meta["resourceVersion"], self._clock.now()
                raise
            finally:
                self._tickets += 1

    def _fenced(self) -> bool:
        """Whether no write of an earlier leader can succeed any more."""
        epoch = self._leadership.check()
        return all(
            epoch_of(market) == epoch or market["metadata"]["uid"] in self._unwritable
            for market in self._cache.list(MARKET_KIND)
        )

    def _version(self, key: Key) -> str | None:
        market = self._cache.get(MARKET_KIND, *key)
        return None if market is None else market["metadata"]["resourceVersion"]
