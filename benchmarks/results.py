"""`results`: three expressions over a log of 10 MB and 24,999 lines, as at the end of an op.

The peak of memory is that of this process above what it held with the log in its hands, and of the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import statistics
import time
import tracemalloc
from pathlib import Path
from typing import Any

from nosana_operator.definition import LogTail
from nosana_operator.definition.results import extract
from nosana_operator.jobs.result import log_lines
from nosana_operator.regex import RegexRunner

NAME = "results"
GOAL = {"seconds": 1.0, "extra_memory_mib": 64}
LINES = 24_999
ROUNDS = 5
RESULTS = {
    "loss": r"loss=(\d+\.\d+)",
    "chunk": r"(?<=chunk-\d+ )\w+",
    "throughput": r"(?<value>\d+) tokens/s \((?<unit>\w+)\)",
}


def a_log() -> bytes:
    """10 MB in the form in which the API server gives a log: each line led by its timestamp."""
    filler = "the quick brown fox jumps over the lazy dog; " * 7
    chunks = {at: f"chunk-{at} done " for at in range(0, LINES, 10)}
    return b"".join(
        f"2026-01-02T03:04:{at % 60:02d}.123456789Z step {at} loss={at / 7:.4f} {filler}"
        f"{chunks.get(at, '')}{at % 97} tokens/s (decode)\n".encode()
        for at in range(LINES)
    )


async def measure() -> dict[str, Any]:
    """Seconds from the log's bytes to the values, and the memory that it took."""
    data = a_log()
    runner = RegexRunner()
    took = []
    for _ in range(ROUNDS):
        gc.collect()
        started = time.perf_counter()
        found = await _once(data, runner)
        took.append(time.perf_counter() - started)
    assert len(found["loss"]) == 2 * LINES
    assert len(found["chunk"]) == LINES // 10 + 1
    assert len(found["throughput"]) == 3 * LINES
    tracemalloc.start()
    await _once(data, runner)
    own = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    watching = asyncio.create_task(_engine_peak())
    await _once(data, runner)
    watching.cancel()
    engine = max(peaks) if (peaks := await watching) else math.nan
    return {
        "seconds": round(statistics.median(took), 3),
        "extra_memory_mib": round(own + engine, 1),
        "own_memory_mib": round(own, 1),
        "engine_memory_mib": round(engine, 1),
        "log_mb": round(len(data) / 1e6, 1),
    }


async def _once(data: bytes, runner: RegexRunner) -> dict[str, Any]:
    tail = LogTail()
    tail.extend(log_lines(data))
    return await extract(RESULTS, tail.lines, runner.match)


async def _engine_peak() -> list[float]:
    """The most memory that the engine had at each look, MiB; its usage as a child counts our pages too."""
    peaks: list[float] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            peaks += _engines()
            await asyncio.sleep(0.002)
    return peaks


def _engines() -> list[float]:
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            status = Path("/proc", child, "status").read_text()
            command = Path("/proc", child, "cmdline").read_text()
            if "VmHWM" in status and "regex/worker.py" in command:
                found.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)
    return found


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    return asyncio.run(measure())


if __name__ == "__main__":
    print(run())
