"""The JSON Schema says what the types say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nosana_operator.definition import MAX_OPS, schema

PROBES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "validator-probes.json").read_bytes()
)
CURRENT = "types-2.2.x (schema rebuilt here)"
# Rules about other parts of the document are beyond JSON Schema.
BEYOND = {"dup op ids", "expose [80,80]", "expose [80,{port:80}]"}
SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["properties"]["ops"]["maxItems"] == MAX_OPS


@pytest.mark.parametrize("probe", PROBES, ids=[probe["name"] for probe in PROBES])
def test_verdict(probe: dict[str, Any]) -> None:
    expected = probe["valid"][CURRENT] or probe["name"] in BEYOND

    assert VALIDATOR.is_valid(probe["definition"]) is expected


def test_editors_are_told_what_a_field_means() -> None:
    assert "/bin/sh -c" in SCHEMA["$defs"]["RunArgs"]["properties"]["cmd"]["description"]
    assert "docs/" not in json.dumps(SCHEMA)
    assert SCHEMA["$defs"]["Spread"]["description"].endswith("JSON array its literal yields.")
    assert "null" not in json.dumps(SCHEMA)
