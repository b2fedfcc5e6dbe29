"""The term of the leader that wrote a status or signed a transaction. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nosana_operator.api import (
    Transaction,
)


def newest_epoch(transactions: Iterable[Transaction]) -> int:
    """The latest term in which one of them was signed; 0 if none records it."""
    return max((one.epoch or 0 for one in transactions), default=0)


def epoch_of(market: Mapping[str, Any]) -> int:
    """The term of the leader that wrote to that NosanaMarket last; 0 if none records it."""
    epoch = (market.get("status") or {}).get("epoch")
    return epoch if isinstance(epoch, int) else 0
