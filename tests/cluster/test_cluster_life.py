"""Up, crash and down, judged by what is on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nosana_sandbox.cluster import ClusterError, LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import Layout

pytestmark = pytest.mark.cluster

SLEEPER = """
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec:
  containers:
  - {name: main, image: "sandbox.invalid/sleeper:1", imagePullPolicy: IfNotPresent}
"""


@pytest.fixture
def second(short_folder: Path) -> Iterator[LocalCluster]:
    cluster = LocalCluster(short_folder / "second", "second", 1, 1, lambda line: None)
    yield cluster
    cluster.down()


def test_up_again_changes_nothing(sandbox_cluster: LocalCluster) -> None:
    before = sandbox_cluster.pid("kube-apiserver")
    status = sandbox_cluster.up()
    assert (status.state, status.gpus, status.nodes, status.missing) == ("running", 4, 2, ())
    assert sandbox_cluster.pid("kube-apiserver") == before is not None


def test_another_shape_of_a_running_cluster_is_refused(sandbox_cluster: LocalCluster) -> None:
    layout = sandbox_cluster.layout
    other = LocalCluster(layout.state, layout.name, 8, 3, lambda line: None)
    with pytest.raises(
        ClusterError, match="runs with 4 GPUs on 2 nodes, not with 8 on 3; take it down first"
    ):
        other.up()


def test_two_clusters_side_by_side_and_a_crash_of_one(
    sandbox_cluster: LocalCluster, second: LocalCluster, leftovers: Callable[[Layout], list[str]]
) -> None:
    assert second.status().state == "absent"
    second.up()
    kubectl = Kubectl(find_kubectl(), second.kubeconfig)
    kubectl.run("apply", "-f", "-", stdin=SLEEPER)
    kubectl.run("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s")
    assert [node["metadata"]["name"] for node in kubectl.get("nodes")["items"]] == ["node-1"]

    for program in ("kubelet-1", "containerd-1"):
        pid = second.pid(program)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        _until(lambda program=program: second.pid(program) is None)  # type: ignore[misc]
    status = second.status()
    assert (status.state, set(status.missing)) == ("broken", {"kubelet-1", "containerd-1"})

    # The pod's processes have lost everybody who knew of them.
    assert any("sleep" in line for line in leftovers(second.layout))
    second.down()
    assert leftovers(second.layout) == []
    assert second.status().state == "absent"
    assert sandbox_cluster.status().state == "running"


def command_up(layout: Layout) -> subprocess.Popen[str]:
    arguments = ["--name", layout.name, "--state", str(layout.state), "--gpus", "1", "--nodes", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "nosana_sandbox.cluster", "up", *arguments],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill_start_at(cluster: LocalCluster, program: str) -> None:
    """Start the cluster by its command and kill that as soon as `program` runs."""
    with command_up(cluster.layout) as start:
        _until(lambda: cluster.pid(program) is not None)
        os.killpg(start.pid, signal.SIGKILL)
    assert cluster.status().state == "broken"
    assert cluster.pid(program) is not None, "the programs outlive the command that started them"


@pytest.mark.parametrize("program", ["containerd-1", "kube-apiserver", "kubelet-1"])
def test_a_start_that_was_killed_is_cleared_away(
    second: LocalCluster, leftovers: Callable[[Layout], list[str]], program: str
) -> None:
    kill_start_at(second, program)
    second.down()
    assert leftovers(second.layout) == []


def test_a_crashed_cluster_comes_up_anew_also_when_two_ask_for_it(second: LocalCluster) -> None:
    kill_start_at(second, "etcd")
    with command_up(second.layout) as one, command_up(second.layout) as other:
        said = [one.communicate()[1], other.communicate()[1]]
        assert (one.returncode, other.returncode) == (0, 0), said
    # One of them did it, the other waited and found it done.
    assert sum("clearing away" in text for text in said) == 1
    assert sum("Kubernetes is ready" in text for text in said) == 1
    assert second.status().state == "running"


def test_down_of_nothing_is_fine(second: LocalCluster, leftovers: Callable[[Layout], list[str]]) -> None:
    second.down()
    second.down()
    assert leftovers(second.layout) == []


def test_a_program_that_cannot_start_ends_the_start_with_its_last_words(
    second: LocalCluster, leftovers: Callable[[Layout], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_sandbox.cluster.config.etcd", lambda layout: ["--data-dir=/dev/null/x"])
    with pytest.raises(
        ClusterError, match=r"(?s)the API server did not become ready.*etcd ended.*not a directory"
    ):
        second.up()
    # The logs stay for the person who has to find out.
    assert (second.layout.logs / "etcd.log").exists()
    assert all(str(second.layout.folder) == line for line in leftovers(second.layout))
    assert second.status().state == "absent"


def _until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
