"""The process against a real API server: watching through kopf, routing to the queues, start, stop, health."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest

from nosana_operator.api import LABEL_JOB, LABEL_JOB_UID, crds
from nosana_operator.kube import (
    CORE_KINDS,
    KubeClient,
    KubeUnavailable,
    ObjectCache,
    Resource,
    load_credentials,
)
from nosana_operator.runtime.errors import BackgroundFailed, StartError, WatchEnded
from nosana_operator.runtime.operator import KINDS, Loops, Operator, OperatorContext
from nosana_operator.runtime.settings import parse_settings
from nosana_operator.runtime.watching import Change, ClusterView, Scope, wait_for_kinds
from nosana_sandbox.cluster.apiserver import BareApiServer

pytestmark = pytest.mark.contract

SETTINGS = parse_settings("metrics: {address: 127.0.0.1, port: 0}")
FROB = Resource("Frob", "example.org", "v1", "frobs")
"""A kind that nobody serves."""


async def eventually(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait until it is true; how long that may take is a bound, not a wait."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - most of what is waited for is a reply of a server
            await asyncio.sleep(0.01)


def watches(operator: Operator) -> bool:
    """Whether kopf has listed NosanaJobs (of which there has to be one)."""
    return b'watch_events_total{kind="NosanaJob",type="LISTED"}' in generate_latest(operator.metrics.registry)


def job(namespace: str, name: str = "j", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"definition": {"version": "0.1"}} | spec,
    }


def pod(namespace: str, name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "op", "image": "busybox"}]},
    }


class Recording:
    """Loops that only remember what they were called for."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str]] = []
        self.markets: list[tuple[str, str]] = []
        self.runs: list[tuple[str, str]] = []
        self.edges: OperatorContext | None = None
        self.background: Callable[[], Any] | None = None

    def build(self, edges: OperatorContext) -> Loops:
        self.edges = edges

        async def on_job(key: tuple[str, str]) -> None:
            self.jobs.append(key)

        async def on_market(key: tuple[str, str]) -> None:
            self.markets.append(key)

        async def on_run(key: tuple[str, str]) -> None:
            self.runs.append(key)

        extra = [("extra", self.background)] if self.background else []
        return Loops(on_job, on_market, on_run, background=extra)


