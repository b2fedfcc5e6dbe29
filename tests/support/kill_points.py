"""Points of a market job's life at which a test stops an operator, and what the chain tells afterwards.

Each point is found by what the cluster and the chain tell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nosana_operator.api import JobCondition
from nosana_operator.api.result import result_secret_name
from nosana_sandbox.world.poster import Posted
from support.scene import Scene, eventually, holds, started, terminated

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
