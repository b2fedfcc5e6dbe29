"""The verdicts of Nosana's own validator on 159 small definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.definition import validate

PROBES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "validator-probes.json").read_bytes()
)
CURRENT = "types-2.2.x (schema rebuilt here)"


def test_all_probes_are_here() -> None:
    assert len(PROBES) == 159


@pytest.mark.parametrize("probe", PROBES, ids=[probe["name"] for probe in PROBES])
def test_verdict_equals_the_current_validators(probe: dict[str, Any]) -> None:
    report = validate(probe["definition"])

    assert report.valid is probe["valid"][CURRENT], report.errors
    assert (report.definition is not None) is report.valid


@pytest.mark.parametrize("probe", PROBES, ids=[probe["name"] for probe in PROBES])
def test_an_accepted_definition_is_given_back_unchanged(probe: dict[str, Any]) -> None:
    definition = validate(probe["definition"]).definition

    if definition is not None:
        assert definition.model_dump(by_alias=True, exclude_unset=True) == probe["definition"]


@pytest.mark.parametrize("probe", PROBES, ids=[probe["name"] for probe in PROBES])
def test_each_error_names_a_place_and_says_what_is_allowed(probe: dict[str, Any]) -> None:
    for error in validate(probe["definition"]).errors:
        assert error.path
        assert "<" not in error.path, "a tag of the type checker shows"
        assert error.message
        assert "something else" not in error.message
