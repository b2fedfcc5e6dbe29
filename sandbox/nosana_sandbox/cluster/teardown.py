"""Removes a cluster from the machine, whatever state it is in.

Works from the layout alone: after a crash, a `kill -9` or a half-finished start nothing else can be trusted.
Each step does what it can and leaves what is not there; the order is from what makes to what was made.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster import cgroups, tunables
from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.cluster.processes import ProcessTable

DETACH: Final = 2
"""`umount2(2)`'s MNT_DETACH: removed from the tree at once, unmounted after its last user."""

CNI_RESULTS: Final = Path("/var/lib/cni/results")
"""libcni's records of each pod; the path cannot be configured."""

CONTAINER_LINKS: Final = Path("/var/log/containers")
"""Every kubelet's links to its pods' logs; the path cannot be configured."""

_libc = ctypes.CDLL(None, use_errno=True)


def take_down(layout: Layout, processes: ProcessTable, *, keep_logs: bool = False) -> None:
    """Remove processes, mounts, namespaces, control groups and files of the cluster.

    Raises `ClusterError` when the kernel does not let go of something.
    """
    # Programs that start others come first: a living kubelet would start its pods again.
    cgroups.kill(layout.system_cgroup)
    processes.kill_all()
    cgroups.kill(layout.slug)
    sockets = _shim_sockets(layout)
    _unmount(mounts_below(Path("/proc/self/mountinfo").read_text(), (layout.folder, layout.namespace)))
    layout.namespace.unlink(missing_ok=True)
    cgroups.remove(layout.slug)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    tunables.restore(layout.slug)
    _remove_shared_records(layout)
    _remove_files(layout, keep_logs)


def mounts_below(mountinfo: str, folders: Iterable[Path]) -> list[Path]:
    """Return the mount points at or below the folders, in the order in which they can be unmounted."""
    tops = [str(folder) for folder in folders]
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines()]
    ours = [p for p in points if any(p == top or p.startswith(top + "/") for top in tops)]
    return [Path(point) for point in reversed(ours)]


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _unmount(points: Iterable[Path]) -> None:
    for point in points:
        # EINVAL: went away together with what it was mounted on.
        if _libc.umount2(os.fsencode(point), DETACH) != 0 and (code := ctypes.get_errno()) not in (22, 2):
            raise ClusterError(f"{point} cannot be unmounted: {os.strerror(code)}; run `umount -l` on it")


def _shim_sockets(layout: Layout) -> list[Path]:
    """Return the sockets of containerd's shims; they are in a folder that all containerds of the machine share."""
    bundles = layout.folder.glob("node*/containerd/run/io.containerd.runtime.v2.task/*/*/address")
    return [Path(bundle.read_text().strip().removeprefix("unix://")) for bundle in bundles]


def _remove_shared_records(layout: Layout) -> None:
    mark = str(layout.folder).encode()
    with contextlib.suppress(FileNotFoundError):
        for record in CNI_RESULTS.iterdir():
            with contextlib.suppress(OSError):
                if mark in record.read_bytes() or layout.slug in record.name:
                    record.unlink()
    with contextlib.suppress(FileNotFoundError):
        for link in CONTAINER_LINKS.iterdir():
            if link.is_symlink() and os.readlink(link).startswith(str(layout.folder)):
                link.unlink()


def _remove_files(layout: Layout, keep_logs: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        for entry in layout.folder.iterdir():
            if keep_logs and entry == layout.logs:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not keep_logs:
            layout.folder.rmdir()
            with contextlib.suppress(OSError):
                layout.state.rmdir()
