"""Errors of the process for regular expressions. An invalid pattern is a value, not an error."""

from __future__ import annotations

from nosana_operator.errors import NosanaError, Unavailable


class RegexError(NosanaError):
    """Base of the errors of this package."""


class RegexUnavailable(RegexError, Unavailable):
    """The process cannot be started at the moment."""
