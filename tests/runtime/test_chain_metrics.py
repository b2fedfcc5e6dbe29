"""What Prometheus is told of each network's chain."""

from __future__ import annotations

from typing import cast

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from nosana_operator.chain import DEVNET, ChainClient, ChainWatcher, Market, Network
from nosana_operator.chain.watch.snapshot import Seen
from nosana_operator.runtime.metrics.chain_metrics import ChainCollector


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
    assert 'solana_rpc_health{network="devnet",rpc="1",state="good"} 1.0' in text
    assert "secret-key" not in text


def test_a_chain_that_was_never_read_is_seen_to_be_silent(
    client: ChainClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChainWatcher, "staleness", 90.0)
    text = scrape(client)
    assert 'nosana_operator_solana_staleness_seconds{network="devnet"} 90.0' in text
    assert 'solana_slot{network="devnet"}' not in text


def test_what_was_measured(client: ChainClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChainWatcher, "staleness", 0.5)
    client.clock.observe(0, 77)
    client.watcher._advance(77)
    client.endpoints._all[1].probed(2.5, 40)
    text = scrape(client)
    assert 'nosana_operator_solana_slot{network="devnet"} 77.0' in text
    assert 'solana_staleness_seconds{network="devnet"} 0.5' in text
    assert 'solana_clock_offset_seconds{network="devnet"} -' in text
    assert 'solana_rpc_health{network="devnet",rpc="1",state="lagging"} 1.0' in text
    assert 'solana_rpc_health{network="devnet",rpc="1",state="good"} 0.0' in text
    assert 'rpc_slot_lag{network="devnet",rpc="1"} 40.0' in text
    assert 'rpc_latency_seconds{network="devnet",rpc="1"} 2.5' in text


def test_markets_that_are_watched(client: ChainClient) -> None:
    market = Market(
        address="M1",
        authority="A",
        job_expiration=0,
        price=1_500,
        job_timeout=0,
        job_type=0,
        vault="V",
        node_access_key=None,
        xnos_minimum=0,
        queue_type="Job",
        queue=("j1", "j2"),
    )
    client.watcher._store._markets = {"M1": Seen(market, 5, 0.0), "M2": Seen(None, 5, 0.0)}
    text = scrape(client)
    labels = 'market="M1",network="devnet"'
    assert f'nosana_operator_market_queue_length{{{labels},type="jobs"}} 2.0' in text
    assert f'nosana_operator_market_queue_length{{{labels},type="hosts"}} 0.0' in text
    assert f"nosana_operator_market_price_nos_per_second{{{labels}}} 0.0015" in text
    assert "M2" not in text
