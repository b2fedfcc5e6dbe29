"""SIGKILL of the operator at ten points of a market job's life: nothing is lost, doubled or paid wrongly.

Each point is found by what the cluster and the chain tell; the operator is killed as soon as it is reached,
started again, and has to go on from there.
"""

from __future__ import annotations

import asyncio

import pytest

from support.kill_points import POINTS, balance, signatures
from support.scene import (
    Scene,
    assert_paid_once,
    definition,
    logs_of,
    op,
    phase,
)

pytestmark = pytest.mark.cluster


def test_ten_points() -> None:
    assert len(POINTS) == 10


@pytest.mark.parametrize("name", POINTS)
async def test_killed_when(scene: Scene, name: str) -> None:
    await scene.idle()
    host = scene.running.world.host.address
    before = await balance(scene, host)
    # Two ops, one after the other: what was done must not be done again, what was not has to follow.
    posted = await scene.post(
        definition(op("one", "echo one; sleep 1", group="a"), op("two", "echo two; sleep 1", group="b"))
    )
    assert posted.run is not None
    await POINTS[name](scene, posted)
    await asyncio.to_thread(scene.host.kill)
    reached = scene.job_of(posted)
    await asyncio.to_thread(scene.host.start)

    body = await scene.settled(posted)
    body = await scene.job_that(posted, lambda b: phase(b) == "Completed", "is over")
    if reached is not None:
        assert body["metadata"]["uid"] == reached["metadata"]["uid"], "it is the same NosanaJob"
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, host)
    # On the run's account, failed transactions included: one that made it, one that closed it.
    assert [name for each in await signatures(scene, posted.run) for name in each] == ["List", "Finish"]
    assert await balance(scene, host) - before == view.totals.earned

    pods = scene.pods_ever(body)
    assert sorted(pod["metadata"]["labels"]["nosana.io/op-index"] for pod in pods.values()) == ["0", "1"]
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in pods.values())
    state = await scene.result(posted)
    assert (state["status"], logs_of(state, "one"), logs_of(state, "two")) == ("success", ["one"], ["two"])
    # And the host stands again for the next job, once.
    await scene.idle()
