"""The chain's clock, which a person or a test can stop and move."""

from __future__ import annotations

import time
from collections.abc import Callable


class ChainClock:
    """Unix time in seconds. Runs with the machine's clock, shifted, until it is frozen."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self._frozen_at: float | None = None

    @property
    def frozen(self) -> bool:
        """Whether time stands still."""
        return self._frozen_at is not None

    def now(self) -> float:
        """The chain's unix time."""
        return self._source() + self._offset if self._frozen_at is None else self._frozen_at

    def freeze(self) -> None:
        """Stop time; stopping again has no effect."""
        self._frozen_at = self.now()

    def resume(self) -> None:
        """Let time continue from where it stopped."""
        if self._frozen_at is not None:
            self._offset = self._frozen_at - self._source()
            self._frozen_at = None

    def advance(self, seconds: float) -> None:
        """Move time by `seconds`, running or frozen; negative goes back."""
        self.set(self.now() + seconds)

    def set(self, unix_time: float) -> None:
        """Make it `unix_time` now, running or frozen."""
        if self._frozen_at is None:
            self._offset = unix_time - self._source()
        else:
            self._frozen_at = unix_time
