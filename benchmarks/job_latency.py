"""A market job's way through the operator, over hundreds of them: how long, and how many API requests.

Both spans are exact samples taken from outside, by a chain subscription and a watch of this process beside
the operator's own:

* run to pod: from the run account's notification at *confirmed* to the pod's being there;
* end to finish: from seeing the container terminated to the chain's having executed `finish`.

The operator's own histograms of the same spans (by its clock: seen to created, seen to sent) stand beside.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from benchmarks.skip import Skip
from prometheus_client.parser import text_string_to_metric_families

from nosana_operator.api import JOB_KIND, LABEL_JOB, LABEL_RUN, JobCondition, is_true
from nosana_operator.errors import NosanaError
from nosana_operator.kube import load_credentials
from nosana_operator.runtime.operator import KINDS
from nosana_sandbox.cluster import ClusterError
from nosana_sandbox.cluster.machine import refuse_unless_capable
from nosana_sandbox.host import MARKET_NAME, SandboxHost
from nosana_sandbox.observer import Observer
from nosana_sandbox.program.layout import Run
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox, Shape

NAME: Final = "job_latency"
GOAL: Final = {
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


class BenchmarkFailed(NosanaError):
    """A job did not go the way that is measured."""


@dataclass(slots=True)
class Chain:
    """What the chain told of runs, in unix seconds."""

    run_seen: dict[str, float] = field(default_factory=dict)
    executed: dict[str, float] = field(default_factory=dict)
    """Successful transactions by signature."""


def run() -> dict[str, Any]:
    """For `benchmarks.run`: bring a sandbox up, run the jobs, take all down."""
    try:
        refuse_unless_capable()
    except ClusterError as error:
        raise Skip(str(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="nsb-", dir="/tmp"))
    name = f"bench-{os.getpid()}"
    sandbox = Sandbox(name, _say, folder / "s")
    try:
        running = sandbox.up(Shape(name))
        host = SandboxHost(sandbox, running)
        host.install()
        host.start()
        host.kubectl.apply([host.market(slots=SLOTS)])
        host.kubectl.run(
            "wait", "-n", NAMESPACES["system"], "--for=condition=Ready", "--timeout=30s", f"nm/{MARKET_NAME}"
        )
        return asyncio.run(_measured(running, host))
    finally:
        sandbox.down()
        shutil.rmtree(folder, ignore_errors=True)


async def _measured(running: Running, host: SandboxHost) -> dict[str, Any]:
    kinds = [KINDS[JOB_KIND], KINDS["Pod"]]
    world, chain = running.world, Chain()
    credentials = load_credentials(running.kubeconfig)
    poster = Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=read_keypair(Path(world.poster.keypair)))
    async with poster, Observer(credentials, kinds, NAMESPACES["jobs"]) as seen, _listening(running, chain):
        await _work(poster, world.market, seen, WARM, "warm")
        before = await asyncio.to_thread(host.metrics)
        warm = set(chain.run_seen)
        began = time.monotonic()
        await _work(poster, world.market, seen, JOBS, "job")
        took = time.monotonic() - began
        after = await asyncio.to_thread(host.metrics)
    samples = _samples(chain, seen, warm)
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
        "run_to_pod_p99_seconds": percentile(samples["run to pod"], 99),
        "end_to_finish_p99_seconds": percentile(samples["end to finish"], 99),
        "kubernetes_requests_per_job": round(sum(counted.values()) / JOBS, 2),
        "run_to_pod": spread(samples["run to pod"]),
        "end_to_finish": spread(samples["end to finish"]),
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
            and is_true((body.get("status") or {}).get("conditions"), JobCondition.SETTLED)
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
            _say(f"{number + 1} of {count} jobs posted")
    await seen.until(lambda: settled() == count, PATIENCE, "all jobs are settled")
    for body in seen.current(JOB_KIND).values():
        if body["spec"]["run"]["job"] in mine and not is_true(
            body["status"]["conditions"], JobCondition.COMPLETE
        ):
            raise BenchmarkFailed(
                f"job {body['metadata']['name']} did not end well: {body['status']['conditions']}"
            )


@contextlib.asynccontextmanager
async def _listening(running: Running, chain: Chain) -> AsyncIterator[None]:
    """Subscribed to the program's run accounts and its transactions."""
    world = running.world
    is_run = {"offset": 0, "bytes": base64.b64encode(Run.DISCRIMINATOR).decode(), "encoding": "base64"}
    account = {"commitment": "confirmed", "encoding": "base64", "filters": [{"memcmp": is_run}]}
    wishes = [
        ("programSubscribe", [world.program, account]),
        ("logsSubscribe", [{"mentions": [world.program]}, {"commitment": "processed"}]),
    ]
    async with aiohttp.ClientSession() as http, http.ws_connect(world.ws, max_msg_size=0) as socket:
        for number, (method, params) in enumerate(wishes):
            await socket.send_json({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        for _ in wishes:
            answer = await socket.receive_json()
            if "result" not in answer:
                raise BenchmarkFailed(f"the chain refused a subscription: {answer}")
        listening = asyncio.create_task(_listen(socket, chain))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()


async def _listen(socket: aiohttp.ClientWebSocketResponse, chain: Chain) -> None:
    """Note when each run account and each transaction was first told of."""
    while True:
        told = await socket.receive_json()
        now = time.time()
        value = told["params"]["result"]["value"]
        if told["method"] == "programNotification":
            chain.run_seen.setdefault(value["pubkey"], now)
        elif value["err"] is None:
            chain.executed.setdefault(value["signature"], now)


def _samples(chain: Chain, seen: Observer, warm: set[str]) -> Mapping[str, list[float]]:
    """The two spans of every run that is not one of the warm ones."""
    created: dict[str, float] = {}
    ended: dict[str, float] = {}
    for each in seen.history("Pod"):
        owner = each.body["metadata"].get("labels", {}).get(LABEL_JOB, "")
        created.setdefault(owner, each.at)
        if _terminated(each.body):
            ended.setdefault(owner, each.at)
    to_pod, to_finish = [], []
    for name, body in seen.current(JOB_KIND).items():
        run = body["metadata"]["labels"][LABEL_RUN]
        if run not in warm:
            to_pod.append(created[name] - chain.run_seen[run])
            to_finish.append(
                chain.executed[body["status"]["settlement"]["transaction"]["signature"]] - ended[name]
            )
    if len(to_pod) != JOBS:
        raise BenchmarkFailed(f"{len(to_pod)} runs were seen, not {JOBS}")
    return {"run to pod": to_pod, "end to finish": to_finish}


def _terminated(pod: Mapping[str, Any]) -> bool:
    states = pod.get("status", {}).get("containerStatuses") or []
    return bool(states) and all("terminated" in each.get("state", {}) for each in states)


def percentile(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that at least so many in a hundred do not exceed."""
    ordered = sorted(samples)
    return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 3)


def spread(samples: Sequence[float]) -> dict[str, float]:
    """What a span's samples look like, in seconds."""
    return {
        "samples": len(samples),
        "p50": percentile(samples, 50),
        "p90": percentile(samples, 90),
        "p99": percentile(samples, 99),
        "max": percentile(samples, 100),
    }


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(json.dumps(run(), indent=1))
