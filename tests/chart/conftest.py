"""The chart, rendered by a real Helm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.build import HELM_VERSION, ensure_helm
from nosana_tools.chart.generate import render
from support.chart import objects_in

Body = dict[str, Any]
Rendered = Callable[..., list[Body]]


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm's program, built from source where it is not yet; only a machine without Go goes without it."""
    built = any(cache_folder().glob(f"helm-{HELM_VERSION}-*/bin/helm"))
    if os.environ.get("CI") != "true" and not built and shutil.which("go") is None:
        pytest.skip("Helm is not built yet and there is no Go; `make test` brings both")
    return ensure_helm(print)


@pytest.fixture(scope="session")
def rendered(helm: Path) -> Rendered:
    """The chart's objects with these values and options; rendered once, so nobody may change them."""
    known: dict[str, list[Body]] = {}

    def objects(values: dict[str, Any] | None = None, *options: str, **more: Any) -> list[Body]:
        key = json.dumps([values or {}, options, more], sort_keys=True)
        if key not in known:
            known[key] = objects_in(render(helm, values or {}, *options, **more))
        return known[key]

    return objects
