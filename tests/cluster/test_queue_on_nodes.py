"""What the nodes hold decides what is offered on chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nosana_operator.api import MARKET_KIND, JobCondition, MarketCondition
from support.markets_on_cluster import fund, offered, secret
from support.scene import SYSTEM, Scene, condition, eventually, sleeps, started

pytestmark = pytest.mark.cluster

HOSTNAME = "kubernetes.io/hostname"


async def nodes(scene: Scene) -> list[str]:
    """The nodes' names."""
    return sorted(one["metadata"]["name"] for one in await scene.kube.list("Node"))


async def cordon(scene: Scene, *, closed: bool) -> None:
    for name in await nodes(scene):
        await scene.kube.patch("Node", None, name, {"spec": {"unschedulable": closed or None}})


async def test_cordoned_nodes_leave_the_queue_and_their_job_goes_on(scene: Scene) -> None:
    await scene.idle()
    posted = await scene.post(sleeps(300, gpu=True), timeout=600)
    body = await scene.running_job(posted)
    await scene.market_that(lambda s: s["slots"]["standing"] == 1, "stands beside its run")
    try:
        await cordon(scene, closed=True)
        left = await scene.market_that(
            lambda s: s["slots"]["standing"] == 0 and s["slots"]["running"] == 1, "has left the queue"
        )
        assert left["status"]["slots"]["total"] == 1, "the slot of the job that runs"
        (pod,) = scene.pods_ever(body).values()
        assert started(pod)
        await scene.poster.end(posted.job)
        body = await scene.settled(posted)
        assert condition(body, JobCondition.COMPLETE)[1] == "OwnerEnded", "nobody else has ended it"
        empty = await scene.market_that(lambda s: s["slots"]["total"] == 0, "has no slot any more")
        status, reason, message = condition(empty, MarketCondition.READY)
        assert (status, reason) == ("False", "NoFreeSlot")
        assert "is cordoned" in message
    finally:
        await cordon(scene, closed=False)
    await scene.idle()


async def test_two_markets_on_the_same_gpus_offer_each_of_them_once(scene: Scene) -> None:
    """The sandbox's key and two others, for the two GPUs of one node."""
    await scene.idle()
    for name in ("beside-1", "beside-2"):
        key = await fund(scene, sol=1, staked=0)
        await secret(scene, name, key)
    where = {"nodeSelector": {HOSTNAME: (await nodes(scene))[0]}}
    try:
        await scene.set_market(gpu=where, slots={"max": None})
        await scene.market_that(lambda s: s["slots"]["total"] == 2, "counts one node")
        wallets = [{"secretRef": {"name": name}} for name in ("beside-1", "beside-2")]
        await offered(scene, "beside", gpu=where, wallets=wallets, slots=None)

        async def full() -> Mapping[str, Any] | None:
            body = await scene.kube.get(MARKET_KIND, SYSTEM, "beside")
            counted = (body.get("status") or {}).get("slots") or {}
            return body if counted.get("standing") == 1 and counted["free"] == 0 else None

        beside = await eventually(full, "one of the two keys stands for the GPU that is left")
        states = sorted(one["state"] for one in beside["status"]["wallets"])
        assert states == ["Ready", "Standing"], "the other could, but has no slot"

        jobs = [await scene.post(sleeps(3, name=f"sleep-{n}")) for n in range(3)]
        assert [one.run is not None for one in jobs] == [True, True, False], "two GPUs, two matches"
        served = [await scene.settled(one) for one in jobs]
        assert {one["spec"]["run"]["marketRef"]["name"] for one in served} >= {"beside"}
        for body in served:
            for pod in scene.pods_ever(body).values():
                assert pod["spec"]["nodeName"] == where["nodeSelector"][HOSTNAME]
        views = [await scene.poster.job(one.job) for one in jobs]
        assert all(view.state == "Done" for view in views)
        assert views[2].time_start >= min(view.time_end for view in views[:2]), "it waited for a slot"
    finally:
        await scene.kube.delete(MARKET_KIND, SYSTEM, "beside")
        await scene.gone(MARKET_KIND, SYSTEM, "beside")
        await scene.set_market(gpu=None, slots={"max": 2})
    await scene.idle()
