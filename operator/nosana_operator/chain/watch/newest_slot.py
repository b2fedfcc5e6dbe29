"""The newest slot of any reading, which shows whether a node lags."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_BELIEVED_SECONDS: Final = 300.0
"""A slot that no node confirms for this long was reported in error: one false answer must not blind us."""


class NewestSlot:
    """Rises with each reading; falls back to 0 when no reading reaches it for minutes. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slot = 0
        self._at = 0.0

    @property
    def slot(self) -> int:
        """The newest slot; 0: unknown."""
        return self._slot if self._clock() - self._at < _BELIEVED_SECONDS else 0

    def saw(self, slot: int) -> None:
        """Record a reading of that slot."""
        if slot >= self.slot:
            self._slot, self._at = slot, self._clock()
