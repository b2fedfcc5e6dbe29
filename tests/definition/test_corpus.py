"""Real definitions: each gets the verdict that the corpus' index states, and those accepted have an order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nosana_operator.definition import check, plan

CORPUS = Path(os.environ.get("NOSANA_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")
# Refused by the current validator, with the place.
REFUSED = {
    "llama2": ["version"],
    "output": ["ops[0].args.output"],
    "stable-diffusion": ["ops[0].args.output"],
    "test-node-server": [
        "ops[0].args.expose[0].health_checks[0].continuous",
        "ops[0].args.expose[1].health_checks[0].continuous",
    ],
}
FILES = sorted((CORPUS / "templates").glob("*.json")) + sorted((CORPUS / "examples").glob("*.json"))

pytestmark = pytest.mark.corpus


def test_the_corpus_is_here() -> None:
    if not CORPUS.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no corpus at {CORPUS}; set NOSANA_CORPUS")
    assert len(FILES) >= 90


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}-{file.stem}" for file in FILES])
def test_verdict(file: Path) -> None:
    report = check(file.read_bytes(), source=file.name)
    expected = REFUSED.get(file.stem, []) if file.parent.name == "examples" else []

    assert [problem.path for problem in report.errors] == expected
    if report.definition is not None:
        stages = plan(report.definition).stages
        assert sorted(op.id for stage in stages for op in stage.ops) == sorted(
            op.id for op in report.definition.ops
        )
