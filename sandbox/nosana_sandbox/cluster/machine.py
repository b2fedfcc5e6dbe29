"""The requirements of a local cluster on this machine; installs missing packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster.errors import UnsupportedMachineError
from nosana_sandbox.cluster.processes import SEARCH_PATH

CNI_FOLDERS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))

PACKAGES: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "busybox": "busybox-static",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "docker-registry": "docker-registry",
    "mmdebstrap": "mmdebstrap",
}
"""Which Debian package has which program."""

CNI_PACKAGE: Final = "containernetworking-plugins"

SERVICES: Final = ("containerd", "docker-registry")
"""Packages that start a service, which must not run: the cluster runs its own."""


@dataclass(frozen=True)
class Machine:
    """The facts about this machine that the cluster depends on."""

    cni: Path
    busybox: Path
    bridge_filter: bool
    """Bridged packets pass the packet filter too (module br_netfilter)."""


def refuse_unless_capable() -> None:
    """Raise `UnsupportedMachineError` unless this is Linux and we are root."""
    if sys.platform != "linux":
        raise UnsupportedMachineError(
            f"a local cluster needs Linux (namespaces, control groups) and this is {sys.platform}; run it "
            "in a Linux machine, or use --cluster current with a cluster that you have"
        )
    if os.geteuid() != 0:
        raise UnsupportedMachineError(
            "a local cluster needs root (it makes network namespaces, mounts and control groups); run it "
            "again with sudo, or use --cluster current with a cluster that you have"
        )


def prepare(report: Report) -> Machine:
    """Install missing packages; returns the machine's facts. Raises `UnsupportedMachineError`."""
    refuse_unless_capable()
    if lacking := missing_packages(_on_path, _cni_folder() is not None):
        _install(lacking, report)
        if still := missing_packages(_on_path, _cni_folder() is not None):
            raise UnsupportedMachineError(f"still missing after installing: {', '.join(still)}")
    busybox, cni = shutil.which("busybox", path=SEARCH_PATH), _cni_folder()
    assert busybox is not None
    assert cni is not None
    return Machine(cni, Path(busybox), _bridge_filter())


def missing_packages(on_path: Callable[[str], bool], cni_found: bool) -> tuple[str, ...]:
    """Decide which Debian packages to install."""
    lacking = [package for program, package in PACKAGES.items() if not on_path(program)]
    return tuple(dict.fromkeys(lacking if cni_found else [*lacking, CNI_PACKAGE]))


def _on_path(program: str) -> bool:
    found = shutil.which(program, path=SEARCH_PATH)
    # BusyBox is the whole root file system of the stand-in images, so it has to be static.
    return found is not None and (program != "busybox" or _is_static(Path(found)))


def _is_static(program: Path) -> bool:
    """An ELF file that needs a loader names it right behind its headers."""
    with program.open("rb") as file:
        return b"/ld-" not in file.read(4096)


def _cni_folder() -> Path | None:
    return next((folder for folder in CNI_FOLDERS if (folder / "bridge").exists()), None)


def _bridge_filter() -> bool:
    if not Path("/proc/sys/net/bridge").exists() and (modprobe := shutil.which("modprobe", path=SEARCH_PATH)):
        subprocess.run((modprobe, "br_netfilter"), capture_output=True, check=False)
    return Path("/proc/sys/net/bridge").exists()


def _install(packages: tuple[str, ...], report: Report) -> None:
    apt = shutil.which("apt-get", path=SEARCH_PATH)
    if apt is None:
        raise UnsupportedMachineError(
            f"missing: {', '.join(packages)} (names of Debian's packages); this machine has no apt-get, "
            "install them by its own means"
        )
    report(f"installing {', '.join(packages)}: Debian packages that the cluster needs and this machine lacks")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ("-q", "-y", "-o", "DPkg::Lock::Timeout=120")
    for arguments in (("update",), ("install", "--no-install-recommends", *packages)):
        done = subprocess.run(
            (apt, *options, *arguments), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UnsupportedMachineError(
                f"`apt-get {' '.join(arguments)}` failed; install the packages by hand and try again:\n"
                f"{done.stderr.strip()}"
            )
    started = [package for package in SERVICES if package in packages]
    if started and (systemctl := shutil.which("systemctl", path=SEARCH_PATH)):
        subprocess.run((systemctl, "disable", "--now", *started), capture_output=True, check=False)
