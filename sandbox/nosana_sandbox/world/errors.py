"""Errors of the sandbox's world and its command; `str()` is one sentence with the remedy."""

from __future__ import annotations

from nosana_operator.errors import NosanaError


class WorldError(NosanaError):
    """The sandbox's world refused or cannot be reached."""


class TransactionFailed(WorldError):
    """A transaction failed on the chain, or the chain would not take it."""


class NotRunning(WorldError):
    """No sandbox of this name is up."""


class UnknownJob(WorldError):
    """There is no such job on the chain."""
