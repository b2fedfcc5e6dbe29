"""What the benchmarks of market jobs look at: spans of a job's way, seen from outside.

A chain subscription and a watch of this process tell beside the operator's own. All moments are unix seconds.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from benchmarks.skip import Skip

from nosana_operator.api import JOB_KIND, LABEL_JOB, LABEL_RUN
from nosana_operator.errors import NosanaError
from nosana_sandbox.cluster import ClusterError
from nosana_sandbox.cluster.machine import refuse_unless_capable
from nosana_sandbox.host import MARKET_NAME, SandboxHost
from nosana_sandbox.observer import Observer
from nosana_sandbox.program.layout import Run
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox, Shape


class BenchmarkFailed(NosanaError):
    """A job did not go the way that is measured."""


@dataclass(slots=True)
class Chain:
    """What the chain told of runs, in unix seconds."""

    run_seen: dict[str, float] = field(default_factory=dict)
    executed: dict[str, float] = field(default_factory=dict)
    """Successful transactions by signature."""


@contextlib.asynccontextmanager
async def listening(running: Running, chain: Chain) -> AsyncIterator[None]:
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
        listening = asyncio.create_task(_heard(socket, chain))
        try:
            yield
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        if not listening.cancelled():
            listening.result()


async def _heard(socket: aiohttp.ClientWebSocketResponse, chain: Chain) -> None:
    """Note when each run account and each transaction was first told of."""
    while True:
        told = await socket.receive_json()
        now = time.time()
        value = told["params"]["result"]["value"]
        if told["method"] == "programNotification":
            chain.run_seen.setdefault(value["pubkey"], now)
        elif value["err"] is None:
            chain.executed.setdefault(value["signature"], now)


@dataclass(frozen=True, slots=True)
class Spans:
    """Seconds, one sample a run."""

    to_job: list[float]
    """From the run account's notification at *confirmed* to the NosanaJob's being there."""
    to_pod: list[float]
    """The same to its first pod's."""
    to_finish: list[float]
    """From seeing the container terminated to the chain's having executed `finish`."""


def spans_of(chain: Chain, seen: Observer, runs: Iterable[str]) -> Spans:
    """The spans of these runs. Raises BenchmarkFailed when one of them was not seen."""
    made: dict[str, float] = {}
    created: dict[str, float] = {}
    ended: dict[str, float] = {}
    for each in seen.history(JOB_KIND):
        made.setdefault(each.body["metadata"]["name"], each.at)
    for each in seen.history("Pod"):
        owner = each.body["metadata"].get("labels", {}).get(LABEL_JOB, "")
        created.setdefault(owner, each.at)
        if terminated(each.body):
            ended.setdefault(owner, each.at)
    wanted = set(runs)
    spans = Spans([], [], [])
    for name, body in seen.current(JOB_KIND).items():
        run = body["metadata"]["labels"][LABEL_RUN]
        if run not in wanted:
            continue
        signature = body["status"]["settlement"]["transaction"]["signature"]
        spans.to_job.append(made[name] - chain.run_seen[run])
        spans.to_pod.append(created[name] - chain.run_seen[run])
        spans.to_finish.append(chain.executed[signature] - ended[name])
    if len(spans.to_job) != len(wanted):
        raise BenchmarkFailed(f"{len(spans.to_job)} runs were seen, not {len(wanted)}")
    return spans


def terminated(pod: Mapping[str, Any]) -> bool:
    """Whether all containers of the pod have ended."""
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


@contextlib.contextmanager
def serving(slots: int, gpus: int | None = None) -> Iterator[tuple[Running, SandboxHost]]:
    """A sandbox of its own with an operator that offers so many slots; all of it is taken down in the end.

    Raises Skip on a machine that has no cluster.
    """
    try:
        refuse_unless_capable()
    except ClusterError as error:
        raise Skip(str(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="nsb-", dir="/tmp"))
    name = f"bench-{os.getpid()}"
    sandbox = Sandbox(name, say, folder / "s")
    try:
        running = sandbox.up(Shape(name) if gpus is None else Shape(name, gpus=gpus))
        host = SandboxHost(sandbox, running)
        host.install()
        host.start()
        host.kubectl.apply([host.market(slots=slots)])
        host.kubectl.run(
            "wait", "-n", NAMESPACES["system"], "--for=condition=Ready", "--timeout=30s", f"nm/{MARKET_NAME}"
        )
        yield running, host
    finally:
        sandbox.down()
        shutil.rmtree(folder, ignore_errors=True)


def say(line: str) -> None:
    """One line for whoever waits."""
    print(line, file=sys.stderr, flush=True)
