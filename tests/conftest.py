"""Which tests share a worker: those of one cluster, so that it is brought up once and nobody else disturbs it."""

from __future__ import annotations

from pathlib import Path

import pytest

CLUSTER = Path(__file__).parent / "cluster"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -n 3 --dist loadgroup` runs the clusters of these groups side by side, and the other rings beside."""
    for item in items:
        if not item.path.is_relative_to(CLUSTER):
            continue
        fixtures = set(getattr(item, "fixturenames", ()))
        if "sandbox" in fixtures:
            group = "the shared sandbox"
        elif "spare_cluster" in fixtures:
            group = "the spare cluster"
        else:
            # It has a cluster of its own, or none.
            group = item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
