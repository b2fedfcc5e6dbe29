"""The endpoints of a poster whose jobs are confidential, as Nosana's deployment manager has them.

A request needs the key of the host that runs the job: it signs the job's address, not long ago
(docs/protocol/node.md#confidential-definition). The definition is given on every request, a result is taken once.
"""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from solders.pubkey import Pubkey
from solders.signature import Signature

_FRESH: Final = 300.0
"""Seconds for which a signature is valid."""
_LARGEST: Final = 64 * 1024 * 1024
_JOB: Final = "%%global.job%%"


class ConfidentialEndpoint:
    """A server on `listener`, where the operator can reach it; use as a context manager.

    `host`: the address of the key that may request; `definition`: what it gets.
    """

    def __init__(self, host: str, definition: bytes, listener: socket.socket) -> None:
        self._host = Pubkey.from_string(host)
        self._definition = definition
        self._listener = listener
        self.results: dict[str, dict[str, Any]] = {}
        """The delivered results by job."""
        self.asked = 0
        """How often the definition was requested."""
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_get("/jobs/{job}/job-definition", self._give)
        app.router.add_post("/jobs/{job}/results", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.SockSite(self._runner, self._listener).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def stub(self) -> bytes:
        """The stub that is posted in place of the definition."""
        address, port = self._listener.getsockname()[:2]
        base = f"http://{address}:{port}/jobs/{_JOB}"
        ways = {"send": f"{base}/job-definition", "receive": f"{base}/results"}
        logistics = {side: {"type": "api", "args": {"endpoint": url}} for side, url in ways.items()}
        return json.dumps({"version": "0.1", "type": "container", "ops": [], "logistics": logistics}).encode()

    async def _give(self, request: web.Request) -> web.Response:
        self._check(request)
        self.asked += 1
        return web.Response(body=self._definition, content_type="application/json")

    async def _take(self, request: web.Request) -> web.Response:
        self._check(request)
        job = request.match_info["job"]
        if job in self.results:
            raise web.HTTPBadRequest(text="there is a result already")
        self.results[job] = await request.json()
        return web.json_response({})

    def _check(self, request: web.Request) -> None:
        message, _, rest = request.headers.get("Authorization", "").partition(":")
        signature, _, moment = rest.partition(":")
        try:
            signed = Signature.from_string(signature).verify(self._host, message.encode())
            age = time.time() - int(moment) / 1000
        except ValueError:
            raise web.HTTPUnauthorized(text="not signed as it should be") from None
        if not signed or message != request.match_info["job"] or abs(age) > _FRESH:
            raise web.HTTPUnauthorized(text="signed by another key, for another job, or long ago")
