"""SIGKILL of the operator at ten points of a market job's life: nothing is lost, doubled or paid wrongly.

Each point is found by what the cluster and the chain tell; the operator is killed as soon as it is reached,
started again, and has to go on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from nosana_operator.api import JobCondition
from nosana_operator.api.result import result_secret_name
from nosana_sandbox.world.poster import Posted
from support.scene import (
    Scene,
    assert_paid_once,
    definition,
    eventually,
    holds,
    logs_of,
    op,
    phase,
    started,
    terminated,
)

pytestmark = pytest.mark.cluster

Point = Callable[[Scene, Posted], Awaitable[object]]


async def just_posted(scene: Scene, posted: Posted) -> None:
    """Matched on chain; the operator has heard of it at most now."""


def job_is(good: Callable[[Mapping[str, Any]], bool], what: str) -> Point:
    async def reached(scene: Scene, posted: Posted) -> object:
        return await scene.job_that(posted, good, what)

    return reached


def pod_is(good: Callable[[Mapping[str, Any]], bool], what: str) -> Point:
    async def reached(scene: Scene, posted: Posted) -> object:
        def look() -> bool:
            body = scene.job_of(posted)
            return body is not None and any(good(pod) for pod in scene.pods_ever(body).values())

        return await scene.seen.until(look, 60, f"the pod {what}")

    return reached


async def result_stored(scene: Scene, posted: Posted) -> object:
    def look() -> bool:
        body = scene.job_of(posted)
        if body is None:
            return False
        return result_secret_name(body["metadata"]["name"], 0) in scene.seen.current("Secret")

    return await scene.seen.until(look, 60, "the result is stored")


async def finish_sent(scene: Scene, posted: Posted) -> object:
    body = await scene.job_that(posted, lambda b: bool(b.get("status")), "has a status")
    run = body["spec"]["run"]["run"]

    async def look() -> bool:
        value = (await scene.poster.call("getAccountInfo", run, {"commitment": "processed"}))["value"]
        return value is None

    return await eventually(look, "the chain has taken `finish`", every=0.02)


def settlement(body: Mapping[str, Any]) -> Any:
    return (body.get("status") or {}).get("settlement") or {}


POINTS: dict[str, Point] = {
    "just posted": just_posted,
    "NosanaJob created": job_is(lambda b: True, "exists"),
    "verified": job_is(lambda b: holds(b, JobCondition.RUN_VERIFIED), "is verified"),
    "pod created": pod_is(lambda pod: True, "exists"),
    "running": pod_is(started, "runs"),
    "container ended": pod_is(terminated, "has ended"),
    "result stored": result_stored,
    "intent written": job_is(lambda b: "transaction" in settlement(b), "holds its intent"),
    "finish sent": finish_sent,
    "settled": job_is(lambda b: holds(b, JobCondition.SETTLED), "is settled"),
}


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


async def balance(scene: Scene, owner: str) -> int:
    """NOS base units of a wallet."""
    config = {"encoding": "jsonParsed", "commitment": "confirmed"}
    found = await scene.poster.call(
        "getTokenAccountsByOwner", owner, {"mint": scene.running.world.mint}, config
    )
    return sum(
        int(each["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"]) for each in found["value"]
    )


async def signatures(scene: Scene, address: str) -> list[tuple[str, ...]]:
    """What was done on chain that names this account; a failed transaction fails the test."""
    entries = await scene.poster.call("getSignaturesForAddress", address, {"commitment": "confirmed"})
    assert [entry["signature"] for entry in entries if entry["err"] is not None] == []
    return await scene.instructions(address)
