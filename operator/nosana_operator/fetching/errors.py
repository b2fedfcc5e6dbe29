"""Errors of `nosana-fetch`. The text of each is shown to the author of the job."""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class FetchError(NosanaError):
    """A resource cannot be fetched, and a retry would not help."""


class Missing(FetchError):
    """The server does not have the file."""


class Interrupted(FetchError):
    """The server is busy, or the connection broke: a retry may help."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        """`wait`: seconds that the server asked for (Retry-After)."""
        super().__init__(message)
        self.wait = wait


class Damaged(FetchError):
    """The received bytes do not have the announced size or hash."""
