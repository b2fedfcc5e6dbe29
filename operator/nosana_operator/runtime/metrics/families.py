"""A family of metrics as it is declared: what is registered and what docs/metrics.md says are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import GaugeMetricFamily

PREFIX = "nosana_operator"

Type = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `name` is without the prefix, and without the `_total` that a counter gets.

    No label is one of those that Prometheus or its operator put on a target (`namespace`, `endpoint`, `job`, …):
    such a one would be renamed at the scrape.
    """

    name: str
    type: Type
    text: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As Prometheus has it; a histogram's series end in `_bucket`, `_sum` and `_count`."""
        return f"{PREFIX}_{self.name}{'_total' if self.type == 'counter' else ''}"

    def collected(self) -> GaugeMetricFamily:
        """The gauge, without samples yet, for a collector that makes it at each scrape."""
        return GaugeMetricFamily(f"{PREFIX}_{self.name}", self.text, labels=self.labels)
