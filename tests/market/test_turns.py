"""Of several NosanaMarkets that see the same free slot, one has it."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.world import FakeClock
from nosana_operator.api import MARKET_KIND
from nosana_operator.errors import Conflict, Unavailable
from nosana_operator.kube import ObjectCache
from nosana_operator.market.turns import DOUBT, Turns

A, B = ("system", "a"), ("system", "b")


class Away(Unavailable):
    """No answer."""


class Lost(Conflict):
    """Somebody wrote in between."""


def market(name: str, version: int) -> dict[str, Any]:
    return {
        "kind": MARKET_KIND,
        "metadata": {"namespace": "system", "name": name, "uid": name, "resourceVersion": str(version)},
    }


class Lab:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = ObjectCache((MARKET_KIND,))
        for name in ("a", "b"):
            self.cache.put(market(name, 1))
        self.turns = Turns(self.cache, self.clock)

    async def offer(self, turn: int | None, name: str, problem: Exception | None = None) -> bool:
        async with self.turns.offer(turn, market(name, 1)) as ours:
            if ours and problem is not None:
                raise problem
        return ours


async def test_the_first_to_write_has_it_and_the_other_looks_again() -> None:
    lab = Lab()
    first, second = lab.turns.begin(A), lab.turns.begin(B)
    assert await lab.offer(second, "b")
    assert not await lab.offer(first, "a")
    assert await lab.offer(lab.turns.begin(A), "a")


async def test_a_write_without_an_answer_stops_the_others_until_the_watch_shows_it() -> None:
    lab = Lab()
    with pytest.raises(Away):
        await lab.offer(lab.turns.begin(A), "a", Away("away"))
    assert lab.turns.begin(B) is None
    assert not await lab.offer(lab.turns.begin(B), "b")
    assert lab.turns.begin(A) is not None, "its own next write is a compare-and-swap"
    stale = lab.turns.begin(B)
    lab.cache.put(market("a", 2))
    assert not await lab.offer(stale, "b"), "what was gathered before that does not show it"
    assert await lab.offer(lab.turns.begin(B), "b")


async def test_a_write_that_never_comes_is_not_waited_for_for_ever() -> None:
    lab = Lab()
    with pytest.raises(Away):
        await lab.offer(lab.turns.begin(A), "a", Away("away"))
    lab.clock.advance(DOUBT.total_seconds())
    assert await lab.offer(lab.turns.begin(B), "b")


async def test_a_refused_write_leaves_no_doubt() -> None:
    lab = Lab()
    with pytest.raises(Lost):
        await lab.offer(lab.turns.begin(A), "a", Lost("conflict"))
    assert await lab.offer(lab.turns.begin(B), "b")
