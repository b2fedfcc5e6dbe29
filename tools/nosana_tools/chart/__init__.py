"""What is made from the chart and for it: the schema of its values, its README, `manifests/operator.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
CHART: Final = ROOT / "charts" / "nosana-operator"
MANIFESTS: Final = ROOT / "manifests"
