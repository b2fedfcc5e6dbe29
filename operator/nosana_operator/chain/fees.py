"""What a transaction pays beyond its signatures: the price of a compute unit, and how many it asks for.

The priority fee is the price times the limit, not times what is used (`python-solana.md` §6.9), so a tight
limit is worth a simulation as soon as there is a price. The cap bounds what one transaction may cost whatever
the market of fees does; the SOL reserve of a key is reckoned with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nosana_operator.chain.errors import ChainError
from nosana_operator.chain.rpc import Rpc

SIGNATURE_FEE: Final = 5_000
"""Lamports for each signature, fixed by the chain."""
_MICRO: Final = 1_000_000
_FRESH_SECONDS: Final = 10.0
_MOST_ACCOUNTS: Final = 128
"""That getRecentPrioritizationFees takes."""


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """How transactions are paid for. Prices are micro-lamports a compute unit.

    `none`: no priority fee. `fixed`: always `price`. `dynamic`: the `percentile` of what recently got into
    blocks for the same accounts, not below `minimum` nor above `maximum`.
    """

    priority: Literal["none", "fixed", "dynamic"] = "none"
    price: int = 0
    percentile: int = 50
    minimum: int = 10_000
    maximum: int = 15_000_000
    cap: int = 200_000
    """Lamports that one transaction may cost in all, signatures included; the price gives way."""
    compute_margin: int = 20
    """Percent on top of the compute units that a simulation took."""


def percentile_price(policy: FeePolicy, recent: Sequence[int]) -> int:
    """The price that the policy draws from recent ones; the nearest-rank percentile, clamped."""
    ranked = sorted(recent)
    rank = max(1, math.ceil(len(ranked) * policy.percentile / 100))
    found = ranked[rank - 1] if ranked else 0
    return min(max(found, policy.minimum), policy.maximum)


def capped_price(price: int, *, limit: int, signatures: int, cap: int) -> int:
    """The price, lowered until the whole fee of a transaction with this compute limit keeps to the cap."""
    left = max(0, cap - SIGNATURE_FEE * signatures)
    return min(price, left * _MICRO // limit)


def fee_of(price: int, *, limit: int, signatures: int) -> int:
    """Lamports that a transaction with this compute limit costs, rounded up as the chain does."""
    return SIGNATURE_FEE * signatures - (-price * limit // _MICRO)


class FeeMarket:
    """Knows the going price; asks the chain at most every ten seconds.

    Args:
        rpc: the network's RPC.
        policy: how to pay.
        clock: monotonic seconds.
    """

    def __init__(self, rpc: Rpc, policy: FeePolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._rpc = rpc
        self._policy = policy
        self._clock = clock
        self._price = policy.minimum
        self._read_at: float | None = None

    async def price(self, writable: Sequence[str]) -> int:
        """Micro-lamports a compute unit for a transaction that writes these accounts.

        Never fails: a node that does not tell its fees leaves the last price, at first the minimum, so that
        no transaction waits for it.
        """
        if self._policy.priority == "none":
            return 0
        if self._policy.priority == "fixed":
            return self._policy.price
        now = self._clock()
        if self._read_at is None or now - self._read_at >= _FRESH_SECONDS:
            self._read_at = now
            try:
                recent = await self._rpc.recent_priority_fees(writable[:_MOST_ACCOUNTS])
            except ChainError:
                return self._price
            self._price = percentile_price(self._policy, recent)
        return self._price
