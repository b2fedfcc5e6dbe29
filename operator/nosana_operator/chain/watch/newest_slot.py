"""The newest slot that any reading showed, for telling a node that lags from one that does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_BELIEVED_SECONDS: Final = 300.0
"""A slot that nothing comes up to for so long never was: one answer of a broken node must not blind us."""


class NewestSlot:
    """Rises with what is seen, and is 0 when nothing came up to it for minutes. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slot = 0
        self._at = 0.0

    @property
    def slot(self) -> int:
        """The newest slot; 0: none is known."""
        return self._slot if self._clock() - self._at < _BELIEVED_SECONDS else 0

    def saw(self, slot: int) -> None:
        """A reading showed that slot."""
        if slot >= self.slot:
            self._slot, self._at = slot, self._clock()
