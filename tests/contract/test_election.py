"""Who leads, by a real API server: the Lease as it stands there, two processes of the operator, an outage."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from nosana_operator.api import crds
from nosana_operator.errors import Conflict
from nosana_operator.kube import Election, ElectionSettings, KubeClient, LeadershipLost, load_credentials
from nosana_operator.runtime.errors import BackgroundFailed
from nosana_operator.runtime.operator import KINDS, Loops, Operator, OperatorContext
from nosana_operator.runtime.settings import Settings, parse_settings
from nosana_operator.runtime.watching import wait_for_kinds
from nosana_sandbox.cluster.apiserver import BareApiServer

pytestmark = pytest.mark.contract

QUICK = ElectionSettings.model_construct(lease_seconds=3, renew_seconds=2, retry_seconds=0.5)  # type: ignore[arg-type]


async def eventually(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until it is true; how long that may take is a bound, not a wait."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - most of what is waited for is a reply of a server
            await asyncio.sleep(0.01)


def standing(kube: KubeClient, namespace: str, identity: str, times: ElectionSettings = QUICK) -> Election:
    return Election(kube, namespace=namespace, name="lease", identity=identity, times=times)


async def test_the_lease_as_it_stands_there(kube: KubeClient, namespace: str) -> None:
    a, b = standing(kube, namespace, "a"), standing(kube, namespace, "b")
    await a.acquire()
    made = await kube.get("Lease", namespace, "lease")
    assert (made["spec"]["holderIdentity"], made["spec"]["leaseTransitions"]) == ("a", 1)
    assert made["spec"]["leaseDurationSeconds"] == 3

    holding, waiting = asyncio.create_task(a.hold()), asyncio.create_task(b.acquire())
    await asyncio.sleep(4)  # longer than a Lease lasts that nobody renews
    renewed = (await kube.get("Lease", namespace, "lease"))["spec"]
    assert renewed["renewTime"] > made["spec"]["renewTime"]
    assert (renewed["acquireTime"], a.leading, b.leading) == (made["spec"]["acquireTime"], True, False)
    # Somebody deletes it: its leader puts it back, and nobody else takes it meanwhile.
    await kube.delete("Lease", namespace, "lease")
    await asyncio.sleep(2)
    assert (await kube.get("Lease", namespace, "lease"))["spec"]["holderIdentity"] == "a"
    assert (a.check(), b.leading) == (1, False)

    holding.cancel()
    await a.release()
    released = time.monotonic()
    given_back = (await kube.get("Lease", namespace, "lease"))["spec"]
    assert (given_back.get("holderIdentity"), given_back["leaseTransitions"]) == (None, 1)
    await asyncio.wait_for(waiting, 3)
    assert time.monotonic() - released < 1
    assert b.check() == 2
    with pytest.raises(LeadershipLost):
        a.check()


async def test_of_several_that_begin_together_one_leads(kube: KubeClient, namespace: str) -> None:
    for round_ in range(10):
        candidates = [standing(kube, namespace, f"{round_}-{name}") for name in range(4)]
        tasks = [asyncio.create_task(one.acquire()) for one in candidates]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (leader,) = [one for one in candidates if one.leading]
        assert leader.check() == round_ + 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await leader.release()


async def test_a_write_by_a_stale_version_is_a_conflict(kube: KubeClient, namespace: str) -> None:
    """What the whole election, and the fence, stand on."""
    a = standing(kube, namespace, "a")
    await a.acquire()
    stale = await kube.get("Lease", namespace, "lease")
    await kube.patch("Lease", namespace, "lease", {"metadata": {"labels": {"x": "y"}}})
    version = {"resourceVersion": stale["metadata"]["resourceVersion"]}
    with pytest.raises(Conflict):
        await kube.patch("Lease", namespace, "lease", {"metadata": version, "spec": {"holderIdentity": "b"}})


class Replica:
    """A process of the operator with loops that only remember."""

    def __init__(self, settings: Settings, apiserver: BareApiServer) -> None:
        self.jobs: list[tuple[str, str]] = []
        self.operator = Operator(settings, load_credentials(apiserver.kubeconfig), self._build)
        self.edges: OperatorContext | None = None
        self.task = asyncio.create_task(self.operator.run())

    def _build(self, edges: OperatorContext) -> Loops:
        self.edges = edges

        async def on_job(key: tuple[str, str]) -> None:
            self.jobs.append(key)

        async def none(key: tuple[str, str]) -> None:
            return

        return Loops(on_job, none, none)

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.operator.web_port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status, await response.text()

    async def is_ready(self) -> None:
        await eventually(lambda: self.operator.web_port is not None)
        async with asyncio.timeout(20):
            while (await self.get("/readyz"))[0] != 200:  # noqa: ASYNC110 - a server tells only who asks
                await asyncio.sleep(0.01)

    async def leads(self) -> bool:
        return "nosana_operator_leader 1.0" in (await self.get("/metrics"))[1]


def settings(namespace: str, **times: int) -> Settings:
    lines = "".join(f"  {name}: {value}\n" for name, value in times.items())
    return parse_settings(
        "metrics: {address: 127.0.0.1, port: 0}\n"
        f"watchNamespaces: [{namespace}]\nelection:\n  namespace: {namespace}\n{lines}"
    )


@contextlib.asynccontextmanager
async def replicas(
    apiserver: BareApiServer, namespace: str, count: int, **times: int
) -> AsyncIterator[list[Replica]]:
    started = [Replica(settings(namespace, **times), apiserver) for _ in range(count)]
    try:
        yield started
    finally:
        for one in started:
            one.operator.stop()
        await asyncio.wait_for(asyncio.gather(*(one.task for one in started), return_exceptions=True), 30)


def job(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"definition": {"version": "0.1"}},
    }


async def test_one_of_two_replicas_works_and_the_other_takes_over(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    await installed.create(job(namespace, "before"))
    async with replicas(apiserver, namespace, 2) as both:
        await asyncio.gather(*(one.is_ready() for one in both))
        await eventually(lambda: any(one.operator.ready.is_set() for one in both))
        leader, standby = sorted(both, key=lambda one: not one.operator.ready.is_set())
        await eventually(lambda: (namespace, "before") in leader.jobs)
        await installed.create(job(namespace, "after"))
        await eventually(lambda: (namespace, "after") in leader.jobs)
        assert standby.edges is not None
        cache = standby.edges.cache
        await eventually(lambda: cache.get("NosanaJob", namespace, "after") is not None)
        assert standby.jobs == []
        assert (await leader.leads(), await standby.leads()) == (True, False)
        # A standby counts nothing, so that a sum over the replicas is right, and changes nothing.
        assert "nosana_operator_jobs{" not in (await standby.get("/metrics"))[1]
        with pytest.raises(LeadershipLost):
            await standby.edges.kube.create(job(namespace, "forbidden"))

        stopped = time.monotonic()
        leader.operator.stop()
        await asyncio.wait_for(standby.operator.ready.wait(), 10)
        assert time.monotonic() - stopped <= 3
        await leader.task
        await eventually(lambda: {"before", "after"} <= {name for _, name in standby.jobs})
        assert await standby.leads()
        assert standby.edges.leadership.check() == 2


async def test_a_leader_that_cannot_renew_ends_and_the_next_one_leads(
    kubernetes_programs: Path, tmp_path: Path
) -> None:
    times = {"leaseSeconds": 4, "renewSeconds": 2, "retrySeconds": 1}
    with BareApiServer(tmp_path / "own", kubernetes_programs) as own:
        async with load_credentials(own.kubeconfig).open_session() as session:
            client = KubeClient(session, kinds=KINDS)
            for crd in crds():
                await client.apply(crd, manager="tests")
            await wait_for_kinds(client.read_path, [KINDS["NosanaJob"]], poll_seconds=0.1)
            async with replicas(own, "default", 1, **times) as (first,):
                await asyncio.wait_for(first.operator.ready.wait(), 20)
                lost = r"'election' .* was not renewed for"
                with own.outage(), pytest.raises(BackgroundFailed, match=lost):
                    await asyncio.wait_for(asyncio.shield(first.task), 20)
                assert first.edges is not None
                with pytest.raises(LeadershipLost):
                    first.edges.leadership.check()
            async with replicas(own, "default", 1, **times) as (second,):
                await asyncio.wait_for(second.operator.ready.wait(), 20)
                assert second.edges is not None
                assert second.edges.leadership.check() == 2
