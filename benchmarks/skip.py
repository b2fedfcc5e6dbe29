"""Why a benchmark is left out."""

from __future__ import annotations


class Skip(Exception):
    """This machine lacks something that the benchmark needs; the text says what."""
