"""The operator in the cluster, installed by its chart: as an admin installs, upgrades, loses and removes it.

One cluster of its own, whose release the tests take through its life in the order in which they stand here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api import (
    ANNOTATION_LEAVE_UNTIL,
    MARKET_KIND,
    JobCondition,
    MarketCondition,
    run_job_name,
)
from nosana_sandbox.cluster.audit import Asked, audited
from nosana_sandbox.helm import RELEASE, ChartHost
from nosana_sandbox.host import job_object
from nosana_sandbox.world.poster import Posted
from nosana_sandbox.world.sandbox import Running, Sandbox, Shape
from support.scene import (
    JOBS,
    SYSTEM,
    Scene,
    assert_paid_once,
    condition,
    definition,
    eventually,
    holds,
    logs_of,
    op,
    phase,
    says,
    scene_of,
    sleeps,
)

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "rights" / "asked.json"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{RELEASE}"
TAKEOVER_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Installed:
    """A sandbox whose operator is a release of the chart."""

    sandbox: Sandbox
    running: Running
    host: ChartHost

    def lease(self) -> Mapping[str, Any]:
        body: dict[str, Any] = self.host.kubectl.get("lease", RELEASE, "-n", SYSTEM)
        return body["spec"]

    def pods(self) -> list[dict[str, Any]]:
        found = self.host.kubectl.get(
            "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--field-selector=status.phase=Running"
        )  # fmt: skip
        return [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]


@pytest.fixture(scope="module")
def installed(short_folder: Path) -> Iterator[Installed]:
    def report(line: str) -> None:
        print(line, file=sys.stderr)

    name = f"installed-{os.getpid()}"
    sandbox = Sandbox(name, report, short_folder / "installed")
    try:
        running = sandbox.up(Shape(name, gpus=2, nodes=1))
        host = ChartHost(sandbox, running, report)
        host.bring_up()
        host.offer()
        yield Installed(sandbox, running, host)
    finally:
        sandbox.down()


@pytest.fixture
def chart(installed: Installed) -> ChartHost:
    """So that a failure is told with the operator's last words."""
    return installed.host


@pytest.fixture
async def scene(installed: Installed, chart: ChartHost) -> AsyncIterator[Scene]:
    async with scene_of(installed.running, chart) as ready:  # type: ignore[arg-type]
        yield ready


def assert_untouched(pods: Mapping[str, Mapping[str, Any]], uids: set[str]) -> None:
    """These pods and no others, none of them restarted."""
    assert set(pods) == uids
    for pod in pods.values():
        assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0]


async def on_run(scene: Scene, posted: Posted) -> list[str]:
    """What was done on chain with a job's run, failed transactions included."""
    assert posted.run is not None
    entries = await scene.poster.call("getSignaturesForAddress", posted.run, {"commitment": "confirmed"})
    assert [entry["signature"] for entry in entries if entry["err"] is not None] == []
    return [name for each in await scene.instructions(posted.run) for name in each]


async def started_pods(scene: Scene, posted: Posted) -> set[str]:
    """The pods of a posted job that runs, by uid."""
    return set(scene.pods_ever(await scene.running_job(posted)))


async def paid(scene: Scene, posted: Posted, pods: set[str]) -> None:
    """The job is settled, once, by the pods that it had."""
    body = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), body, scene.running.world.host.address)
    assert await on_run(scene, posted) == ["List", "Finish"]
    assert_untouched(scene.pods_ever(body), pods)


SERVE = "mkdir -p /tmp/w; echo hello > /tmp/w/x; exec httpd -f -p 8080 -h /tmp/w"
DATA = [{"name": "data", "dest": "/data"}]
LOGIN = {"docker": {"username": "me", "password": "open sesame"}}
PRIVATE: dict[str, dict[str, Any]] = {
    "hello": says("hello"),
    "shares": definition(
        {"type": "container/create-volume", "id": "make", "args": {"name": "data"}},
        op("write", "echo 42 > /data/x", volumes=DATA),
    ),
    "finds": definition(
        op("web", SERVE, group="g", aliases="Web") | {"execution": {"group": "g", "depends_on": ["ask"], "stop_if_dependent_stops": True}},
        op("ask", "for i in $(seq 60); do wget -q -O - http://web:8080/x && exit 0; sleep 0.5; done; exit 7", group="g"),
    ),
    "logs-in": definition(op("mine", "echo in", image="ghcr.io/me/installed:1", authentication=LOGIN)),
    # More than one Secret holds.
    "talks": definition(op("talk", "base64 /dev/urandom | head -c 2500000")),
}  # fmt: skip


