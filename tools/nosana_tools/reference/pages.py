"""The pages, each with its text; a test compares, `make docs` writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nosana_operator.api import crds
from nosana_operator.cli import main
from nosana_operator.runtime.metrics.page import metrics_page
from nosana_tools.reference import FOLDER, ROOT
from nosana_tools.reference.bounds import with_bounds
from nosana_tools.reference.commands import commands_page
from nosana_tools.reference.kinds import kinds_page
from nosana_tools.reference.settings import settings_page


def pages() -> Iterator[tuple[Path, str]]:
    """(file, its text)."""
    yield FOLDER / "api.md", kinds_page(crds())
    yield FOLDER / "settings.md", settings_page()
    yield FOLDER / "cli.md", commands_page(main)
    yield ROOT / "docs" / "metrics.md", metrics_page()
    markets = ROOT / "docs" / "markets.md"
    yield markets, with_bounds(markets.read_text(encoding="utf-8"))
