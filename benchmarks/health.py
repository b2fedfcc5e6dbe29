"""Health checks: what 1,000 checked endpoints cost the operator, as a share of one core.

The server is a process of its own. Each endpoint is asked every 30 s, as continuous checks are; the start, in
which all are asked at once, is left out.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web

from nosana_operator.definition import HttpHealthCheck, Port
from nosana_operator.health_probes import NetworkProber
from nosana_operator.jobs.decision.health import CONTINUOUS_EVERY
from nosana_operator.jobs.monitor import HealthMonitor, Target

NAME = "health"
GOAL = {"cores": 0.10}
ENDPOINTS = 1000
HERE = "127.0.0.1"
CHECK = HttpHealthCheck.model_validate(
    {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True}
)


class Clock:
    """The clock on the wall."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)


class CountingProber(NetworkProber):
    """Counts what it asks."""

    asked = 0

    async def http(
        self,
        address: str,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> int:
        """One more."""
        self.asked += 1
        return await super().http(
            address, port, method=method, path=path, headers=headers, body=body, seconds=seconds
        )


def serve(channel: Connection) -> None:
    """An op that is well, for ever; its port goes into the channel."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response()

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HERE, 0, backlog=ENDPOINTS).start()
        channel.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


async def measure(port: int) -> dict[str, Any]:
    """Seconds of this process for each second of the clock, over one round of all endpoints."""
    prober = CountingProber()
    monitor = HealthMonitor(prober, Clock(), lambda key: None, asyncio.sleep)
    target = Target("c/0", HERE, (Port(port, (CHECK,)),))

    def jobs() -> bool:
        looks = [monitor.health(str(at), ("jobs", str(at)), {0: target}) for at in range(ENDPOINTS)]
        return all(look[0].ready for look in looks)

    while not jobs():  # noqa: ASYNC110 - health has nothing to wait on
        await asyncio.sleep(0.5)
    asked, clock, spent = prober.asked, time.monotonic(), time.process_time()
    await asyncio.sleep(CONTINUOUS_EVERY)
    took, spent = time.monotonic() - clock, time.process_time() - spent
    asked = prober.asked - asked
    await monitor.close()
    await prober.close()
    assert abs(asked - ENDPOINTS) <= ENDPOINTS / 10, asked
    return {
        "cores": round(spent / took, 4),
        "endpoints": ENDPOINTS,
        "checks_per_second": round(asked / took, 1),
        "microseconds_per_check": round(1e6 * spent / asked),
    }


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    server = context.Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        return asyncio.run(measure(here.recv()))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    print(run())