async def test_private_jobs_and_a_paid_one(installed: Installed, scene: Scene) -> None:
    """Every kind of child that a job may have is made, and goes, with the rights that the chart gives."""
    await scene.idle()
    installed.sandbox.ensure_images(list(PRIVATE.values()))
    posted = await scene.post(says("paid, in the cluster"))
    for name, what in PRIVATE.items():
        await scene.private(name, what)
    await scene.private("serves", definition(op("web", SERVE, expose=8080)), timeout=3)
    await scene.private("lost", sleeps(600))
    await scene.private("stopped", sleeps(600))
    await scene.make(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mapped", "namespace": JOBS},
         "data": {"definition.json": json.dumps(says("mapped"))}}
    )  # fmt: skip
    await scene.private("mapped", definitionFrom={"configMap": {"name": "mapped"}})

    lost = await scene.named("lost", lambda body: phase(body) == "Running", "runs")
    (pod,) = scene.pods_ever(lost).values()
    gone = pod["metadata"]["name"]
    # As after a node that never came back.
    await asyncio.to_thread(
        installed.host.kubectl.run, "patch", "pod", gone, "-n", JOBS, "--type=merge",
        "--patch", json.dumps({"metadata": {"finalizers": None}}),
    )  # fmt: skip
    await asyncio.to_thread(
        installed.host.kubectl.run, "delete", "pod", gone, "-n", JOBS, "--grace-period=0", "--force"
    )
    await scene.named("stopped", lambda body: phase(body) == "Running", "runs")
    await scene.kube.delete("NosanaJob", JOBS, "stopped")

    for name in [*PRIVATE, "serves", "mapped"]:
        body = await scene.over(name)
        assert phase(body) == "Completed", (name, body["status"])
    assert phase(await scene.over("lost")) == "Failed", "nobody knows what became of it"
    settled = await scene.settled(posted)
    assert_paid_once(await scene.poster.job(posted.job), settled, scene.running.world.host.address)
    assert logs_of(await scene.result(posted), "say") == ["paid, in the cluster"]
    await scene.gone("NosanaJob", JOBS, "stopped")


async def test_nobody_else_makes_pods_or_runs_in_the_job_namespace(
    installed: Installed, scene: Scene
) -> None:
    with pytest.raises(Exception, match="only the operator makes pods"):
        await scene.kube.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine", "namespace": JOBS},
             "spec": {"containers": [{"name": "a", "image": "ubuntu"}]}}
        )  # fmt: skip
    address = scene.running.world.host.address
    run = {"market": address, "job": address, "run": address, "node": address, "project": address, "payer": address,
           "price": 1, "network": "localnet", "marketRef": {"namespace": SYSTEM, "name": "sandbox"}}  # fmt: skip
    with pytest.raises(Exception, match=r"only the operator sets spec\.run|spec\.run"):
        await scene.kube.create(job_object("forged", says("pay me"), run=run))


async def test_what_has_a_runs_name_gives_way_to_the_runs_job(installed: Installed, scene: Scene) -> None:
    """The operator is away when a run comes, and somebody takes the name of its NosanaJob meanwhile."""
    await scene.idle()
    kubectl = installed.host.kubectl
    scale = ("scale", "deployment", RELEASE, "-n", SYSTEM)
    await asyncio.to_thread(kubectl.run, *scale, "--replicas=0")
    await eventually(lambda: none_left(installed), "no pod of the operator is left")
    posted = await scene.post(says("mine after all"))
    assert posted.run is not None
    name = run_job_name(posted.run)
    await scene.private(name, says("forged"), suspend=True)
    await asyncio.to_thread(kubectl.run, *scale, "--replicas=1")
    await scene.settled(posted)
    assert logs_of(await scene.result(posted), "say") == ["mine after all"]


async def none_left(installed: Installed) -> bool:
    return not await asyncio.to_thread(installed.pods)


async def test_an_upgrade_touches_no_job(installed: Installed, scene: Scene) -> None:
    await scene.idle()
    posted = await scene.post(sleeps(12, "upgraded"))
    await scene.private("beside", sleeps(12))
    pods = await started_pods(scene, posted)
    beside = await scene.named("beside", lambda body: phase(body) == "Running", "runs")
    private = set(scene.pods_ever(beside))
    before = {pod["metadata"]["uid"] for pod in installed.pods()}

    # Other settings, rights in two namespaces only from here on, and a second replica: every pod of the
    # operator is another one after it.
    settings = {**installed.host.values()["settings"], "clusterName": "renamed"}
    changed: dict[str, Any] = {"settings": settings, "watchNamespaces": [SYSTEM, JOBS], "replicas": 2}
    await asyncio.to_thread(installed.host.offer, **changed)
    after = {pod["metadata"]["uid"] for pod in installed.pods()}
    assert len(after) == 2
    assert not after & before

    await paid(scene, posted, pods)
    body = await scene.over("beside")
    assert phase(body) == "Completed"
    assert_untouched(scene.pods_ever(body), private)


