"""The long run: a hundred jobs at least, while the operator is killed a hundred times."""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass, field

import pytest

from nosana_operator.api import JobCondition
from nosana_sandbox.world.poster import Posted
from support.scene import Scene, assert_paid_once, condition, definition, logs_of, op, phase

pytestmark = [pytest.mark.cluster, pytest.mark.soak, pytest.mark.timeout(5400)]

COUNT = int(os.environ.get("NOSANA_SOAK_JOBS", "100"))
KILLS = int(os.environ.get("NOSANA_SOAK_KILLS", "100"))
"""Jobs are posted until there were that many of both."""
SEED = int(os.environ.get("NOSANA_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
LIFE = 6.0
"""Seconds in which a kill falls after a job was posted: from the match to its being settled."""


@dataclass(slots=True)
class Tally:
    """What was seen, for the report."""

    kills: int = 0
    during: dict[str, int] = field(default_factory=dict)
    """Kills by the phase that the newest job was in."""

    def killed(self, at: str) -> None:
        self.kills += 1
        self.during[at] = self.during.get(at, 0) + 1


async def killer(
    scene: Scene, rng: random.Random, newest: list[Posted], tally: Tally, stop: asyncio.Event
) -> None:
    """Kill the operator at random moments, and start it again at once, until told to stop."""
    while not stop.is_set():
        pause = rng.uniform(0.2, LIFE)
        try:
            async with asyncio.timeout(pause):
                await stop.wait()
        except TimeoutError:
            body = scene.job_of(newest[-1]) if newest else None
            tally.killed("nothing yet" if body is None else phase(body) or "Created")
            await asyncio.to_thread(scene.host.kill)
            await asyncio.to_thread(scene.host.start)


async def test_every_job_is_finished_once_and_paid_once(scene: Scene) -> None:
    print(f"\nNOSANA_SOAK_SEED={SEED}, {COUNT} jobs and {KILLS} kills", flush=True)
    rng = random.Random(SEED)
    await scene.idle()
    host = scene.running.world.host.address
    began = time.monotonic()
    posted: list[Posted] = []
    tally, stop = Tally(), asyncio.Event()
    chaos = asyncio.create_task(killer(scene, rng, posted, tally, stop))
    try:
        while len(posted) < COUNT or tally.kills < KILLS:
            number, seconds = len(posted), rng.choice((0, 0.5, 1, 2))
            posted.append(
                await scene.post(definition(op("say", f"echo job {number}; sleep {seconds}")), timeout=600)
            )
            await scene.on_chain(posted[-1], "Done")
            assert not chaos.done(), chaos
            if number % 10 == 9:
                print(f"{number + 1} done, {tally.kills} kills, {time.monotonic() - began:.0f} s", flush=True)
    finally:
        stop.set()
        await chaos

    earned = 0
    for number, each in enumerate(posted):
        body = await scene.settled(each)
        view = await scene.poster.job(each.job)
        assert_paid_once(view, body, host)
        assert condition(body, JobCondition.COMPLETE)[1] == "Succeeded"
        run = body["spec"]["run"]["run"]
        names = [name for names in await scene.instructions(run) for name in names]
        assert names.count("Finish") == 1
        assert len(names) == 2, names
        assert len(scene.pods_ever(body)) == 1
        assert logs_of(await scene.result(each), "say") == [f"job {number}"]
        earned += view.totals.earned
    assert len({scene.job_of(each)["metadata"]["uid"] for each in posted}) == len(posted)  # type: ignore[index]
    print(
        f"{len(posted)} jobs finished once and paid once ({earned / 1e6:g} NOS); {tally.kills} kills, the newest "
        f"job's phase at each: {tally.during}; {time.monotonic() - began:.0f} s"
    )
