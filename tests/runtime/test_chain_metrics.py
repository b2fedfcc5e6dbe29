"""What Prometheus is told of each network's chain."""

from __future__ import annotations

from typing import cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nosana_operator.chain import DEVNET, ChainClient, Network
from nosana_operator.runtime.chain_metrics import ChainCollector


@pytest.fixture
def client() -> ChainClient:
    urls = ("http://127.0.0.1:9/secret-key", "http://127.0.0.1:10")
    return ChainClient(Network(urls, (), DEVNET), cast(aiohttp.ClientSession, None))


def scrape(client: ChainClient) -> str:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ChainCollector({"devnet": client}))
    return generate_latest(registry).decode()


def test_what_was_never_measured_has_no_series(client: ChainClient) -> None:
    text = scrape(client)
    assert 'solana_staleness_seconds{network="devnet"}' not in text
    assert 'solana_clock_offset_seconds{network="devnet"}' not in text
    assert 'nosana_operator_solana_websocket_alive{network="devnet"} 0.0' in text
    assert 'endpoint_health{endpoint="1",network="devnet",state="good"} 1.0' in text
    assert "secret-key" not in text


def test_what_was_measured(client: ChainClient) -> None:
    client.clock.observe(0)
    client.watcher._advance(77)
    client.endpoints._all[1].probed(2.5, 40)
    text = scrape(client)
    assert 'nosana_operator_solana_slot{network="devnet"} 77.0' in text
    assert 'solana_staleness_seconds{network="devnet"}' in text
    assert 'solana_clock_offset_seconds{network="devnet"} -' in text
    assert 'endpoint_health{endpoint="1",network="devnet",state="lagging"} 1.0' in text
    assert 'endpoint_health{endpoint="1",network="devnet",state="good"} 0.0' in text
    assert 'endpoint_slot_lag{endpoint="1",network="devnet"} 40.0' in text
    assert 'endpoint_latency_seconds{endpoint="1",network="devnet"} 2.5' in text
