"""How well each network's chain is seen, read at each scrape.

An RPC endpoint is named by its place in the settings, from 0: its URL may hold an API key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nosana_operator.chain import ChainClient, Health

_PREFIX = "nosana_operator_solana"


class ChainCollector(Collector):
    """Gauges of these networks' clients, by the networks' names."""

    def __init__(self, clients: Mapping[str, ChainClient]) -> None:
        self._clients = clients

    def collect(self) -> Iterable[Metric]:
        """The families as they are now. What was never measured has no series."""
        staleness = self._gauge(
            "staleness_seconds",
            "How far what is known may be behind the chain: since a node showed a newer slot, or by which a "
            "reading is overdue.",
        )
        slot = self._gauge("slot", "Newest slot that was read at confirmed.")
        offset = self._gauge("clock_offset_seconds", "Seconds by which the chain's clock is ahead of ours.")
        socket = self._gauge("websocket_alive", "1 while something is heard on the WebSocket.")
        health = self._gauge(
            "endpoint_health",
            "1 for the state that an RPC endpoint is in: " + ", ".join(_words(each) for each in Health) + ".",
            "endpoint",
            "state",
        )
        latency = self._gauge(
            "endpoint_latency_seconds", "How long an RPC endpoint took to tell its slot.", "endpoint"
        )
        lag = self._gauge(
            "endpoint_slot_lag", "Slots that an RPC endpoint is behind the best one.", "endpoint"
        )
        for name, client in sorted(self._clients.items()):
            watcher = client.watcher
            if watcher.staleness is not None:
                staleness.add_metric((name,), watcher.staleness)
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
        yield from (staleness, slot, offset, socket, health, latency, lag)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the families depend on what was measured."""
        return ()

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{_PREFIX}_{name}", text, labels=("network", *labels))


def _words(health: Health) -> str:
    return health.name.lower()
