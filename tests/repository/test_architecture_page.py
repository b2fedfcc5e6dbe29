"""docs/architecture.md names what there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "nosana_operator"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_and_folder_that_is_named_exists() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+(?:\.py)?)?)`", PAGE)
    assert len(named) > 15
    assert [path for path in named if not (PACKAGE / path).exists()] == []


def test_every_room_is_in_the_picture() -> None:
    picture = PAGE.split("## The picture\n", 1)[1].split("\n## ", 1)[0]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {room for room in rooms if f"{room}/" not in picture} == set()


def test_every_decision_record_is_numbered_once() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert len(numbers) == len(set(numbers))
