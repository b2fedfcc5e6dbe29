from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest

from nosana_sandbox.cluster import ClusterError, LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.helm import ChartHost
from nosana_sandbox.host import SandboxHost
from nosana_sandbox.world.sandbox import NAMESPACES, Sandbox, Shape
from support.scene import Scene, scene_of


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make rights` gives it."""
    parser.addoption(
        "--update-recorded", action="store_true", help="write tests/data/rights again: read the difference"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the ring where it cannot run, but never silently on the machine that decides."""
    able = sys.platform == "linux" and os.geteuid() == 0
    if able or os.environ.get("CI") == "true":
        return
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.skip(reason="the cluster ring needs Linux and root"))


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder for state: pytest's own are too long for the Unix sockets below."""
    folder = Path(tempfile.mkdtemp(prefix="nst-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sandbox(short_folder: Path) -> Iterator[Sandbox]:
    """Two nodes with two GPUs each, chain, IPFS and gateway: one for all tests of the ring."""
    name = f"test-{os.getpid()}"
    whole = Sandbox(name, lambda line: print(line, file=sys.stderr), short_folder / "shared")
    shape = Shape(name)
    try:
        whole.up(shape)
        yield whole
    finally:
        whole.down()
    assert find_leftovers(Layout(whole.state, name, shape.gpus, shape.nodes)) == []
    assert not whole.state.exists()


@pytest.fixture(scope="session")
def sandbox_cluster(sandbox: Sandbox) -> LocalCluster:
    """The Kubernetes cluster of `sandbox`."""
    return sandbox.local_cluster()


@pytest.fixture(scope="session")
def spare_cluster(short_folder: Path) -> Iterator[LocalCluster]:
    """One node with two GPUs, for tests that change or end a whole cluster. Its logs know their streams."""
    cluster = LocalCluster(
        short_folder / "spare",
        "spare",
        2,
        1,
        lambda line: print(line, file=sys.stderr),
        feature_gates=["PodLogsQuerySplitStreams"],
    )
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def installed_host(sandbox: Sandbox) -> SandboxHost:
    """CRDs, the host's key and the operator's settings in the shared sandbox.

    It keeps to the market's namespaces: other tests have operators of their own in others.
    """
    host = SandboxHost(sandbox, sandbox.status())
    host.install(watchNamespaces=[NAMESPACES["system"], NAMESPACES["jobs"]])
    return host


@pytest.fixture
def host(installed_host: SandboxHost) -> SandboxHost:
    """The operator, running, with the sandbox's market offered two of the four GPUs.

    A test may kill it or change the market: the next one gets both as they have to be.
    """
    if installed_host.pid() is None:
        installed_host.start()
    installed_host.kubectl.apply([installed_host.market(slots=2, paused=False, onBadDefinition="Finish")])
    return installed_host


@pytest.fixture
async def scene(sandbox: Sandbox, host: SandboxHost) -> AsyncIterator[Scene]:
    """Everything a test does with the running sandbox; what it makes is gone after it."""
    async with scene_of(sandbox.status(), host) as ready:
        yield ready


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what the operator said and what there is in the cluster."""
    report = yield
    for fixture in getattr(item, "funcargs", {}).values() if report.failed else ():
        if isinstance(fixture, SandboxHost):
            report.sections.append(("operator's log", last_lines(fixture.log)))
            report.sections.append(("objects", objects(fixture.kubectl)))
        elif isinstance(fixture, ChartHost):
            report.sections.append(("operator's log", fixture.last_words(60)))
            report.sections.append(("objects", objects(fixture.kubectl)))
    return report


def last_lines(log: Path, count: int = 60) -> str:
    """The end of a log."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError as error:
        return str(error)


def objects(kubectl: Kubectl) -> str:
    """What there is, for somebody who has to find out why a test failed."""
    told = []
    for arguments in (("nm,nj,pods,services,ingresses", "-A", "-o", "wide"), ("nm", "-A", "-o", "yaml")):
        try:
            told.append(kubectl.run("get", *arguments))
        except ClusterError as error:
            told.append(str(error))
    return "\n".join(told)


@pytest.fixture(scope="session")
def kubectl(sandbox_cluster: LocalCluster) -> Kubectl:
    return Kubectl(find_kubectl(), sandbox_cluster.kubeconfig)


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Layout], list[str]]:
    """What of a cluster is still on the machine, by looking at the machine and not at any record."""
    return find_leftovers


def find_leftovers(layout: Layout) -> list[str]:
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if _names(line, layout)]
    found += [str(group) for group in Path("/sys/fs/cgroup").rglob(f"{layout.slug}*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (process / "cgroup").read_text()
        except OSError:
            continue
        # Without a command line it is a zombie: over, and waiting for its parent to notice.
        if command and (_names(command, layout) or layout.slug in groups):
            found.append(f"process {process.name}: {command}")
    for folder in ("/run/netns", "/var/lib/cni/results"):
        found += [str(entry) for entry in Path(folder).glob(f"*{layout.slug}*")]
    links = Path("/var/log/containers").glob("*.log")
    found += [str(link) for link in links if _names(os.readlink(link), layout)]
    if layout.folder.exists():
        found.append(str(layout.folder))
    return found


def _names(text: str, layout: Layout) -> bool:
    return str(layout.folder) in text or layout.slug in text
