"""The Grafana dashboard as the tests read it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from support.promtool import DASHBOARD

_BODY: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = _BODY["panels"]
ROWS: list[str] = [panel["title"] for panel in PANELS if panel["type"] == "row"]
VARIABLES: list[str] = [one["name"] for one in _BODY["templating"]["list"]]


@dataclass(frozen=True)
class Target:
    """One query of a panel."""

    panel: str
    letter: str
    expression: str
    legend: str
    source: str

    def __str__(self) -> str:
        return f"{self.panel} {self.letter}"

    @property
    def evaluable(self) -> str:
        """The expression as Grafana sends it with nothing chosen, over the last minute."""
        return self.expression.replace("$__rate_interval", "1m").replace("$market", ".*")

    @property
    def legend_labels(self) -> list[str]:
        """Labels that the legend shows."""
        return re.findall(r"\{\{(\w+)\}\}", self.legend)


TARGETS: list[Target] = [
    Target(panel["title"], one["refId"], one["expr"], one["legendFormat"], one["datasource"]["uid"])
    for panel in PANELS
    for one in panel.get("targets", ())
]
