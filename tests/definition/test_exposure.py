"""Exposed ports and the public ids they get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.definition import (
    Port,
    RunArgs,
    create_hash,
    deployment_hash,
    deployment_service_id,
    exposed_ports,
    parse,
    private_service_id,
    service_id,
    services,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "service-hash.json").read_bytes())
COMPUTED = VECTORS["computed_by_@nosana/endpoints_2.1.6"]
JOB = "3EwUexRdXedDk2EL72py5FQd9fG2aVR9trD3EqEbGCDu"
# Where Nosana's helper and we differ on purpose: a single object is exposed, a literal is no port, private
# ops keep the public ops' ids as they are, and a range is no longer in the language.
OURS: dict[str, list[tuple[int, str, int]]] = {
    "single object (non-array)": [(0, "a", 80)],
    "literal %%global.x%% string": [],
    "private": [(1, "b", 81)],
}


@pytest.mark.parametrize("name", [name for name in COMPUTED if name != "range string"])
def test_recorded_services(name: str) -> None:
    case = COMPUTED[name]
    expected = OURS.get(name, [(item["opIndex"], item["opId"], item["port"]) for item in case["services"]])
    found = services(parse(case["definition"]), case["job"])

    assert [(service.op_index, service.op_id, service.port.number) for service in found] == expected
    if name not in OURS:
        assert [service.id for service in found] == [item["hash"] for item in case["services"]]


def test_recorded_hashes() -> None:
    for case in VECTORS["published"]:
        assert create_hash(case["input"]) == case["hash"]
    ranges = COMPUTED["range string"]
    assert service_id(0, "8000-8010", ranges["job"]) == ranges["services"][0]["hash"]


def test_recorded_deployment() -> None:
    case = VECTORS["deployment_formula"]
    key = deployment_hash(case["deployment_id"], case["project_or_vault"])

    assert key == case["deployment_hash_45"]
    assert deployment_service_id(case["op_id"], key) == case["service_hash_44"]


@pytest.mark.parametrize(
    ("op_index", "port", "hash_"),
    [
        (0, 3000, "LUyn6L6ahWz8SnBze4vC4BMwaYmYaor2zCLVt49wn1SQ"),
        (0, 8080, "2bechSJhHxuDJExaTkP6buf9EtzDSNikLBqiEWczftdh"),
        (1, 80, "2ehaBb1hmc48XVpMPTKGBvPr3GDMqC8tde3VjEr1vnJz"),
    ],
)
def test_ids_that_the_node_computed(op_index: int, port: int, hash_: str) -> None:
    assert service_id(op_index, port, JOB) == hash_


def test_a_private_id_has_its_own_length_and_depends_on_every_byte() -> None:
    first, second = private_service_id(bytes(45)), private_service_id(bytes(44) + b"\x01")

    assert (len(first), len(second)) == (45, 45)
    assert first != second


CHECK = {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": False}


@pytest.mark.parametrize(
    ("expose", "ports"),
    [
        (80, [80]),
        (80.0, [80]),
        ({"port": 80}, [80]),
        ([80, {"port": 81}], [80, 81]),
        ([], []),
        ("%%global.variables.P%%", []),
        ([80, "%%ops.a.results.p%%", {"__spread__": "%%ops.a.results.p%%"}], [80]),
        ([0, -1, 65536, 80.5, 65535, 1], [65535, 1]),
    ],
)
def test_every_shape_of_expose(expose: Any, ports: list[int]) -> None:
    args = RunArgs.model_validate({"image": "i", "expose": expose})

    assert [port.number for port in exposed_ports(args)] == ports


def test_nothing_is_exposed_without_expose() -> None:
    assert exposed_ports(RunArgs.model_validate({"image": "i"})) == ()


def test_health_checks_stay_with_their_port() -> None:
    args = RunArgs.model_validate({"image": "i", "expose": [{"port": 80, "health_checks": [CHECK]}, 81]})
    first, second = exposed_ports(args)

    assert [check.type for check in first.health_checks] == ["http"]
    assert second == Port(81)