@contextlib.asynccontextmanager
async def running(
    apiserver: BareApiServer, loops: Recording, settings: Any = SETTINGS
) -> AsyncIterator[Operator]:
    operator = Operator(settings, load_credentials(apiserver.kubeconfig), loops.build)
    task = asyncio.create_task(operator.run())
    ready = asyncio.create_task(operator.ready.wait())
    try:
        await asyncio.wait({task, ready}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert ready.done(), task
        yield operator
    finally:
        ready.cancel()
        operator.stop()
        await asyncio.wait_for(task, 20)


async def test_changes_reach_their_queues(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    await installed.create(job(namespace, "before"))
    loops = Recording()
    async with running(apiserver, loops):
        await eventually(lambda: (namespace, "before") in loops.jobs)
        await installed.create(job(namespace, "after"))
        await eventually(lambda: (namespace, "after") in loops.jobs)
        assert loops.edges is not None
        cache = loops.edges.cache
        assert cache.get("NosanaJob", namespace, "after") is not None

        loops.jobs.clear()
        await installed.create(pod(namespace, "after-0", **{LABEL_JOB: "after", LABEL_JOB_UID: "u-1"}))
        await eventually(lambda: (namespace, "after") in loops.jobs)
        assert [p["metadata"]["name"] for p in cache.by_index("Pod", LABEL_JOB_UID, "u-1")] == ["after-0"]

        loops.jobs.clear()
        await installed.delete("NosanaJob", namespace, "after")
        await eventually(lambda: (namespace, "after") in loops.jobs)
        assert cache.get("NosanaJob", namespace, "after") is None


async def test_a_reply_to_an_own_write_is_in_the_cache_at_once(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    loops = Recording()
    async with running(apiserver, loops):
        assert loops.edges is not None
        await loops.edges.kube.create(job(namespace))
        assert loops.edges.cache.get("NosanaJob", namespace, "j") is not None
        # The watch brings the same version; the job's loop has to hear of it all the same.
        await eventually(lambda: (namespace, "j") in loops.jobs)


async def test_capacity_makes_all_markets_look_once_for_a_burst(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    market = {
        "apiVersion": "nosana.io/v1alpha1",
        "kind": "NosanaMarket",
        "metadata": {"name": "m", "namespace": namespace},
        "spec": {
            "address": "market",
            "network": "localnet",
            "jobNamespace": namespace,
            "wallets": [{"secretRef": {"name": "w"}}],
        },
    }
    await installed.create(market)
    loops = Recording()
    async with running(apiserver, loops):
        await eventually(lambda: loops.markets.count((namespace, "m")) >= 1)
        loops.markets.clear()
        for number in range(3):
            await installed.create(
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"{namespace}-{number}"}}
            )
        try:
            await eventually(lambda: (namespace, "m") in loops.markets)
            assert loops.markets.count((namespace, "m")) == 1
        finally:
            for number in range(3):
                await installed.delete("Node", None, f"{namespace}-{number}")


async def test_metrics_and_health(apiserver: BareApiServer, installed: KubeClient, namespace: str) -> None:
    await installed.create(job(namespace))
    loops = Recording()
    async with running(apiserver, loops) as operator, aiohttp.ClientSession() as http:
        base = f"http://127.0.0.1:{operator.web_port}"
        await eventually(lambda: watches(operator))
        begun = b'nosana_operator_watch_age_seconds{kind="NosanaJob"}'
        await eventually(lambda: begun in generate_latest(operator.metrics.registry))
        async with http.get(f"{base}/readyz") as response:
            assert (response.status, await response.text()) == (
                200,
                "kubernetes: ok\nkinds: ok\ncaches: ok\n",
            )
        async with http.get(f"{base}/healthz") as response:
            assert response.status == 200
        async with http.get(f"{base}/metrics") as response:
            text = await response.text()
        for line in (
            'nosana_operator_reconcile_total{kind="NosanaJob",result="success"}',
            'nosana_operator_workqueue_depth{queue="jobs"}',
            'nosana_operator_kubernetes_requests_total{code="200",kind="Pod",verb="list"}',
            'nosana_operator_watch_events_total{kind="NosanaJob",type="LISTED"}',
            'nosana_operator_jobs{market="",phase="Pending"}',
            "nosana_operator_event_loop_lag_seconds_count",
            "nosana_operator_build_info{",
            "nosana_operator_run_to_pod_seconds_bucket",
        ):
            assert line in text, line
        assert "_created" not in text


async def test_only_the_namespaces_that_were_asked_for(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    other = f"{namespace}-x"
    await installed.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}}, manager="tests"
    )
    settings = parse_settings(f"metrics: {{address: 127.0.0.1, port: 0}}\nwatchNamespaces: [{namespace}]")
    loops = Recording()
    async with running(apiserver, loops, settings):
        assert loops.edges is not None
        await installed.create(job(other))
        await installed.create(pod(other, "p"))
        await installed.create(job(namespace))
        await eventually(lambda: (namespace, "j") in loops.jobs)
        # Slots are counted over the whole cluster.
        cache = loops.edges.cache
        await eventually(lambda: cache.get("Pod", other, "p") is not None)
        assert cache.get("NosanaJob", other, "j") is None


