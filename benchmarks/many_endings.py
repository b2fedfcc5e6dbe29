"""A hundred market jobs that run at once and end within one minute: how soon each is finished on chain.

They are started together, and each sleeps until a moment of its own; one key holds all the runs.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.spans import BenchmarkFailed, Chain, listening, percentile, say, serving, spans_of, spread

from nosana_operator.api import JOB_KIND, JobCondition, condition_is_true
from nosana_operator.kube import load_credentials
from nosana_operator.runtime.operator import KINDS
from nosana_sandbox.observer import Observer
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.sandbox import NAMESPACES, Running

NAME: Final = "many_endings"
GOAL: Final = {"end_to_finish_p99_seconds": 2.0}
JOBS: Final = 100
WITHIN: Final = 60.0
START: Final = 240.0
"""Seconds by which all of them have to run."""
PATIENCE: Final = START + WITHIN + 60


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    with serving(JOBS, gpus=JOBS) as (running, _host):
        return asyncio.run(_measured(running))


async def _measured(running: Running) -> dict[str, Any]:
    world, chain = running.world, Chain()
    credentials = load_credentials(running.kubeconfig)
    poster = Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=read_keypair(Path(world.poster.keypair)))
    kinds = [KINDS[JOB_KIND], KINDS["Pod"]]
    async with poster, Observer(credentials, kinds, NAMESPACES["jobs"]) as seen, listening(running, chain):
        first = time.time() + START
        for number in range(JOBS):
            end = int(first + WITHIN * number / JOBS)
            await poster.post(json.dumps(_sleeps_until(end)).encode(), world.market, timeout=3600)
        say(f"{JOBS} jobs posted")

        def so_many(kind: JobCondition) -> int:
            return sum(
                condition_is_true((body.get("status") or {}).get("conditions"), kind)
                for body in seen.current(JOB_KIND).values()
            )

        def running_now() -> int:
            phases = [(body.get("status") or {}).get("phase") for body in seen.current(JOB_KIND).values()]
            return phases.count("Running")

        await seen.until(lambda: running_now() == JOBS, START, "all jobs run")
        spare = first - time.time()
        say(f"all run, {spare:.0f} s before the first ends")
        if spare < 0:
            raise BenchmarkFailed("the machine is too slow: jobs ended before all of them ran")
        await seen.until(lambda: so_many(JobCondition.SETTLED) == JOBS, PATIENCE, "all jobs are settled")
        if so_many(JobCondition.COMPLETE) != JOBS:
            raise BenchmarkFailed("not every job ended well")
        spans = spans_of(chain, seen, chain.run_seen)
    return {
        "end_to_finish_p99_seconds": percentile(spans.to_finish, 99),
        "end_to_finish": spread(spans.to_finish),
        "run_to_job": spread(spans.to_job),
        "run_to_pod": spread(spans.to_pod),
        "jobs": JOBS,
        "within_seconds": WITHIN,
    }


def _sleeps_until(end: int) -> dict[str, Any]:
    command = f"sleep $(({end} - $(date +%s)))"
    return {
        "version": "0.1",
        "type": "container",
        "ops": [
            {
                "type": "container/run",
                "id": "sleep",
                "args": {"image": "ubuntu", "entrypoint": ["sh", "-c"], "cmd": [command], "gpu": True},
            }
        ],
    }
