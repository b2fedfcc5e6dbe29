"""The files that are generated from others, each with its text; tests compare them, `make manifests` writes them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from nosana_operator.api import crds_yaml
from nosana_tools.chart import CHART, MANIFESTS
from nosana_tools.chart.errors import RenderError
from nosana_tools.chart.readme import readme
from nosana_tools.chart.schema import values_schema
from nosana_tools.chart.values import read_values

RELEASE: Final = "nosana-operator"
NAMESPACE: Final = "nosana-system"
OLDEST_KUBERNETES: Final = "1.31.0"
"""The chart has to render for it; what is rendered does not depend on the version."""

_PLAIN: Final = {
    # The CRDs have their own file, and kubectl has no hooks.
    "crds": {"enabled": False},
    "namespace": {"create": True},
    "leave": {"enabled": False},
}
_HELM_ONLY: Final = ("helm.sh/chart", "helm.sh/resource-policy")
_HEADER: Final = (
    "# The chart charts/nosana-operator with its defaults, rendered by `make manifests`; apply crds.yaml first.\n"
    "#   kubectl apply --server-side -f crds.yaml -f operator.yaml\n"
)


def generated(helm: Path) -> Iterator[tuple[Path, str]]:
    """(file, its text), in the order of their dependencies. Raises RenderError."""
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    yield CHART / "files" / "crds.yaml", crds_yaml()
    yield CHART / "values.schema.json", json.dumps(values_schema(values), indent=1, ensure_ascii=False) + "\n"
    yield CHART / "README.md", readme(values)
    yield MANIFESTS / "operator.yaml", plain_manifest(helm)


def render(helm: Path, values: dict[str, Any], *options: str, kubernetes: str = OLDEST_KUBERNETES) -> str:
    """`helm template` of the chart with these values. Raises RenderError with Helm's message."""
    done = subprocess.run(
        [
            str(helm),
            "template",
            RELEASE,
            str(CHART),
            f"--namespace={NAMESPACE}",
            f"--kube-version={kubernetes}",
            "--values=-",
            *options,
        ],
        # JSON is YAML without ambiguities.
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RenderError(done.stderr.strip())
    return done.stdout


def plain_manifest(helm: Path) -> str:
    """`manifests/operator.yaml`: the default values, without what only Helm understands."""
    documents = []
    for body in yaml.safe_load_all(render(helm, dict(_PLAIN), "--skip-tests")):
        if body is None:
            continue
        _drop_helm_words(body["metadata"])
        if body["kind"] == "Deployment":
            _drop_helm_words(body["spec"]["template"]["metadata"])
        documents.append(yaml.safe_dump(body, sort_keys=False, width=110))
    return _HEADER + "---\n" + "---\n".join(documents)


def _drop_helm_words(metadata: dict[str, Any]) -> None:
    for field in ("labels", "annotations"):
        words = metadata.get(field) or {}
        for name in _HELM_ONLY:
            words.pop(name, None)
        if words.get("app.kubernetes.io/managed-by") == "Helm":
            del words["app.kubernetes.io/managed-by"]
        if field in metadata and not words:
            del metadata[field]
