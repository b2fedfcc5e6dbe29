"""What is made from the chart is what it would be if it were made now; and the chart passes Helm's own look."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from nosana_operator.runtime.settings import parse_settings
from nosana_tools.chart import CHART, MANIFESTS
from nosana_tools.chart.errors import UndocumentedValue
from nosana_tools.chart.generate import generated
from nosana_tools.chart.schema import settings_schema
from nosana_tools.chart.values import Value, read_values
from support.chart import objects_in

ROOT = Path(__file__).parents[2]


def test_nothing_has_drifted(helm: Path) -> None:
    """`make manifests` makes it so."""
    assert [str(path) for path, text in generated(helm) if path.read_text(encoding="utf-8") != text] == []


def test_lint(helm: Path) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_charts_version_is_the_operators() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in pyproject
    crds = yaml.safe_load(chart["annotations"]["artifacthub.io/crds"])
    served = list(yaml.safe_load_all((MANIFESTS / "crds.yaml").read_text()))
    assert [crd["name"] for crd in crds] == [crd["metadata"]["name"] for crd in served]


def test_the_plain_manifests_are_of_no_release() -> None:
    bodies = objects_in((MANIFESTS / "operator.yaml").read_text())
    assert "helm" not in json.dumps(bodies).lower()
    kinds = [body["kind"] for body in bodies]
    assert kinds[0] == "Namespace"
    assert {"Deployment", "ClusterRole", "ValidatingAdmissionPolicy"} <= set(kinds)
    assert not {"CustomResourceDefinition", "Job", "Pod"} & set(kinds)


def closed(schema: object, path: str = "") -> list[str]:
    """Paths of objects that take any key although they name some."""
    found = []
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            found.append(path)
        for key, value in schema.items():
            found += closed(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            found += closed(value, f"{path}/{index}")
    return found


def test_the_schema_is_closed_everywhere() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    assert closed(schema) == []


def test_the_settings_that_the_docs_show_pass_the_schema() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    text = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    parse_settings(text)
    settings = yaml.safe_load(text)
    del settings["watchNamespaces"]
    jsonschema.validate(settings, settings_schema())


def test_values_are_read_with_what_is_said_of_them() -> None:
    text = "# Not of a key.\n\n# Said of a,\n# at length.\na: 1\nb:\n  # Of c.\n  c: [x]\n  # Of d.\n  d:\n    e: 1\n"
    assert read_values(text) == [
        Value(("a",), 1, "Said of a, at length."),
        Value(("b",), {"c": ["x"], "d": {"e": 1}}, ""),
        Value(("b", "c"), ["x"], "Of c."),
        Value(("b", "d"), {"e": 1}, "Of d."),
    ]


@pytest.mark.parametrize("text", ["a: 1\n", "a:\n  # Of b.\n  b: 1\n  c: 2\n"])
def test_a_value_that_nobody_describes_is_refused(text: str) -> None:
    with pytest.raises(UndocumentedValue, match="has no comment"):
        read_values(text)
