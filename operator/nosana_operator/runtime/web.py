"""The one port: /metrics for Prometheus, /healthz and /readyz for the kubelet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from nosana_operator.runtime.errors import StartError

Checks = Mapping[str, Callable[[], str | None]]
"""Check name → a function that returns what is wrong, or None."""


class WebServer:
    """Serves on `address`:`port` from `start()` to `stop()`.

    Both probes answer 200 with one line per check, or 503 with what is wrong. A process that answers is alive, so
    `alive` holds only checks that a restart can heal.
    """

    def __init__(
        self, registry: CollectorRegistry, *, address: str, port: int, alive: Checks, ready: Checks
    ) -> None:
        self._address = address
        self._port = port
        app = web.Application()
        app.router.add_get("/metrics", make_aiohttp_handler(registry))
        app.router.add_get("/healthz", _probe(alive))
        app.router.add_get("/readyz", _probe(ready))
        # An access log would get a line for every scrape and probe.
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> int:
        """Start serving and return the port. Raises StartError when the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._address, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(
                f"Metrics and health cannot be served on {self._address}:{self._port}: {error.strerror}. "
                "Set metrics.address and metrics.port in the settings."
            ) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()


def _probe(checks: Checks) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        problems = {name: check() for name, check in checks.items()}
        lines = [f"{name}: {problem or 'ok'}" for name, problem in problems.items()]
        status = 503 if any(problems.values()) else 200
        return web.Response(text="\n".join(lines) + "\n", status=status)

    return answer
