"""Errors of fetching: each is the sentence that the job's author reads."""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class FetchError(NosanaError):
    """A resource cannot be had, and another attempt would not change that."""


class Interrupted(FetchError):
    """The other side fell silent or is busy: worth another attempt."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        """`wait`: seconds that the other side asked for."""
        super().__init__(message)
        self.wait = wait


class Damaged(FetchError):
    """What came is not what the other side said it would be."""
