"""docs/reference is what the code says now, and `make docs` makes it so."""

from __future__ import annotations

from pathlib import Path

import pytest

from nosana_operator.api import crds
from nosana_operator.cli import main
from nosana_tools.reference.commands import commands_page
from nosana_tools.reference.kinds import kinds_page
from nosana_tools.reference.pages import pages
from nosana_tools.reference.settings import settings_page
from nosana_tools.reference.tables import table

PAGES = dict(pages())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_as_the_code_says(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `make docs`"


def test_every_command_and_option_is_listed() -> None:
    page = commands_page(main)
    for name, command in main.commands.items():
        assert f"## {name}\n" in page
        for parameter in command.params:
            assert all(f"`{option}`" in page for option in parameter.opts if option.startswith("-"))


def test_every_field_of_a_spec_is_listed_below_its_owner() -> None:
    page = kinds_page(crds())
    for row in (
        "`definitionFrom.ipfs`",
        "`gpu.tolerations[].key`",
        "`wallets[].secretRef.name`",
        "`run.price`",
    ):
        assert f"| {row} |" in page
    assert "spec.address is immutable" in page


def test_settings_tell_their_type_default_and_meaning() -> None:
    page = settings_page()
    assert "| `metrics.port` | integer | `8080` | 0 takes any free port; the log says which. |" in page
    assert "| `networks.NAME.ipfs.pin[].type` | `kubo` or `pinata` | required |" in page


def test_every_setting_says_what_it_is() -> None:
    rows = settings_page().splitlines()[7:]
    assert rows
    assert [row for row in rows if row.rstrip(" |").endswith("|") or row.endswith("|  |")] == []


def test_cells_stay_in_their_table() -> None:
    assert table(("a", "b"), [("x | y", "<id>.host and `<id>`")]) == (
        "| a | b |\n| --- | --- |\n| x \\| y | &lt;id>.host and `<id>` |\n"
    )
