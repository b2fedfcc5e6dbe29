"""What goes wrong on purpose."""

from __future__ import annotations

from nosana_operator.errors import Unavailable


class Crash(BaseException):
    """The process dies here."""


class Silence(Unavailable):
    """No answer."""
