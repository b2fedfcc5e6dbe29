"""The declaration of a metric family: the registry and docs/metrics.md are both made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import GaugeMetricFamily

PREFIX = "nosana_operator"

Type = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family. `name` is without the prefix, and without the `_total` that a counter gets.

    No label has a name that Prometheus or its operator put on a target (`namespace`, `endpoint`, `job`, …), because
    the scrape would rename it.
    """

    name: str
    type: Type
    text: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name in Prometheus; a histogram's series end in `_bucket`, `_sum` and `_count`."""
        return f"{PREFIX}_{self.name}{'_total' if self.type == 'counter' else ''}"

    def collected(self) -> GaugeMetricFamily:
        """The gauge without samples, for a collector that fills it at each scrape."""
        return GaugeMetricFamily(f"{PREFIX}_{self.name}", self.text, labels=self.labels)
