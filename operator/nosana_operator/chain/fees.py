"""Priority fees: the price of a compute unit, and the limit of compute units.

The priority fee is the price times the limit, not times the units used (docs/protocol/solana-rpc.md#priority-fees),
so a simulation that tightens the limit pays off as soon as there is a price. The cap bounds the cost of one
transaction whatever the going price; the SOL reserve of a key is computed from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from nosana_operator.chain.errors import ChainError
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.settings_group import SettingsGroup

SIGNATURE_FEE: Final = 5_000
"""Lamports for each signature, fixed by the chain."""
_MICRO: Final = 1_000_000
_FRESH_SECONDS: Final = 10.0
_MOST_ACCOUNTS: Final = 128
"""The limit of getRecentPrioritizationFees."""
_MOST_PRICES: Final = 100
"""Prices that are remembered. Most transactions write accounts that no other one writes."""


class FeePolicy(SettingsGroup):
    """How transactions are paid for, so that they get into blocks. Prices are micro-lamports per compute unit."""

    priority: Literal["none", "fixed", "dynamic"] = "none"
    """none: no priority fee. fixed: always `price`. dynamic: a percentile of what recently got into blocks that
    write the same accounts. Unset on mainnet: dynamic, because transactions without a fee are dropped there."""
    price: int = Field(default=0, ge=0)
    """fixed: the price."""
    percentile: int = Field(default=50, ge=1, le=100)
    """dynamic: which percentile of the prices of the last 150 slots, kept between `minimum` and `maximum`."""
    minimum: int = Field(default=10_000, ge=0)
    """dynamic: the lowest price, however empty the blocks are."""
    maximum: int = Field(default=15_000_000, ge=0)
    """dynamic: the highest price."""
    cap: int = Field(default=200_000, ge=2 * SIGNATURE_FEE)
    """Lamports that one transaction may cost in all, signatures included; the price is lowered to keep to it. At
    least 10000, because `work` has two signatures."""
    compute_margin: int = Field(default=20, ge=0)
    """Percent on top of the compute units that a simulation took."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("`minimum` must not be above `maximum`")
        return self


def percentile_price(policy: FeePolicy, recent: Sequence[int]) -> int:
    """The nearest-rank percentile of recent prices, clamped to the policy's bounds."""
    ranked = sorted(recent)
    rank = max(1, math.ceil(len(ranked) * policy.percentile / 100))
    found = ranked[rank - 1] if ranked else 0
    return min(max(found, policy.minimum), policy.maximum)


def capped_price(price: int, *, limit: int, signatures: int, cap: int) -> int:
    """The price, lowered until the total fee of a transaction with this compute limit stays within the cap."""
    left = max(0, cap - SIGNATURE_FEE * signatures)
    return min(price, left * _MICRO // limit)


def fee_of(price: int, *, limit: int, signatures: int) -> int:
    """The fee of a transaction with this compute limit in lamports, rounded up as the chain does."""
    return SIGNATURE_FEE * signatures - (-price * limit // _MICRO)


class FeeMarket:
    """The going price, read from the chain at most every ten seconds for the same accounts.

    Args:
        rpc: the network's RPC.
        policy: how to pay.
        clock: monotonic seconds.
    """

    def __init__(self, rpc: Rpc, policy: FeePolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._rpc = rpc
        self._policy = policy
        self._clock = clock
        self._last = policy.minimum
        """The last price read, for whichever accounts."""
        self._prices: dict[tuple[str, ...], tuple[float, int]] = {}
        """Accounts → when their price was read, and the price."""

    async def price(self, writable: Sequence[str]) -> int:
        """Micro-lamports per compute unit for a transaction that writes these accounts.

        Never fails, so that no transaction waits for it: when the node gives no fees, the last price of these
        accounts holds, else the last price of any, at first the minimum.
        """
        if self._policy.priority == "none":
            return 0
        if self._policy.priority == "fixed":
            return self._policy.price
        now, accounts = self._clock(), tuple(writable[:_MOST_ACCOUNTS])
        read_at, price = self._prices.pop(accounts, (None, self._last))
        if read_at is not None and now - read_at < _FRESH_SECONDS:
            self._prices[accounts] = read_at, price
            return price
        # Set before the answer comes, so that concurrent callers make no request of their own.
        self._prices[accounts] = now, price
        while len(self._prices) > _MOST_PRICES:
            del self._prices[next(iter(self._prices))]
        try:
            recent = await self._rpc.recent_priority_fees(accounts)
        except ChainError:
            return price
        self._last = percentile_price(self._policy, recent)
        self._prices[accounts] = now, self._last
        return self._last
