"""A market job's way through the operator, over hundreds of them: how long, and how many API requests.

The spans are those of `benchmarks.spans`: exact samples, taken from outside. The operator's own histograms of
the same spans (by its clock: seen to created, seen to sent) stand beside.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.spans import BenchmarkFailed, Chain, listening, percentile, say, serving, spans_of, spread
from prometheus_client.parser import text_string_to_metric_families

from nosana_operator.api import JOB_KIND, JobCondition, condition_is_true
from nosana_operator.kube import load_credentials
from nosana_operator.runtime.operator import KINDS
from nosana_sandbox.host import SandboxHost
from nosana_sandbox.observer import Observer
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.sandbox import NAMESPACES, Running

NAME: Final = "job_latency"
GOAL: Final = {
    "run_to_job_p99_seconds": 0.3,
    "run_to_pod_p99_seconds": 1.0,
    "end_to_finish_p99_seconds": 2.0,
    "kubernetes_requests_per_job": 14,
}
JOBS: Final = int(os.environ.get("NOSANA_BENCH_JOBS", "200"))
WARM: Final = 4
"""Jobs before those that count: images unpacked, caches filled."""
SLOTS: Final = 4
OPEN: Final = SLOTS + 2
"""Jobs posted and not settled at any time: every slot is in use, and some wait."""
PATIENCE: Final = 120.0

_OUTSIDE: Final = ("Event", "Lease", "")
"""Kinds that do not count: Events by the promise's own words, leases and health checks cost no job anything."""
_NOT_COUNTED: Final = ("logs", "list")
"""Verbs: log reading by the promise's own words; a listing is the cache's, in its own time."""


def run() -> dict[str, Any]:
    """For `benchmarks.run`: bring a sandbox up, run the jobs, take all down."""
    with serving(SLOTS) as (running, host):
        return asyncio.run(_measured(running, host))


async def _measured(running: Running, host: SandboxHost) -> dict[str, Any]:
    kinds = [KINDS[JOB_KIND], KINDS["Pod"]]
    world, chain = running.world, Chain()
    credentials = load_credentials(running.kubeconfig)
    poster = Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=read_keypair(Path(world.poster.keypair)))
    async with poster, Observer(credentials, kinds, NAMESPACES["jobs"]) as seen, listening(running, chain):
        await _work(poster, world.market, seen, WARM, "warm")
        before = await asyncio.to_thread(host.metrics)
        warm = set(chain.run_seen)
        began = time.monotonic()
        await _work(poster, world.market, seen, JOBS, "job")
        took = time.monotonic() - began
        after = await asyncio.to_thread(host.metrics)
    spans = spans_of(chain, seen, chain.run_seen.keys() - warm)
    requests = _delta(before, after, "nosana_operator_kubernetes_requests_total")
    counted = {
        labels: count
        for labels, count in requests.items()
        if dict(labels)["kind"] not in _OUTSIDE and dict(labels)["verb"] not in _NOT_COUNTED
    }
    by_call: Counter[str] = Counter()
    for labels, count in counted.items():
        by_call[f"{dict(labels)['verb']} {dict(labels)['kind']}"] += int(count)
    return {
        "run_to_job_p99_seconds": percentile(spans.to_job, 99),
        "run_to_pod_p99_seconds": percentile(spans.to_pod, 99),
        "end_to_finish_p99_seconds": percentile(spans.to_finish, 99),
        "kubernetes_requests_per_job": round(sum(counted.values()) / JOBS, 2),
        "run_to_job": spread(spans.to_job),
        "run_to_pod": spread(spans.to_pod),
        "end_to_finish": spread(spans.to_finish),
        "operator_run_to_pod": _histogram(before, after, "nosana_operator_run_to_pod_seconds"),
        "operator_end_to_finish": _histogram(before, after, "nosana_operator_end_to_finish_seconds"),
        "requests_by_call_per_job": {
            call: round(count / JOBS, 2) for call, count in by_call.most_common() if count >= JOBS / 100
        },
        "jobs": JOBS,
        "slots": SLOTS,
        "seconds": round(took, 1),
    }


async def _work(poster: Poster, market: str, seen: Observer, count: int, word: str) -> None:
    """Post jobs, keeping the slots busy, until so many are settled. Raises BenchmarkFailed."""
    mine: set[str] = set()

    def settled() -> int:
        return sum(
            1
            for body in seen.current(JOB_KIND).values()
            if body["spec"]["run"]["job"] in mine
            and condition_is_true((body.get("status") or {}).get("conditions"), JobCondition.SETTLED)
        )

    for number in range(count):
        definition = {
            "version": "0.1",
            "type": "container",
            "ops": [
                {
                    "type": "container/run",
                    "id": "say",
                    "args": {"image": "ubuntu", "cmd": ["echo", f"{word} {number}"], "gpu": True},
                }
            ],
        }
        posted = await poster.post(json.dumps(definition).encode(), market, timeout=600)
        mine.add(posted.job)
        await seen.until(lambda: len(mine) - settled() < OPEN, PATIENCE, "a job is settled")
        if number % 25 == 24:
            say(f"{number + 1} of {count} jobs posted")
    await seen.until(lambda: settled() == count, PATIENCE, "all jobs are settled")
    for body in seen.current(JOB_KIND).values():
        if body["spec"]["run"]["job"] in mine and not condition_is_true(
            body["status"]["conditions"], JobCondition.COMPLETE
        ):
            raise BenchmarkFailed(
                f"job {body['metadata']['name']} did not end well: {body['status']['conditions']}"
            )


def _histogram(before: str, after: str, name: str) -> dict[str, float]:
    """Samples, and the edge of the bucket that 99 of 100 are within, of one of the operator's histograms."""
    count = sum(_delta(before, after, f"{name}_count").values())
    within: dict[float, float] = {}
    for labels, growth in _delta(before, after, f"{name}_bucket").items():
        edge = float(dict(labels)["le"])
        within[edge] = within.get(edge, 0.0) + growth
    return {
        "samples": count,
        "p99_at_most": min((edge for edge, inside in within.items() if inside >= 0.99 * count), default=0.0),
    }


def _delta(before: str, after: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """How much each series of a counter or histogram grew between two scrapes."""
    old = _series(before, name)
    return {labels: value - old.get(labels, 0.0) for labels, value in _series(after, name).items()}


def _series(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
