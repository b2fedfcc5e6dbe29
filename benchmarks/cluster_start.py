"""The sandbox's cluster from nothing to Ready nodes, its programs built already: seconds."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.skip import Skip

from nosana_sandbox.cluster import ClusterError, LocalCluster
from nosana_sandbox.cluster.build import ensure_programs
from nosana_sandbox.cluster.machine import refuse_unless_capable

NAME = "cluster_start"
GOAL = {"slowest_start_seconds": 15}
STARTS = 5


def run() -> dict[str, Any]:
    """For `benchmarks.run`: start it and take it down a few times; the slowest start counts."""
    try:
        refuse_unless_capable()
    except ClusterError as error:
        raise Skip(str(error)) from error
    ensure_programs(_say)
    starts, ends = [], []
    folder = Path(tempfile.mkdtemp(prefix="nsb-", dir="/tmp"))
    try:
        for number in range(STARTS):
            cluster = LocalCluster(folder / str(number), f"bench-{os.getpid()}", 4, 2, lambda line: None)
            began = time.monotonic()
            try:
                cluster.up()
                starts.append(time.monotonic() - began)
            finally:
                began = time.monotonic()
                cluster.down()
                ends.append(time.monotonic() - began)
            _say(f"start {number + 1} of {STARTS}: {starts[-1]:.1f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "slowest_start_seconds": round(max(starts), 2),
        "fastest_start_seconds": round(min(starts), 2),
        "slowest_down_seconds": round(max(ends), 2),
        "starts": STARTS,
        "nodes": 2,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(run())
