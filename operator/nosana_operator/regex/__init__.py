"""Runs strangers' JavaScript regular expressions over a log, in a process with limits.

The engine backtracks, so a pattern may run without end or use all memory. Only its process ends then.
"""

from __future__ import annotations

from nosana_operator.regex.errors import RegexError, RegexUnavailable
from nosana_operator.regex.runner import Limits, RegexRunner

__all__ = ["Limits", "RegexError", "RegexRunner", "RegexUnavailable"]
