"""The job definitions whose objects are recorded, and the examples that the documents show."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CASES = sorted((ROOT / "tests" / "data" / "definitions").glob("*.yaml"))
SHOWN = [
    EXAMPLES / name
    for name in (
        "hello-world.json",
        "count-stages.json",
        "jupyter-gpu.json",
        "model-files.json",
        "private-job.yaml",
    )
]
