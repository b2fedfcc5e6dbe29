"""What jobs become, whole. `pytest tests/workload --update-golden` writes the files again."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from nosana_operator.cli.documents import read_job
from nosana_operator.cli.render import render_job
from support.definitions import CASES, EXAMPLES, SHOWN

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"


def golden_of(source: Path) -> Path:
    return GOLDEN / f"{'example-' if source.parent == EXAMPLES else ''}{source.stem}.yaml"


@pytest.mark.parametrize("source", CASES + SHOWN, ids=lambda path: path.stem)
def test_objects_are_as_recorded(source: Path, request: pytest.FixtureRequest) -> None:
    text = render_job(read_job(str(source)))
    golden = golden_of(source)
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), (
        "run pytest tests/workload --update-golden, and read the diff"
    )


@pytest.mark.parametrize("version", [f"1.{minor}" for minor in range(31, 38)])
@pytest.mark.parametrize("source", CASES + SHOWN, ids=lambda path: path.stem)
def test_recorded_objects_are_valid_kubernetes(source: Path, version: str) -> None:
    bodies = list(yaml.safe_load_all(golden_of(source).read_text(encoding="utf-8")))
    assert bodies
    for body in bodies:
        kubernetes_validate.validate(body, version, strict=True)


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {golden_of(source).name for source in CASES + SHOWN}
