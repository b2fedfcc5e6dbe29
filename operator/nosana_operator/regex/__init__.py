"""JavaScript's regular expressions over a log, safely: strangers' patterns, in a process with limits.

The engine backtracks, so a pattern may take for ever, or all memory; then its process ends, and nothing else.
"""

from __future__ import annotations

from nosana_operator.regex.errors import RegexError, RegexUnavailable
from nosana_operator.regex.runner import Limits, RegexRunner

__all__ = ["Limits", "RegexError", "RegexRunner", "RegexUnavailable"]
