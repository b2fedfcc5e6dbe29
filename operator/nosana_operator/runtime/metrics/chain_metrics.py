"""How current each network's view of the chain is, and what its markets are like, read at each scrape.

An RPC node is named by its position in the settings, from 0: its URL may hold an API key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from nosana_operator.chain import ChainClient, Health
from nosana_operator.runtime.metrics.family import Family
from nosana_operator.runtime.metrics.object_metrics import BASE_UNITS


def _words(health: Health) -> str:
    return health.name.lower()


STALENESS = Family(
    "solana_staleness_seconds",
    "gauge",
    "How far the operator's view may be behind the chain: time since a node showed a newer slot, or by which the next "
    "successful reading is overdue.",
    ("network",),
)
SLOT = Family("solana_slot", "gauge", "Newest slot that was read at confirmed.", ("network",))
OFFSET = Family(
    "solana_clock_offset_seconds",
    "gauge",
    "Seconds by which the chain's clock is ahead of ours.",
    ("network",),
)
SOCKET = Family("solana_websocket_alive", "gauge", "1 while the WebSocket delivers something.", ("network",))
HEALTH = Family(
    "solana_rpc_health",
    "gauge",
    "1 for the state that an RPC node is in: " + ", ".join(_words(each) for each in Health) + ". Nodes are "
    "numbered as in the settings, from 0.",
    ("network", "rpc", "state"),
)
LATENCY = Family(
    "solana_rpc_latency_seconds", "gauge", "How long an RPC node took to return its slot.", ("network", "rpc")
)
LAG = Family(
    "solana_rpc_slot_lag", "gauge", "Slots that an RPC node is behind the best one.", ("network", "rpc")
)
QUEUE = Family(
    "market_queue_length",
    "gauge",
    "What waits in a market's queue: jobs for a host, or hosts for a job.",
    ("network", "market", "type"),
)
PRICE = Family(
    "market_price_nos_per_second", "gauge", "What a market pays for a second of a job.", ("network", "market")
)
FAMILIES = (STALENESS, SLOT, OFFSET, SOCKET, HEALTH, LATENCY, LAG, QUEUE, PRICE)

_QUEUES = {"jobs": "Job", "hosts": "Node"}


class ChainCollector(Collector):
    """Gauges of the networks' chain clients, by the networks' names."""

    def __init__(self, clients: Mapping[str, ChainClient]) -> None:
        self._clients = clients

    def collect(self) -> Iterable[Metric]:
        """The families with their current values. What was never measured has no series."""
        staleness, slot, offset, socket = (each.collected() for each in (STALENESS, SLOT, OFFSET, SOCKET))
        health, latency, lag = (each.collected() for each in (HEALTH, LATENCY, LAG))
        queue, price = QUEUE.collected(), PRICE.collected()
        for name, client in sorted(self._clients.items()):
            watcher = client.watcher
            if watcher.staleness is not None:
                staleness.add_metric((name,), watcher.staleness)
            if watcher.slot:
                slot.add_metric((name,), watcher.slot)
            if client.clock.offset is not None:
                offset.add_metric((name,), client.clock.offset)
            socket.add_metric((name,), watcher.alive)
            for view in client.endpoints.views:
                number = str(view.number)
                for state in Health:
                    health.add_metric((name, number, _words(state)), state is view.health)
                if view.latency is not None:
                    latency.add_metric((name, number), view.latency)
                    lag.add_metric((name, number), view.slots_behind)
            for address, seen in sorted(watcher.markets.items()):
                if seen.value is None:
                    continue
                for label, kind in _QUEUES.items():
                    length = len(seen.value.queue) if seen.value.queue_type == kind else 0
                    queue.add_metric((name, address, label), length)
                price.add_metric((name, address), seen.value.price / BASE_UNITS)
        yield from (staleness, slot, offset, socket, health, latency, lag, queue, price)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the families depend on what was measured."""
        return ()
