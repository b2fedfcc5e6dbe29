"""The cache folder of what the sandbox builds, and how a build reports its progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

Report = Callable[[str], None]
"""Called with one line for a person: the step that begins, and why it takes long."""


def cache_folder() -> Path:
    """The folder of built programs and image layers: `$NOSANA_SANDBOX_CACHE` or `~/.cache/nosana-sandbox`."""
    chosen = os.environ.get("NOSANA_SANDBOX_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "nosana-sandbox"