async def test_without_the_crds_it_waits_and_says_so(
    apiserver: BareApiServer, installed: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    await installed.delete("CustomResourceDefinition", None, "nosanamarkets.nosana.io")
    while b"nosanamarkets" in await installed.read_path("/apis/nosana.io/v1alpha1"):  # noqa: ASYNC110 - discovery has no watch
        await asyncio.sleep(0.05)
    operator = Operator(SETTINGS, load_credentials(apiserver.kubeconfig), Recording().build)
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(operator.run())
        await eventually(lambda: "nosanamarkets.nosana.io/v1alpha1" in caplog.text)
        url = f"http://127.0.0.1:{operator.web_port}/readyz"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            assert response.status == 503
            assert "nosanamarkets" in await response.text()
        operator.stop()
        await asyncio.wait_for(task, 10)
    assert not operator.ready.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_an_orderly_end(
    apiserver: BareApiServer, installed: KubeClient, namespace: str, number: signal.Signals
) -> None:
    await installed.create(job(namespace))
    operator = Operator(SETTINGS, load_credentials(apiserver.kubeconfig), Recording().build)
    task = asyncio.create_task(operator.run())
    await asyncio.wait_for(operator.ready.wait(), 20)
    # kopf sets handlers of its own while it starts; only after that does the test prove anything.
    await eventually(lambda: watches(operator))
    os.kill(os.getpid(), number)
    await asyncio.wait_for(task, 10)


async def test_work_at_hand_is_ended_before_the_process(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    def build(edges: OperatorContext) -> Loops:
        async def slow(key: tuple[str, str]) -> None:
            began.set()
            await asyncio.sleep(0.3)
            ended.set()

        async def none(key: tuple[str, str]) -> None:
            return

        return Loops(slow, none, none)

    await installed.create(job(namespace))
    operator = Operator(SETTINGS, load_credentials(apiserver.kubeconfig), build)
    task = asyncio.create_task(operator.run())
    await asyncio.wait_for(began.wait(), 20)
    operator.stop()
    await asyncio.wait_for(task, 20)
    assert ended.is_set()


@pytest.mark.parametrize("how", ["error", "return"])
async def test_a_part_that_ends_takes_the_process_down(
    apiserver: BareApiServer, installed: KubeClient, how: str
) -> None:
    async def part() -> None:
        if how == "error":
            raise ValueError("broken")

    loops = Recording()
    loops.background = part
    operator = Operator(SETTINGS, load_credentials(apiserver.kubeconfig), loops.build)
    with pytest.raises(BackgroundFailed, match="'extra'") as caught:
        await asyncio.wait_for(operator.run(), 20)
    assert ("broken" in str(caught.value)) == (how == "error")


async def test_an_error_while_taking_an_event_takes_the_process_down(
    apiserver: BareApiServer, installed: KubeClient, namespace: str
) -> None:
    def on_change(change: Change) -> None:
        if change.kind == "NosanaJob" and change.body["metadata"]["name"] == "poison":
            raise KeyError("surprise")

    async with load_credentials(apiserver.kubeconfig).open_session() as session:
        view = ClusterView(
            [Scope((KINDS["NosanaJob"],))],
            cache=ObjectCache(("NosanaJob",)),
            lister=KubeClient(session, kinds=KINDS),
            credentials=load_credentials(apiserver.kubeconfig),
            on_change=on_change,
        )
        await view.sync()
        task = asyncio.create_task(view.run())
        await installed.create(job(namespace, "poison"))
        with pytest.raises(KeyError, match="surprise"):
            await asyncio.wait_for(task, 20)
    await installed.delete("NosanaJob", namespace, "poison")


async def test_a_kind_that_kopf_does_not_watch_ends_the_view(
    apiserver: BareApiServer, kube: KubeClient
) -> None:
    view = ClusterView(
        [Scope((CORE_KINDS["Node"], FROB))],
        cache=ObjectCache(("Node",)),
        lister=kube,
        credentials=load_credentials(apiserver.kubeconfig),
        on_change=lambda change: None,
        begin_seconds=2,
    )
    with pytest.raises(WatchEnded, match=r"No watch was begun on /apis/example\.org/v1/frobs;"):
        await asyncio.wait_for(view.run(), 20)


async def test_a_kind_that_is_no_longer_served_ends_the_view(apiserver: BareApiServer) -> None:
    credentials = load_credentials(apiserver.kubeconfig)
    async with credentials.open_session() as session:
        view = ClusterView(
            [Scope((FROB,))],
            cache=ObjectCache(("Frob",)),
            lister=KubeClient(session, kinds={"Frob": FROB}),
            credentials=credentials,
            on_change=lambda change: None,
            sweep_seconds=0.1,
        )
        with pytest.raises(WatchEnded, match="no longer served"):
            await asyncio.wait_for(view.run(), 20)


async def test_a_sweep_finds_deletions_that_no_event_told(
    apiserver: BareApiServer, kube: KubeClient, namespace: str
) -> None:
    changes: list[Change] = []
    cache = ObjectCache(("Pod",))
    view = ClusterView(
        [Scope((CORE_KINDS["Pod"],), (namespace,))],
        cache=cache,
        lister=kube,
        credentials=load_credentials(apiserver.kubeconfig),
        on_change=changes.append,
    )
    for name in ("a", "b"):
        await kube.create(pod(namespace, name))
    await view.sync()
    await kube.delete("Pod", namespace, "a")
    changes.clear()
    assert await view.sweep() == 1
    assert [(c.body["metadata"]["name"], c.deleted) for c in changes] == [("a", True)]
    assert [p["metadata"]["name"] for p in cache.list("Pod")] == ["b"]
    assert await view.sweep() == 0


async def test_an_api_outage_ends_nothing_and_what_happened_meanwhile_is_seen(
    kubernetes_programs: Path, tmp_path: Path
) -> None:
    with BareApiServer(tmp_path / "own", kubernetes_programs) as own:
        credentials = load_credentials(own.kubeconfig)
        async with credentials.open_session() as session:
            client = KubeClient(session, kinds=KINDS)
            for crd in crds():
                await client.apply(crd, manager="tests")
            await wait_for_kinds(client.read_path, [KINDS["NosanaJob"]], poll_seconds=0.1)
            loops = Recording()
            async with running(own, loops) as operator, aiohttp.ClientSession() as http:
                await client.create(job("default", "before"))
                await eventually(lambda: ("default", "before") in loops.jobs)
                with own.outage():
                    with pytest.raises(KubeUnavailable):
                        await client.get("NosanaJob", "default", "before")
                    async with http.get(f"http://127.0.0.1:{operator.web_port}/healthz") as response:
                        assert response.status == 200
                await client.delete("NosanaJob", "default", "before")
                await client.create(job("default", "after"))
                await eventually(lambda: ("default", "after") in loops.jobs, 30)
                assert loops.edges is not None
                cache = loops.edges.cache
                await eventually(lambda: cache.get("NosanaJob", "default", "before") is None, 30)


async def test_a_restored_backup_of_etcd_ends_the_process(kubernetes_programs: Path, tmp_path: Path) -> None:
    """The next one reads everything again; this one would keep objects that do not exist any more."""
    with BareApiServer(tmp_path / "own", kubernetes_programs) as own:
        credentials = load_credentials(own.kubeconfig)
        async with credentials.open_session() as session:
            client = KubeClient(session, kinds=KINDS)
            for crd in crds():
                await client.apply(crd, manager="tests")
            await wait_for_kinds(client.read_path, [KINDS["NosanaJob"]], poll_seconds=0.1)
            await client.create(job("default", "before"))
            await asyncio.to_thread(own.back_up)
            loops = Recording()
            operator = Operator(SETTINGS, credentials, loops.build)
            task = asyncio.create_task(operator.run())
            await eventually(lambda: ("default", "before") in loops.jobs, 20)
            # Whatever the API server writes when it starts again, this object is older than it was.
            await client.patch("NosanaJob", "default", "before", {"metadata": {"labels": {"lost": "yes"}}})
            await client.create(job("default", "lost"))
            await eventually(lambda: ("default", "lost") in loops.jobs)
            await asyncio.to_thread(own.restore)
            with pytest.raises(BackgroundFailed, match="versions of NosanaJob went back"):
                await asyncio.wait_for(task, 60)


async def test_a_taken_port_is_said_with_the_remedy(apiserver: BareApiServer) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = parse_settings(f"metrics: {{address: 127.0.0.1, port: {port}}}")
        operator = Operator(settings, load_credentials(apiserver.kubeconfig), Recording().build)
        with pytest.raises(StartError, match=r"metrics\.port"):
            await operator.run()
