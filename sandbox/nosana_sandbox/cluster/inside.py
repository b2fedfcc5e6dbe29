"""Commands of the machine, and the network namespace in which a cluster lives."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nosana_sandbox.cluster.errors import StartError
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.cluster.processes import SEARCH_PATH


def inside(namespace: Path, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` inside the network namespace."""
    # nsenter instead of `ip netns exec`, which mounts a fresh /sys without the control groups.
    return ["nsenter", f"--net={namespace}", "--", *command]


def run(*command: str) -> None:
    """Run a command of the machine. Raises `StartError` with its output."""
    program = shutil.which(command[0], path=SEARCH_PATH) or command[0]
    done = subprocess.run((program, *command[1:]), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def make_network(layout: Layout) -> None:
    """Create the network namespace with a bridge for each node."""
    name = layout.slug
    run("ip", "netns", "add", name)
    ip = ("ip", "-n", name)
    run(*ip, "link", "set", "lo", "up")
    for node in layout.nodes:
        run(*ip, "link", "add", node.bridge, "type", "bridge")
        run(*ip, "address", "add", f"{node.address}/24", "dev", node.bridge)
        run(*ip, "link", "set", node.bridge, "up")
    # Nothing lies behind it, but without a default route a connection from here to a Service's address fails
    # before the packet filter could turn it to a pod.
    run(*ip, "route", "add", "default", "dev", layout.nodes[0].bridge)
    run(*inside(layout.namespace, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
