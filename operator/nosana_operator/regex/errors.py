"""Errors of the regular expressions' process; what is wrong with a pattern is a value, not an error."""

from __future__ import annotations

from nosana_operator.errors import NosanaError, Unavailable


class RegexError(NosanaError):
    """Branch of the engine."""


class RegexUnavailable(RegexError, Unavailable):
    """The engine's process cannot be started at the moment."""
