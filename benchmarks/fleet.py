"""Three markets, eight keys, twelve GPUs on three nodes, five hundred jobs in bursts: how busy the GPUs are.

A simulation: the market host as it is over the sandbox's Jobs program and an API in memory, in virtual time. A
GPU is busy from the match to the end of its pods, so what a pod's start takes does not count; what lies between
two jobs (the finish, the next match, each in a slot of the chain of 0.4 s) does.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

TESTS: Final = Path(__file__).parents[1] / "tests"

NAME: Final = "fleet"
AT_LEAST: Final = ("gpu_use_while_jobs_wait", "jobs_settled_once")
GOAL: Final = {"gpu_use_while_jobs_wait": 0.95, "most_matches_at_once": 12, "jobs_settled_once": 500}
JOBS: Final = 500
SECONDS: Final = (60.0, 180.0)
"""How long each job's pods run."""


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    # The stand-ins for the API server and the chain are the tests'.
    sys.path.insert(0, str(TESTS))
    from fakes.many_markets import FleetLab, Shape

    logging.disable(logging.WARNING)
    began = time.monotonic()
    lab = FleetLab(Shape(), random.Random(1), seconds=SECONDS)
    asyncio.run(lab.life(JOBS, burst=(10, 60), pause=(10, 300)))
    lab.check_settled_once()
    use = lab.use
    return {
        "gpu_use_while_jobs_wait": round(use.ratio(lab.shape.slots), 4),
        "most_matches_at_once": use.most_matches,
        "jobs_settled_once": lab.count("Finish"),
        "chain_seconds_with_a_backlog": round(use.backlog_slots * 0.4),
        "most_runs_at_once": use.most_runs,
        "seconds": round(time.monotonic() - began, 1),
    }
