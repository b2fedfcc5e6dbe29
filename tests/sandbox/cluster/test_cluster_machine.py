from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nosana_sandbox.cluster import LocalCluster, cgroups, machine, tunables
from nosana_sandbox.cluster.errors import ClusterError, UnsupportedMachineError
from nosana_sandbox.cluster.machine import PACKAGES, missing_packages
from nosana_sandbox.cluster.processes import Process, ProcessTable, boot_id, is_alive
from nosana_sandbox.cluster.teardown import mounts_below

HYBRID = """\
25 21 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
27 25 0:24 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
28 25 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_control_groups_of_both_versions_are_told_apart() -> None:
    hybrid, unified = cgroups.parse_hierarchies(HYBRID), cgroups.parse_hierarchies(UNIFIED)
    assert not hybrid.unified
    assert hybrid.tracking == Path("/sys/fs/cgroup/pids")
    # The hybrid's extra tree gets folders too, from runc: they have to be removed as the others.
    assert Path("/sys/fs/cgroup/unified") in hybrid.roots
    assert unified.unified
    assert unified.roots == (Path("/sys/fs/cgroup"),)
    with pytest.raises(ClusterError, match="no control groups are mounted"):
        cgroups.parse_hierarchies("1 1 0:1 / / rw - ext4 /dev/vda rw\n")


def test_a_new_version_one_group_inherits_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset.mems").write_text("0\n")
    monkeypatch.setattr(cgroups, "hierarchies", lambda: cgroups.Hierarchies((tmp_path,), unified=False))
    group = tmp_path / "ours" / "node1"
    group.mkdir(parents=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        (group.parent / name).write_text("\n")
        (group / name).write_text("\n")
    cgroups.make("ours/node1")
    assert (group / "cpuset.cpus").read_text() == "0-1\n"
    assert (group / "cpuset.mems").read_text() == "0\n"


def test_mounts_come_in_the_order_in_which_they_can_go() -> None:
    mountinfo = (
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n"
        "2 1 0:5 / /var/lib/sandbox/cluster/node1/x rw - tmpfs tmpfs rw\n"
        "3 2 0:6 / /var/lib/sandbox/cluster/node1/x/a\\040b rw - tmpfs tmpfs rw\n"
        "4 1 0:7 / /var/lib/sandbox/cluster-of-somebody-else rw - tmpfs tmpfs rw\n"
        "5 1 0:4 net:[1] /run/netns/nosana-a rw - nsfs nsfs rw\n"
    )
    assert mounts_below(mountinfo, (Path("/var/lib/sandbox/cluster"), Path("/run/netns/nosana-a"))) == [
        Path("/run/netns/nosana-a"),
        Path("/var/lib/sandbox/cluster/node1/x/a b"),
        Path("/var/lib/sandbox/cluster/node1/x"),
    ]


def test_only_what_is_missing_is_installed() -> None:
    assert missing_packages(lambda program: True, cni_found=True) == ()
    assert missing_packages(lambda program: program not in ("ctr", "containerd", "nft"), cni_found=False) == (
        "containerd",
        "nftables",
        "containernetworking-plugins",
    )
    assert set(missing_packages(lambda program: False, cni_found=True)) == set(PACKAGES.values())


def test_busybox_with_a_loader_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, head in (("dynamic", b"\x7fELF..../lib64/ld-linux-x86-64.so.2"), ("static", b"\x7fELF....")):
        (tmp_path / name).mkdir()
        busybox = tmp_path / name / "busybox"
        busybox.write_bytes(head)
        busybox.chmod(0o755)
    monkeypatch.setattr(machine, "SEARCH_PATH", str(tmp_path / "dynamic"))
    assert not machine._on_path("busybox")
    monkeypatch.setattr(machine, "SEARCH_PATH", str(tmp_path / "static"))
    assert machine._on_path("busybox")


@pytest.mark.parametrize(
    ("platform", "user", "says"),
    [
        ("darwin", 0, "needs Linux .* and this is darwin; .*--cluster current"),
        ("linux", 1000, "needs root .*with sudo, or use --cluster current"),
    ],
)
def test_a_machine_that_cannot_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, user: int, says: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    cluster = LocalCluster(Path("/nonexistent/x"), "demo", 1, 1, lambda line: None)
    for action in (cluster.up, cluster.down):
        with pytest.raises(UnsupportedMachineError, match=says):
            action()
    assert cluster.status().state == "absent"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[ProcessTable]:
    membership = tmp_path / "cgroup.procs"
    membership.touch()
    made = ProcessTable(tmp_path / "processes.json", tmp_path / "logs", membership)
    yield made
    made.kill_all()


def test_a_program_is_recorded_and_ended(table: ProcessTable, tmp_path: Path) -> None:
    process = table.spawn(
        "talker", ["sh", "-c", "echo $WORD; exec sleep 1000"], environment={"WORD": "hello"}
    )
    assert table.known() == {"talker": True}
    assert table.pid("talker") == process.pid
    # It leads a session of its own: Ctrl-C at the command that started it is not for it.
    assert os.getsid(process.pid) == process.pid
    with pytest.raises(ClusterError, match="talker is running already"):
        table.spawn("talker", ["true"])
    # Another process of the sandbox reads the same record.
    assert ProcessTable(tmp_path / "processes.json", tmp_path, tmp_path).alive("talker")
    while not table.tail("talker"):
        assert table.alive("talker")
    assert table.tail("talker") == "hello"
    table.stop("talker")
    assert table.known() == {}
    assert not is_alive(process)


def test_a_program_gets_nothing_of_the_callers_environment(
    table: ProcessTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid")
    table.spawn("env", ["env"])
    while table.alive("env"):
        pass
    assert "proxy" not in table.tail("env").lower()


def test_a_number_that_is_somebody_elses_by_now_is_left_alone(table: ProcessTable) -> None:
    process = table.spawn("sleeper", ["sleep", "1000"])
    assert is_alive(process)
    assert not is_alive(Process(process.pid, process.started + 1, process.boot))
    assert not is_alive(Process(process.pid, process.started, "another boot"))
    assert not is_alive(Process(2**22 + 1, process.started, boot_id()))


def test_settings_of_the_kernel_come_back_with_the_last_cluster(tmp_path: Path) -> None:
    setting, record = tmp_path / "overcommit", tmp_path / "record"
    absent = tmp_path / "not-in-this-kernel"
    setting.write_text("0\n")
    tunables.remember("one", record, (setting, absent))
    setting.write_text("1\n")
    tunables.remember("two", record, (setting, absent))
    tunables.restore("one", record)
    assert setting.read_text() == "1\n", "the other cluster still runs"
    tunables.restore("one", record)
    tunables.restore("two", record)
    assert setting.read_text() == "0\n"
    assert not absent.exists()
    setting.write_text("2\n")
    tunables.restore("two", record)
    assert setting.read_text() == "2\n", "what somebody set since is not touched"
