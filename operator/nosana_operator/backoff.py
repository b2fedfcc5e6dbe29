"""Exponential back-off: how long to wait before the next attempt. For attempts that end with this process.

Back-offs that outlast a restart count from moments that stand in the Kubernetes API; they may use `Backoff.bound`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 60


def jitter() -> float:
    """A factor between a half and one, so that those who failed together do not try again together."""
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, guards nothing


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits in seconds whose bound doubles with each failure from `first` up to `longest`."""

    first: float
    longest: float
    jitter: Callable[[], float] = jitter

    def bound(self, failures: int) -> float:
        """The longest wait after so many failures in a row (1: the first)."""
        # The exponent is bounded before the power is taken: something may fail for weeks.
        return min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest)

    def wait(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1: the first)."""
        return self.bound(failures) * self.jitter()
