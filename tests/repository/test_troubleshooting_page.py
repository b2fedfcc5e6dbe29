"""Every typed reason that a status may hold is explained, with what to do."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from nosana_operator.api import JobReason, MarketReason
from nosana_operator.jobs.decision.ops import OpReason

DOCS = Path(__file__).parents[2] / "docs"
PLACES: tuple[tuple[type[StrEnum], str, str], ...] = (
    (JobReason, "troubleshooting.md", "## Reasons of a NosanaJob"),
    (OpReason, "troubleshooting.md", "## Reasons of an op"),
    (MarketReason, "markets.md", "## Reasons"),
)


def section(page: str, head: str) -> str:
    """The text below a heading, up to the next one of its level."""
    return re.split(r"^## ", (DOCS / page).read_text().split(f"{head}\n", 1)[1], maxsplit=1, flags=re.M)[0]


@pytest.mark.parametrize(("reasons", "page", "head"), PLACES, ids=[place[0].__name__ for place in PLACES])
def test_every_reason_has_an_entry(reasons: type[StrEnum], page: str, head: str) -> None:
    text = section(page, head)
    assert [str(reason) for reason in reasons if f"`{reason}`" not in text] == []


@pytest.mark.parametrize("reasons", [JobReason, OpReason])
def test_no_entry_is_left_of_a_reason_that_is_gone(reasons: type[StrEnum]) -> None:
    page, head = next((page, head) for each, page, head in PLACES if each is reasons)
    entries = re.findall(r"^\| `(\w+)` \|", section(page, head), flags=re.M)
    assert sorted(entries) == sorted(str(reason) for reason in reasons)
