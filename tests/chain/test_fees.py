"""What is paid for a compute unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.chain import SIGNATURE_FEE, ChainUnavailable, FeePolicy, Rpc
from nosana_operator.chain.fees import FeeMarket, capped_price, fee_of, percentile_price


@pytest.mark.parametrize(
    ("percentile", "recent", "price"),
    [
        (50, [], 100),
        (50, [500], 500),
        (50, [300, 100, 200], 200),
        (50, [100, 200, 300, 400], 200),
        (100, [100, 200, 300, 400], 400),
        (1, [150, 200, 300, 400], 150),
        (75, [100, 200, 300, 400], 300),
        (50, [1, 1, 1], 100),
        (50, [9999, 9999], 1000),
    ],
)
def test_the_percentile_is_clamped(percentile: int, recent: list[int], price: int) -> None:
    policy = FeePolicy(priority="dynamic", percentile=percentile, minimum=100, maximum=1000)
    assert percentile_price(policy, recent) == price


@given(
    price=st.integers(0, 10**9),
    limit=st.integers(1, 1_400_000),
    signatures=st.integers(1, 4),
    cap=st.integers(10_000, 10**7),
)
def test_the_cap_holds_whatever_the_price(price: int, limit: int, signatures: int, cap: int) -> None:
    paid = capped_price(price, limit=limit, signatures=signatures, cap=cap)
    assert 0 <= paid <= price
    fee = SIGNATURE_FEE * signatures + -(-paid * limit // 1_000_000)
    assert fee <= max(cap, SIGNATURE_FEE * signatures)
    if paid < price:
        more = SIGNATURE_FEE * signatures + -(-(paid + 1) * limit // 1_000_000)
        assert more > cap, "not lowered further than needed"


class Node:
    def __init__(self, prices: list[Any]) -> None:
        self.prices = prices
        self.asked: list[Sequence[str]] = []

    async def recent_priority_fees(self, writable: Sequence[str]) -> list[int]:
        self.asked.append(writable)
        answer = self.prices.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(list[int], answer)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_the_going_price_is_asked_at_most_every_ten_seconds() -> None:
    node, clock = Node([[700], ChainUnavailable("away"), [900]]), Clock()
    market = FeeMarket(cast(Rpc, node), FeePolicy(priority="dynamic", minimum=5), clock)
    accounts = ["A"] * 200
    assert await market.price(accounts) == 700
    assert len(node.asked[0]) == 128
    clock.now = 9
    assert await market.price(accounts) == 700
    assert len(node.asked) == 1
    clock.now = 10
    assert await market.price(accounts) == 700, "silence leaves the last price"
    clock.now = 20
    assert await market.price(accounts) == 900


async def test_each_transaction_has_the_price_of_its_own_accounts() -> None:
    node = Node([[700], [9000], ChainUnavailable("away")])
    market = FeeMarket(cast(Rpc, node), FeePolicy(priority="dynamic", minimum=5), Clock())
    assert await market.price(["calm"]) == 700
    assert await market.price(["hot"]) == 9000
    assert await market.price(["calm"]) == 700
    assert await market.price(["unknown"]) == 9000, "silence leaves the price told last"
    assert [*map(list, node.asked)] == [["calm"], ["hot"], ["unknown"]]


async def test_few_prices_are_remembered() -> None:
    node = Node([[number] for number in range(1, 301)])
    market = FeeMarket(cast(Rpc, node), FeePolicy(priority="dynamic", minimum=0), Clock())
    assert [await market.price([f"account-{number}"]) for number in range(1, 301)] == [*range(1, 301)]
    assert await market.price(["account-300"]) == 300
    assert len(market._prices) == 100


@pytest.mark.parametrize(
    ("policy", "price"),
    [(FeePolicy(), 0), (FeePolicy(priority="none", price=9), 0), (FeePolicy(priority="fixed", price=9), 9)],
)
async def test_without_a_market_nothing_is_asked(policy: FeePolicy, price: int) -> None:
    node = Node([])
    assert await FeeMarket(cast(Rpc, node), policy).price(["A"]) == price
    assert node.asked == []


def test_what_a_transaction_costs_is_rounded_up_as_on_chain() -> None:
    assert fee_of(0, limit=200_000, signatures=2) == 10_000
    assert fee_of(10_000, limit=100_000, signatures=1) == 6_000
    assert fee_of(1, limit=1, signatures=1) == 5_001
