"""Of several NosanaMarkets that see the same free slot, one has it."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.edges import FakeClock
from nosana_operator.api import MARKET_KIND
from nosana_operator.errors import Conflict, Unavailable
from nosana_operator.kube import ObjectCache
from nosana_operator.market.epochs import epoch_of
from nosana_operator.market.host.offers import MAX_WRITE_DELAY, OfferFence

A, B = ("system", "a"), ("system", "b")


class Away(Unavailable):
    """No answer."""


class Lost(Conflict):
    """Somebody wrote in between."""


def market(name: str, version: int, epoch: int = 1) -> dict[str, Any]:
    return {
        "kind": MARKET_KIND,
        "metadata": {"namespace": "system", "name": name, "uid": name, "resourceVersion": str(version)},
        "status": {"epoch": epoch},
    }


class First:
    """The first leader there is."""

    def check(self, seen: int = 0) -> int:
        return 1


class Lab:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = ObjectCache((MARKET_KIND,))
        for name in ("a", "b"):
            self.cache.put(market(name, 1))
        self.fence = OfferFence(self.cache, self.clock, First())

    async def offer(self, ticket: int | None, name: str, problem: Exception | None = None) -> bool:
        async with self.fence.offer(ticket, market(name, 1)) as ours:
            if ours and problem is not None:
                raise problem
        return ours


async def test_the_first_to_write_has_it_and_the_other_looks_again() -> None:
    lab = Lab()
    first, second = lab.fence.ticket(A), lab.fence.ticket(B)
    assert await lab.offer(second, "b")
    assert not await lab.offer(first, "a")
    assert await lab.offer(lab.fence.ticket(A), "a")


async def test_a_write_without_an_answer_stops_the_others_until_the_watch_shows_it() -> None:
    lab = Lab()
    with pytest.raises(Away):
        await lab.offer(lab.fence.ticket(A), "a", Away("away"))
    assert lab.fence.ticket(B) is None
    assert not await lab.offer(lab.fence.ticket(B), "b")
    assert lab.fence.ticket(A) is not None, "its own next write is a compare-and-swap"
    stale = lab.fence.ticket(B)
    lab.cache.put(market("a", 2))
    assert not await lab.offer(stale, "b"), "what was gathered before that does not show it"
    assert await lab.offer(lab.fence.ticket(B), "b")


async def test_a_write_that_never_comes_is_not_waited_for_for_ever() -> None:
    lab = Lab()
    with pytest.raises(Away):
        await lab.offer(lab.fence.ticket(A), "a", Away("away"))
    lab.clock.advance(MAX_WRITE_DELAY.total_seconds())
    assert await lab.offer(lab.fence.ticket(B), "b")


async def test_a_refused_write_leaves_no_doubt() -> None:
    lab = Lab()
    with pytest.raises(Lost):
        await lab.offer(lab.fence.ticket(A), "a", Lost("conflict"))
    assert await lab.offer(lab.fence.ticket(B), "b")


async def test_nothing_is_offered_before_our_epoch_stands_in_every_nosana_market() -> None:
    """An earlier leader may have offered the slot in one that we have not written to yet."""
    lab = Lab()
    lab.cache.put(market("b", 2, epoch=0))
    assert lab.fence.ticket(A) is lab.fence.ticket(B) is None
    lab.cache.put(market("b", 3))
    assert await lab.offer(lab.fence.ticket(A), "a")


async def test_a_nosana_market_that_takes_no_status_keeps_nobody_waiting() -> None:
    lab = Lab()
    old = market("b", 2, epoch=0)
    lab.cache.put(old)
    lab.fence.exempt(old)
    assert await lab.offer(lab.fence.ticket(A), "a")


def test_the_epoch_of_a_nosana_market() -> None:
    assert epoch_of(market("a", 1, epoch=7)) == 7
    assert epoch_of({}) == epoch_of({"status": None}) == epoch_of({"status": {"epoch": "7"}}) == 0
