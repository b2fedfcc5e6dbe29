"""`nosana-operator run`: mistakes end with one sentence and status 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from nosana_operator.cli.main import main


@pytest.mark.parametrize(
    ("settings", "words"),
    [("metrics: {prt: 1}", "metrics.prt"), (None, "cannot be read")],
)
def test_unusable_settings(tmp_path: Path, settings: str | None, words: str) -> None:
    file = tmp_path / "settings.yaml"
    if settings is not None:
        file.write_text(settings)
    result = CliRunner().invoke(main, ["run", "--settings", str(file)])
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
