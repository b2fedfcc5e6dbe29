from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.api.quantity import UNIT
from nosana_operator.inventory import holds_node, requests


def container(sidecar: bool = False, **quantities: str) -> dict[str, Any]:
    out: dict[str, Any] = {"resources": {"requests": quantities}}
    return out | ({"restartPolicy": "Always"} if sidecar else {})


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), "initContainers": list(init), **spec}}


@pytest.mark.parametrize(
    ("body", "cpu"),
    [
        (pod(container()), 0),
        (pod({}), 0),
        (pod(container(cpu="1"), container(cpu="500m")), 1.5),
        # Init containers run one at a time, before the others.
        (pod(container(cpu="1"), init=(container(cpu="3"), container(cpu="2"))), 3),
        (pod(container(cpu="4"), init=(container(cpu="3"),)), 4),
        # A sidecar stays: it runs beside the app containers and beside the init containers after it.
        (pod(container(cpu="1"), init=(container(sidecar=True, cpu="2"),)), 3),
        (pod(container(cpu="1"), init=(container(sidecar=True, cpu="2"), container(cpu="3"))), 5),
        (pod(container(cpu="1"), init=(container(cpu="3"), container(sidecar=True, cpu="1"))), 3),
        (pod(container(cpu="1"), overhead={"cpu": "250m"}), 1.25),
        # What is asked for the pod as a whole wins.
        (pod(container(cpu="1"), resources={"requests": {"cpu": "2"}}), 2),
    ],
)
def test_effective_requests(body: dict[str, Any], cpu: float) -> None:
    assert requests(body).get("cpu", 0) == cpu * UNIT
    assert requests(body)["pods"] == UNIT


@pytest.mark.parametrize(
    ("body", "holds"),
    [
        ({"spec": {"nodeName": "a"}}, True),
        ({"spec": {"nodeName": "a"}, "status": {"phase": "Pending"}}, True),
        ({"spec": {"nodeName": "a"}, "status": {"phase": "Unknown"}}, True),
        ({"spec": {"nodeName": "a"}, "status": {"phase": "Succeeded"}}, False),
        ({"spec": {"nodeName": "a"}, "status": {"phase": "Failed"}}, False),
        ({"spec": {}, "status": {"phase": "Pending"}}, False),
        ({}, False),
    ],
)
def test_what_holds_a_node(body: dict[str, Any], holds: bool) -> None:
    assert holds_node(body) is holds
