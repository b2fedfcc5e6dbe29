"""Two operators, one of which works: killed, stopped in good order, and stopped in the middle of a payment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from nosana_operator.api import JobCondition
from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.host import SandboxHost
from nosana_sandbox.world.sandbox import NAMESPACES, Sandbox
from support.kill_points import POINTS, balance, signatures
from support.scene import Scene, assert_paid_once, definition, eventually, holds, op, phase, sleeps, started

pytestmark = pytest.mark.cluster

TAKEOVER = 20.0
"""Seconds after a kill."""
HANDOVER = 3.0
"""Seconds after SIGTERM."""


@dataclass
class Pair:
    """Two replicas."""

    both: tuple[SandboxHost, SandboxHost]

    async def leader(self) -> SandboxHost:
        """The one that works."""

        async def look() -> SandboxHost | None:
            leading = [one for one in self.both if await asyncio.to_thread(one.leads)]
            assert len(leading) < 2, "two work"
            return leading[0] if leading else None

        return await eventually(look, "one of two works")

    def other(self, one: SandboxHost) -> SandboxHost:
        return self.both[1] if one is self.both[0] else self.both[0]

    async def leads(self, one: SandboxHost) -> float:
        """Wait until it works; how long that took."""
        began = time.monotonic()

        async def look() -> bool:
            return await asyncio.to_thread(one.leads)

        await eventually(look, "the standby works", every=0.05)
        return time.monotonic() - began


@pytest.fixture
def second(sandbox: Sandbox) -> Iterator[SandboxHost]:
    host = SandboxHost(sandbox, sandbox.status(), replica=1)
    host.install(watchNamespaces=[NAMESPACES["system"], NAMESPACES["jobs"]])
    host.start()
    try:
        yield host
    finally:
        for_sure_awake(host)
        host.stop()


@pytest.fixture
async def pair(scene: Scene, second: SandboxHost) -> AsyncIterator[Pair]:
    await scene.idle()
    pair = Pair((scene.host, second))
    try:
        yield pair
    finally:
        for_sure_awake(scene.host)
        # For the tests after this one the first is to work, and not to wait for a Lease that was left.
        await asyncio.to_thread(second.stop)


def for_sure_awake(host: SandboxHost) -> None:
    pid = host.pid()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_killed_and_stopped_while_jobs_run(pair: Pair, scene: Scene) -> None:
    """A private and a market job run on under three leaders."""
    leader = await pair.leader()
    standby = pair.other(leader)
    assert await asyncio.to_thread(standby.ready), "readiness does not depend on leadership"
    posted = await scene.post(sleeps(30), timeout=120)
    private = await scene.private("two-replicas", sleeps(30))
    await scene.running_job(posted)
    body = await scene.named(private, lambda b: phase(b) == "Running", "runs")

    await asyncio.to_thread(leader.kill)
    took = await pair.leads(standby)
    print(f"takeover after a kill: {took:.1f} s")
    assert took <= TAKEOVER

    # The killed one comes again, as the kubelet would start it, and stands by for the next.
    await asyncio.to_thread(leader.start)
    assert not await asyncio.to_thread(leader.leads)
    pid = standby.pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    took = await pair.leads(leader)
    print(f"handover after SIGTERM: {took:.1f} s")
    assert took <= HANDOVER

    settled = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), settled, scene.running.world.host.address)
    assert settled["status"]["settlement"]["transaction"]["epoch"] >= 3
    over = await scene.over(private)
    assert holds(over, JobCondition.COMPLETE)
    for one in (settled, over):
        (pod,) = scene.pods_ever(one).values()
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert over["metadata"]["uid"] == body["metadata"]["uid"]
    await scene.idle()


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("container ended", marks=pytest.mark.soak),
        "intent written",
        pytest.param("finish sent", marks=pytest.mark.soak),
    ],
)
async def test_stopped_in_the_middle_of_a_payment(pair: Pair, scene: Scene, point: str) -> None:
    """SIGSTOP, another settles; SIGCONT: the old leader ends, and has neither sent nor written anything."""
    host = scene.running.world.host.address
    before = await balance(scene, host)
    leader = await pair.leader()
    standby = pair.other(leader)
    posted = await scene.post(definition(op("one", "echo one; sleep 1")))
    assert posted.run is not None
    await POINTS[point](scene, posted)
    pid = leader.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    took = await pair.leads(standby)
    print(f"takeover from a stopped leader: {took:.1f} s")
    assert took <= TAKEOVER
    body = await scene.settled(posted)
    os.kill(pid, signal.SIGCONT)

    async def ended() -> bool:
        return leader.pid() is None

    await eventually(ended, "the old leader has ended", timeout=15)
    assert "was not renewed for" in leader.log.read_text().splitlines()[-1]
    view = await scene.poster.job(posted.job)
    assert_paid_once(view, body, host)
    assert [name for each in await signatures(scene, posted.run) for name in each] == ["List", "Finish"]
    assert await balance(scene, host) - before == view.totals.earned
    (pod,) = scene.pods_ever(body).values()
    assert started(pod)
    await scene.idle()


@pytest.mark.soak
async def test_the_api_server_stops_and_goes_on(
    pair: Pair, scene: Scene, sandbox_cluster: LocalCluster
) -> None:
    """All connections hang: the leader ends; when the server goes on, one works, and nothing was ended by it."""
    leader = await pair.leader()
    standby = pair.other(leader)
    posted = await scene.post(sleeps(20), timeout=120)
    await scene.running_job(posted)
    server = sandbox_cluster.pid("kube-apiserver")
    assert server is not None
    os.kill(server, signal.SIGSTOP)
    try:

        async def ended() -> bool:
            return leader.pid() is None

        await eventually(ended, "the leader has ended", timeout=30)
        assert not await asyncio.to_thread(standby.leads)
    finally:
        os.kill(server, signal.SIGCONT)
    took = await pair.leads(standby)
    print(f"takeover after the API server was away: {took:.1f} s")
    assert took <= TAKEOVER
    body = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
    (pod,) = scene.pods_ever(body).values()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    await scene.idle()
