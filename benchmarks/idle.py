"""The operator at rest, in the cluster: memory and CPU of its container, by the kernel's own account.

Installed by its chart, standing in the market, with nothing to do: what a cluster pays for it all day long.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.skip import Skip

from nosana_sandbox.cluster import ClusterError
from nosana_sandbox.cluster.machine import refuse_unless_capable
from nosana_sandbox.helm import RELEASE, ChartHost
from nosana_sandbox.host import MARKET_NAME
from nosana_sandbox.world.sandbox import NAMESPACES, Sandbox, Shape

NAME: Final = "idle"
GOAL: Final = {"resident_mib": 120, "cpu_percent_of_a_core": 1.0}
SETTLES: Final = 30.0
"""Seconds until what starting took is over."""
WATCHED: Final = float(os.environ.get("NOSANA_BENCH_IDLE", "120"))
"""Seconds over which CPU is summed up: several rounds of everything that is done on a schedule."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    try:
        refuse_unless_capable()
    except ClusterError as error:
        raise Skip(str(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="nsi-", dir="/tmp"))
    name = f"idle-{os.getpid()}"
    sandbox = Sandbox(name, _say, folder / "s")
    try:
        running = sandbox.up(Shape(name))
        host = ChartHost(sandbox, running, _say)
        host.bring_up()
        host.offer()
        host.kubectl.run(
            "wait", "-n", NAMESPACES["system"], "--for=jsonpath={.status.slots.standing}=1", "--timeout=60s",
            f"nm/{MARKET_NAME}",
        )  # fmt: skip
        pod = host.kubectl.get(
            "pods", "-n", NAMESPACES["system"], "-l", f"app.kubernetes.io/instance={RELEASE}"
        )["items"][0]
        process = _process(pod["metadata"]["uid"])
        time.sleep(SETTLES)
        before, began = _cpu_seconds(process), time.monotonic()
        time.sleep(WATCHED)
        used, lasted = _cpu_seconds(process) - before, time.monotonic() - began
        (restarts,) = [each["restartCount"] for each in pod["status"]["containerStatuses"]]
        memory = _status(process)
        return {
            "resident_mib": round(memory["VmRSS"] / 1024, 1),
            "most_resident_mib": round(memory["VmHWM"] / 1024, 1),
            "cpu_percent_of_a_core": round(100 * used / lasted, 2),
            "cpu_seconds_to_start": round(before, 2),
            "seconds": round(lasted),
            "restarts": restarts,
        }
    finally:
        sandbox.down()
        shutil.rmtree(folder, ignore_errors=True)


def _process(pod: str) -> Path:
    """The operator's process in the pod with that uid: the one of its control group that is Python."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            if b"nosana_operator" in command and pod in (process / "cgroup").read_text():
                return process
        except OSError:
            continue
    raise Skip(f"no process of pod {pod} is to be seen on this machine")


def _cpu_seconds(process: Path) -> float:
    """User and system time of all threads since it started."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _status(process: Path) -> dict[str, int]:
    """The sizes in /proc/PID/status, KiB."""
    lines = (line.partition(":") for line in (process / "status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, _, value in lines if value.strip().endswith(" kB")}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(run())
