"""docs/settings.md shows settings that the operator takes, and all of them."""

from __future__ import annotations

import re
from pathlib import Path

from nosana_operator.runtime.settings import Settings, parse_settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def _example() -> str:
    found = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found
    return found[1]


def test_the_example_is_taken(tmp_path: Path) -> None:
    settings = parse_settings(_example())
    assert settings.networks["mainnet"].program.startswith("nosJ")
    assert settings.networks["mainnet"].ipfs.pin[0].type == "pinata"


def test_every_key_is_shown() -> None:
    keys = {field.alias for field in Settings.model_fields.values()}
    assert keys <= set(re.findall(r"^(\w+):", _example(), flags=re.MULTILINE))