async def test_one_of_two_leads_again_when_the_leader_is_killed(installed: Installed, scene: Scene) -> None:
    await scene.idle()
    posted = await scene.post(sleeps(4, "killed"))
    pods = await started_pods(scene, posted)
    before = installed.lease()
    leader = before["holderIdentity"]
    (pod,) = [pod for pod in installed.pods() if leader.startswith(pod["metadata"]["name"])]
    killed = time.monotonic()
    for pid in processes_of(pod["metadata"]["uid"]):
        os.kill(pid, signal.SIGKILL)

    async def led_anew() -> bool:
        # The kubelet starts the killed one again, under its old name; whoever leads, leads in a new epoch.
        lease = await asyncio.to_thread(installed.lease)
        return bool(lease["holderIdentity"]) and lease["leaseTransitions"] > before["leaseTransitions"]

    await eventually(led_anew, "one of the replicas leads again")
    took = time.monotonic() - killed
    print(f"led again {took:.1f} s after the kill", file=sys.stderr)
    assert took <= TAKEOVER_SECONDS
    await paid(scene, posted, pods)


def processes_of(pod: str) -> list[int]:
    """The operator's processes in a pod, by its uid."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = pod in (process / "cgroup").read_text()
            if mine and b"nosana_operator" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    assert found, f"no process of pod {pod}"
    return found


async def test_uninstalling_leaves_the_queue_and_a_new_install_goes_on(
    installed: Installed, scene: Scene
) -> None:
    await scene.idle()
    posted = await scene.post(sleeps(25, "uninstalled"))
    pods = await started_pods(scene, posted)
    await asyncio.to_thread(installed.host.helm.uninstall, RELEASE)

    done = [name for each in await scene.instructions(scene.running.world.host.address) for name in each]
    assert done[-1] == "Stop", "it left the queue before it went"
    market = await scene.market()
    assert market["status"]["slots"]["standing"] == 0
    assert condition(market, MarketCondition.READY)[1] == "Leaving"
    assert installed.pods() == []
    kept = await asyncio.to_thread(installed.host.kubectl.get, "crds")
    assert {crd["metadata"]["name"] for crd in kept["items"]} >= {
        "nosanajobs.nosana.io", "nosanamarkets.nosana.io"
    }  # fmt: skip
    body = scene.job_of(posted)
    assert body is not None
    assert not holds(body, JobCondition.SETTLED)
    assert_untouched(scene.pods_ever(body), pods)

    await asyncio.to_thread(installed.host.bring_up)
    await asyncio.to_thread(installed.host.offer)
    await paid(scene, posted, pods)
    # And by the word of the admin it stands again at once.
    await scene.kube.patch(
        MARKET_KIND, SYSTEM, "sandbox", {"metadata": {"annotations": {ANNOTATION_LEAVE_UNTIL: None}}}
    )
    await scene.idle()


async def test_each_sample_is_applied_and_taken(installed: Installed, scene: Scene) -> None:
    samples = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
    assert samples
    kubectl = installed.host.kubectl
    for sample in samples:
        await asyncio.to_thread(kubectl.run, "apply", "--server-side", "-n", SYSTEM if "market" in sample.name else JOBS, "-f", str(sample))  # fmt: skip
    for name in ("sample", "sample-from-configmap"):
        assert phase(await scene.over(name)) == "Completed"

    async def looked_at() -> bool:
        body = await scene.kube.get(MARKET_KIND, SYSTEM, "sample")
        return condition(body, MarketCondition.READY)[0] == "False"

    await eventually(looked_at, "the sample market says what it lacks")
    for sample in samples:
        await asyncio.to_thread(kubectl.run, "delete", "-n", SYSTEM if "market" in sample.name else JOBS, "-f", str(sample))  # fmt: skip


async def test_the_rest_of_the_plain_manifests_is_taken(installed: Installed) -> None:
    """What `kubectl apply --server-side -f manifests/operator.yaml` would do, without doing it."""
    await asyncio.to_thread(
        installed.host.kubectl.run, "apply", "--server-side", "--dry-run=server", "--force-conflicts",
        "-f", str(ROOT / "manifests" / "operator.yaml"),
    )  # fmt: skip


def test_helms_own_test_passes(installed: Installed) -> None:
    installed.host.helm.run("test", RELEASE, "--timeout", "60s")


def test_it_asked_for_nothing_that_it_was_not_given(
    installed: Installed, request: pytest.FixtureRequest
) -> None:
    """And nothing that is not on record: tests/repository/test_rights.py holds the rules against that."""
    log = installed.sandbox.local_cluster().layout.audit_log
    found = audited(log, ACCOUNT)
    if request.config.getoption("--update-recorded", default=False):
        RECORDED.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(dataclasses.asdict(one)) for one in sorted(found.asked))
        RECORDED.write_text(f"[\n{lines}\n]\n")
    # Helm takes the roles away before the pods have ended: the last one cannot give its Lease back, nor look at it.
    assert {(one.resource, one.verb) for one in found.refused} <= {("leases", "patch"), ("leases", "get")}
    known = {Asked(**one) for one in json.loads(RECORDED.read_text())}
    assert sorted(set(found.asked) - known) == [], "record them: make rights"
