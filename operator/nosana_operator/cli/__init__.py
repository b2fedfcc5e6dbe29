"""The `nosana-operator` command."""

from __future__ import annotations

from nosana_operator.cli.main import main

__all__ = ["main"]
