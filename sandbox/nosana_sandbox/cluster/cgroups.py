"""The cluster's own branch of the machine's control groups.

Every process of the cluster is a member from its first instruction on, so reading the branch finds all of
them, whoever started them and whatever was recorded. Both worlds are handled: version 2, and version 1 with
its one tree per controller (also with the hybrid's extra tree).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nosana_sandbox.cluster.errors import ClusterError


@dataclass(frozen=True)
class Hierarchies:
    """Where this machine mounts its control groups; `unified` is true for version 2 alone."""

    roots: tuple[Path, ...]
    unified: bool

    @property
    def tracking(self) -> Path:
        """The tree in which membership of the cluster's own programs is kept."""
        return next((root for root in self.roots if root.name == "pids"), self.roots[0])


def parse_hierarchies(mountinfo: str) -> Hierarchies:
    """Read the control group mounts from the text of `/proc/self/mountinfo`."""
    one: list[Path] = []
    two: list[Path] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split(" ", 1)[0]
        if kind == "cgroup":
            one.append(Path(before.split()[4]))
        elif kind == "cgroup2":
            two.append(Path(before.split()[4]))
    if not one and not two:
        raise ClusterError("no control groups are mounted on this machine; mount cgroup2 on /sys/fs/cgroup")
    # Two mounts of one controller (cpu,cpuacct and its links) are one tree; the path decides.
    return Hierarchies(tuple(dict.fromkeys(one + two)), unified=not one)


def hierarchies() -> Hierarchies:
    """Return the control group mounts of this machine."""
    return parse_hierarchies(Path("/proc/self/mountinfo").read_text())


def make(group: str) -> None:
    """Create the group (a path below the root) and its parents in every tree, where missing."""
    found = hierarchies()
    for root in found.roots:
        at = root
        for part in Path(group).parts:
            if found.unified:
                _delegate(at)
            at = at / part
            at.mkdir(exist_ok=True)
            _inherit_cpuset(at)


def membership(group: str) -> Path:
    """Return the file to which a process writes `0` to join the group."""
    return hierarchies().tracking / group / "cgroup.procs"


def members(group: str) -> set[int]:
    """Return the processes in the group and below, over all trees."""
    found: set[int] = set()
    for folder in _branches(group):
        with contextlib.suppress(OSError):
            found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
    # A process of another PID namespace shows as 0.
    return found - {0}


def kill(group: str, timeout: float = 20.0) -> None:
    """Kill every process in the group and below, and return when they are gone. Raises `ClusterError`."""
    deadline = time.monotonic() + timeout
    while left := members(group):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{len(left)} processes of the group {group} do not end although killed, the first is "
                f"{min(left)}; they wait for the kernel: try again, or restart the machine"
            )
        time.sleep(0.02)


def remove(group: str, timeout: float = 10.0) -> None:
    """Remove the group and all below from every tree; it must hold no process. Raises `ClusterError`."""
    deadline = time.monotonic() + timeout
    while True:
        for folder in _branches(group):
            with contextlib.suppress(OSError):
                folder.rmdir()
        left = list(_branches(group))
        if not left:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"the control group {left[0]} cannot be removed; see its cgroup.procs")
        # The kernel releases a group shortly after its last process.
        time.sleep(0.02)


def _branches(group: str) -> Iterator[Path]:
    """Yield the group's folders in every tree, children before parents."""
    for root in hierarchies().roots:
        for folder, _, _ in os.walk(root / group, topdown=False):
            yield Path(folder)


def _delegate(folder: Path) -> None:
    """Version 2: let children use the controllers that the folder has."""
    for controller in (folder / "cgroup.controllers").read_text().split():
        # A controller that cannot be delegated (rdma on some machines) is not needed.
        with contextlib.suppress(OSError):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(folder: Path) -> None:
    """Version 1: a new cpuset has no CPU and no memory node, and nothing can be put into it until it has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file, above = folder / name, folder.parent / name
        if file.exists() and above.exists() and not file.read_text().strip():
            file.write_text(above.read_text())
