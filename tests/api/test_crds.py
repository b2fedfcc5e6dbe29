"""The CRDs as files and as schemas; what the API server makes of their rules is in tests/contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from nosana_operator.api import (
    JOB_KIND,
    MARKET_KIND,
    NosanaJobSpec,
    NosanaMarketSpec,
    crds,
    crds_yaml,
    parse_part,
)
from nosana_operator.cli import main
from nosana_operator.definition import parse

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "manifests" / "crds.yaml"
SHOWN = sorted([*(ROOT / "manifests" / "samples").glob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])


def test_the_manifest_is_what_the_models_say() -> None:
    assert MANIFEST.read_text(encoding="utf-8") == crds_yaml(), (
        "run nosana-operator crds > manifests/crds.yaml"
    )


def test_the_command_prints_them() -> None:
    result = CliRunner().invoke(main, ["crds"])
    assert (result.exit_code, result.stdout) == (0, crds_yaml())
    assert [body["metadata"]["name"] for body in yaml.safe_load_all(result.stdout)] == [
        "nosanajobs.nosana.io",
        "nosanamarkets.nosana.io",
    ]


def test_what_docstrings_cite_is_left_out() -> None:
    assert "docs/" not in crds_yaml()
    status = crds()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert status["description"].endswith("the job controller and the market host.")


def test_results_may_be_as_long_as_a_status_takes_them() -> None:
    """Definitions pass whole JSON documents from op to op."""
    status = crds()[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    results = status["properties"]["ops"]["items"]["properties"]["results"]
    assert results["additionalProperties"] == {"type": "string", "maxLength": 32 * 1024}


@pytest.mark.parametrize("version", ["1.31", "1.35", "1.37"])
@pytest.mark.parametrize("crd", crds(), ids=lambda crd: crd["spec"]["names"]["kind"])
def test_they_are_valid_kubernetes(crd: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(crd, version, strict=True)


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, sub in schema.get("properties", {}).items():
        yield from nodes(sub, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from nodes(schema[keyword], f"{path}.{keyword}")


@pytest.mark.parametrize("crd", crds(), ids=lambda crd: crd["spec"]["names"]["kind"])
def test_schemas_are_structural_and_bounded(crd: dict[str, Any]) -> None:
    (version,) = crd["spec"]["versions"]
    found = dict(nodes(version["schema"]["openAPIV3Schema"]))
    assert len(found) > 40
    for path, node in found.items():
        assert node.get("type"), path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "$defs"} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node["type"] == "array":
            # An unbounded list makes the cost of a rule over it unbounded, too.
            assert ("maxItems" in node) or path.startswith(".status"), path


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_what_we_show_can_be_read(path: Path) -> None:
    kinds = {JOB_KIND: NosanaJobSpec, MARKET_KIND: NosanaMarketSpec}
    seen = 0
    for body in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if body["kind"] in kinds:
            seen += 1
            spec = parse_part(kinds[body["kind"]], body["kind"], "spec", body["spec"])  # type: ignore[arg-type, var-annotated]
            if isinstance(spec, NosanaJobSpec) and spec.definition is not None:
                parse(spec.definition)
        if body["kind"] == "ConfigMap":
            parse(body["data"]["definition.json"])
    assert seen == 1
