"""The offset between the chain's clock and ours.

A run's start and expiry are in the chain's time, which may differ from ours by seconds, and in a sandbox by
days. It is measured from the Clock sysvar, the time that the program itself sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from nosana_operator.chain.errors import ChainUnavailable

_LATE_SECONDS: Final = 30.0
"""A reading further behind than this comes from a node that lags."""


class ChainClock:
    """Holds the offset of the newest reading; `wall` returns our unix seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._offset: float | None = None
        self._slot = 0

    def observe(self, chain_seconds: int, slot: int) -> None:
        """Record a reading of the chain's clock that was made just now, at `slot`.

        A reading at an older slot than the last is ignored: it comes from a node that lags, and so does its clock.
        """
        if slot >= self._slot:
            self._offset, self._slot = chain_seconds - self._wall(), slot

    def shows_now(self, chain_seconds: int) -> bool:
        """Whether a reading made just now shows the present, as far as earlier readings tell."""
        return self._offset is None or chain_seconds >= self.now() - _LATE_SECONDS

    def forget_slot(self) -> None:
        """Accept the next reading whatever its slot."""
        self._slot = 0

    @property
    def offset(self) -> float | None:
        """Seconds by which the chain's clock is ahead of ours; None: not measured yet."""
        return self._offset

    def now(self) -> float:
        """The chain's time, unix seconds.

        Raises:
            ChainUnavailable: not measured yet.
        """
        return self._wall() + self._measured()

    def ours(self, chain_seconds: float) -> datetime:
        """A moment of the chain's clock in our time (aware, UTC). Raises as `now`."""
        return datetime.fromtimestamp(chain_seconds - self._measured(), UTC)

    def _measured(self) -> float:
        if self._offset is None:
            raise ChainUnavailable("The chain's clock has not been read yet; wait for the RPC node.")
        return self._offset
