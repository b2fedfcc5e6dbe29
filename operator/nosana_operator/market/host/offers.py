"""Several NosanaMarkets may see the same free slot: the first to write its intent has it.

Nobody waits for anybody else's chain: what was decided from a view that is older than another one's offer is
dropped, and looked at again. What was signed for it is nowhere, and cannot be sent.

A leader that was deposed may still have a write on its way, to any NosanaMarket. So the next one first writes its
epoch into all of them: what comes after that is refused, and what came before is seen.
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

DOUBT = timedelta(seconds=30)
"""For so long a write that was not answered may still be carried out."""

Key = tuple[str, str]


class OfferFence:
    """Who may offer slots now."""

    def __init__(self, cache: Cache, clock: Clock, leadership: Leadership) -> None:
        self._cache = cache
        self._clock = clock
        self._leadership = leadership
        self._writing = asyncio.Lock()
        self._number = 0
        """Writes that offered slots, whatever became of them."""
        self._doubts: dict[Key, tuple[str, datetime]] = {}
        """NosanaMarkets of whose offer it is not known whether it was written, and the version before it."""
        self._shut: set[str] = set()
        """uids of NosanaMarkets whose status the API server takes from nobody."""

    def shut(self, body: Body) -> None:
        """Our epoch was refused there: so is an earlier leader's offer, and nobody need wait."""
        self._shut.add(body["metadata"]["uid"])

    def begin(self, key: Key) -> int | None:
        """Before the view is gathered that is to be decided from; None: it cannot show all offers."""
        now = self._clock.now()
        self._doubts = {
            other: (version, at)
            for other, (version, at) in self._doubts.items()
            if now - at < DOUBT and self._version(other) == version
        }
        return None if self._doubts.keys() - {key} or not self._fenced() else self._number

    @asynccontextmanager
    async def offer(self, turn: int | None, body: Body) -> AsyncIterator[bool]:
        """Around the write of an offer; False: another one came between, and nothing may be written.

        A write without an answer may have been carried out. Until the watch shows the object after it, nobody
        else offers anything. The object's own next write is a compare-and-swap, and knows by itself.
        """
        meta = body["metadata"]
        key = meta["namespace"], meta["name"]
        async with self._writing:
            if turn is None or turn != self._number:
                yield False
                return
            try:
                yield True
            except Conflict:
                raise
            except NosanaError:
                self._doubts[key] = meta["resourceVersion"], self._clock.now()
                raise
            finally:
                self._number += 1

    def _fenced(self) -> bool:
        """Whether no write of an earlier leader can come any more."""
        epoch = self._leadership.check()
        return all(
            epoch_of(market) == epoch or market["metadata"]["uid"] in self._shut
            for market in self._cache.list(MARKET_KIND)
        )

    def _version(self, key: Key) -> str | None:
        found = self._cache.get(MARKET_KIND, *key)
        return None if found is None else found["metadata"]["resourceVersion"]
