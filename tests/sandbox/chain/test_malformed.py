"""Whatever a client sends, the chain answers with an error of the protocol and lives on."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest

from nosana_sandbox.chain.errors import RpcError
from nosana_sandbox.chain.rpc import Methods
from nosana_sandbox.chain.subscriptions import SUBSCRIBE_METHODS, Hub
from nosana_sandbox.world.genesis import Founded, found

KEY = "11111111111111111111111111111111"
ODD: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "x",
    KEY,
    [1],
    [KEY],
    {"commitment": 1},
    {"commitment": "nearly"},
    {"minContextSlot": "a"},
    {"encoding": []},
    {"encoding": "base64", "dataSlice": {"offset": -5, "length": 2}},
    {"filters": 3},
    {"filters": [{"memcmp": {"offset": 0, "bytes": "0OIl"}}]},
    {"filters": [{"memcmp": {"offset": 0, "bytes": [300]}}]},
    {"filters": [{"dataSize": 1}] * 5},
    {"limit": -1},
    {"before": 3},
    {"mint": 3},
    {"accounts": {"addresses": 3}, "encoding": "base64"},
    {"lamports": "x"},
    {"data": "not base64!"},
    {"advance": "x"},
    {"set": 1e300},
    {"slots": 2**60},
]


@pytest.fixture(scope="module")
def world() -> Founded:
    return found(finality=2)


@pytest.mark.parametrize("method", sorted(Methods(found(finality=2).bank).names))
def test_odd_parameters(world: Founded, method: str) -> None:
    methods = Methods(world.bank)
    for params in [*([each] for each in ODD), *itertools.product(ODD, repeat=2), [], ODD]:
        with contextlib.suppress(RpcError):
            methods.call(method, list(params))
    assert methods.call("getHealth", []) == "ok"
    with pytest.raises(RpcError):
        methods.call(method, {"by": "name"})


@pytest.mark.parametrize("method", sorted(SUBSCRIBE_METHODS))
def test_odd_subscriptions(world: Founded, method: str) -> None:
    hub = Hub(world.bank)
    for params in [
        *([each] for each in ODD),
        *(list(pair) for pair in itertools.product(ODD, repeat=2)),
        ODD,
    ]:
        with contextlib.suppress(RpcError):
            hub.announce(hub.subscribe(method, params, [].append))  # type: ignore[arg-type]
    world.bank.tick(3)
    with pytest.raises(RpcError):
        hub.unsubscribe(["x"], [].append)  # type: ignore[arg-type]
    hub.close()
