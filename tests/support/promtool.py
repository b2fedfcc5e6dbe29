"""What the tests of this folder share: the files they judge, and promtool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nosana_operator.runtime.metrics.family import PREFIX
from nosana_operator.runtime.metrics.page import families

ROOT = Path(__file__).parents[2]
FILES = ROOT / "charts" / "nosana-operator" / "files"
ALERTS = FILES / "alerts.yaml"
DASHBOARD = FILES / "dashboard.json"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = ROOT / "tests" / "observability" / "rules"


@dataclass(frozen=True)
class Promtool:
    """The program."""

    path: Path

    def complaints(self, *arguments: str | Path, stdin: str = "") -> str:
        """What it says when it does not agree; nothing when it does."""
        done = subprocess.run(
            [self.path, *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr if done.returncode else ""


def series_names() -> set[str]:
    """The names that an expression may use: of a histogram those of its parts."""
    names = set()
    for family in families():
        parts = ("_bucket", "_sum", "_count") if family.type == "histogram" else ("",)
        names |= {family.full_name + part for part in parts}
    return names


def used_names(expression: str) -> set[str]:
    """The names of our metrics in an expression."""
    return set(re.findall(rf"\b{PREFIX}_\w+", expression))


def used_labels(expression: str, name: str) -> set[str]:
    """The labels by which an expression picks series of a metric."""
    found: set[str] = set()
    for matchers in re.findall(rf"\b{name}\{{([^}}]*)\}}", expression):
        found |= set(re.findall(r"(\w+)\s*[=!]~?", matchers))
    return found
