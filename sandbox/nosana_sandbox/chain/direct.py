"""A chain's RPC without sockets: a request is answered within the call.

For programs whose time is simulated: real sockets would be waited for while it jumps ahead.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from nosana_sandbox.chain.bank import Bank
from nosana_sandbox.chain.faults import TRANSPORT, Fault, Faults, Kind
from nosana_sandbox.chain.server import Endpoint


class DirectSession:
    """Stands in for an `aiohttp.ClientSession` that only posts to one node, whatever the URL.

    Args:
        bank: the chain.
        faults: what goes wrong.
        seconds: how long an answer takes.
    """

    def __init__(self, bank: Bank, faults: Faults | None = None, *, seconds: float = 0.0) -> None:
        self.faults = faults or Faults()
        self.requests = 0
        """How many requests came so far."""
        self._endpoint = Endpoint(bank, self.faults)
        self._seconds = seconds

    def post(
        self, url: str, *, json: Any, timeout: aiohttp.ClientTimeout, allow_redirects: bool = True
    ) -> _Exchange:
        """One request; use as `async with`."""
        self.requests += 1
        return _Exchange(self, json, timeout.total)

    async def answer(self, body: Any, time_limit: float | None) -> _Answer:
        """The node's answer, if any."""
        fault = self.faults.pick(str(body["method"]), TRANSPORT)
        wait = fault.seconds if fault is not None and fault.kind is Kind.SILENT else self._seconds
        try:
            async with asyncio.timeout(time_limit):
                await asyncio.sleep(wait)
        except TimeoutError:
            # Raised as aiohttp does.
            raise aiohttp.ServerTimeoutError from None
        if fault is None:
            return _Answer(200, json.dumps(self._endpoint.answer(body)).encode())
        return _spoiled(fault)


class _Answer:
    def __init__(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self.content = self
        self._body = body

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


class _Exchange:
    def __init__(self, session: DirectSession, body: Any, time_limit: float | None) -> None:
        self._session = session
        self._body = body
        self._patience = time_limit

    async def __aenter__(self) -> _Answer:
        return await self._session.answer(self._body, self._patience)

    async def __aexit__(self, *_: object) -> None:
        return None


def _spoiled(fault: Fault) -> _Answer:
    match fault.kind:
        case Kind.RATE_LIMITED:
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            return _Answer(429, b"Too many requests", headers)
        case Kind.SERVER_ERROR:
            return _Answer(fault.status, b"upstream connect error")
        case Kind.HTML:
            return _Answer(200, b"<html></html>")
    raise aiohttp.ServerDisconnectedError
