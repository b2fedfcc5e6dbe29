"""Three markets, eight keys and twelve GPUs on three nodes: bursts of jobs, and no GPU idle or taken twice."""

from __future__ import annotations

import random

import pytest

from fakes.many_markets import FleetLab, Shape


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 6))])
async def test_gpus_are_in_use_while_jobs_wait(seed: int) -> None:
    lab = FleetLab(Shape(), random.Random(seed), seconds=(20, 60))
    # `slot()` looks at every slot: never more matches than GPUs, and every match finds a node.
    await lab.life(40, burst=(5, 20), pause=(1, 40))
    lab.check_settled_once()
    assert lab.use.most_matches == lab.shape.slots
    assert lab.use.backlog_slots > 100
    # Two slots of the chain to finish and two to match, on jobs of 40 s: the rest is ours.
    assert lab.use.ratio(lab.shape.slots) > 0.9
