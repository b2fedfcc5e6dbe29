"""Docstrings cite pages of the repository; schemas generated from docstrings leave the citations out."""

from __future__ import annotations

import re
from typing import Final

_PAGE: Final = r"docs/[\w./-]+\.md(?:#[\w-]+)?"
_CITATION: Final = re.compile(rf"\s*\({_PAGE}(?:, {_PAGE})*\)")


def without_citations(docstring: str) -> str:
    """The text without its citations: pages below `docs/` in parentheses, and the blanks in front of them."""
    return _CITATION.sub("", docstring)
