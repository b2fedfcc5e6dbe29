from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import Layout


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
def sandbox_cluster(short_folder: Path) -> Iterator[LocalCluster]:
    """Two nodes with two GPUs each, shared by all tests of the ring."""
    cluster = LocalCluster(short_folder / "shared", "test", 4, 2, lambda line: print(line, file=sys.stderr))
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


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
