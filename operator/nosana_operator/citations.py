"""Docstrings cite pages of the repository; schemas that are made from them leave that out."""

from __future__ import annotations

import re
from typing import Final

_PAGE: Final = r"docs/[\w./-]+\.md(?:#[\w-]+)?"
_CITATION: Final = re.compile(rf"\s*\({_PAGE}(?:, {_PAGE})*\)")


def without_citations(docstring: str) -> str:
    """The text without what it says in parentheses of pages below `docs/`, and the blanks in front of that."""
    return _CITATION.sub("", docstring)
