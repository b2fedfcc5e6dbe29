"""The chain's clock measured against ours.

A run's start and expiry are in the chain's time, which may differ from ours by seconds, and in a sandbox by
days. Measured from the Clock sysvar: what the program itself sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from nosana_operator.chain.errors import ChainUnavailable

_LATE_SECONDS: Final = 30.0
"""A reading that is later than that comes from a node that lags."""


class ChainClock:
    """The offset of the newest measurement; `wall` gives our unix seconds."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._offset: float | None = None
        self._slot = 0

    def observe(self, chain_seconds: int, slot: int) -> None:
        """Take a reading of the chain's clock at a slot, made just now.

        One of an older slot than the last is ignored: it comes from a node that lags, whose clock does too.
        """
        if slot >= self._slot:
            self._offset, self._slot = chain_seconds - self._wall(), slot

    def shows_now(self, chain_seconds: int) -> bool:
        """Whether a reading made just now is of the present, as far as is known here."""
        return self._offset is None or chain_seconds >= self.now() - _LATE_SECONDS

    def forget_slot(self) -> None:
        """Take the next reading, whatever its slot."""
        self._slot = 0

    @property
    def offset(self) -> float | None:
        """Seconds by which the chain is ahead of us; None: never measured."""
        return self._offset

    def now(self) -> float:
        """The chain's time, unix seconds.

        Raises:
            ChainUnavailable: never measured.
        """
        return self._wall() + self._known()

    def ours(self, chain_seconds: float) -> datetime:
        """A moment of the chain's clock by ours (aware, UTC). Raises as `now`."""
        return datetime.fromtimestamp(chain_seconds - self._known(), UTC)

    def _known(self) -> float:
        if self._offset is None:
            raise ChainUnavailable("The chain's clock has not been read yet; wait for the RPC node.")
        return self._offset
