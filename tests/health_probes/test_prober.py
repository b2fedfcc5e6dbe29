"""Probes over real connections: what an op answers, and what says nothing about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import unused_port

from nosana_operator.health_probes import NetworkProber, ProbeError, ProbeRefused, ProbeUnavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HERE = "127.0.0.1"
NOWHERE = "203.0.113.1"
"""Of a range that documents use; nothing answers there."""


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HERE, 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
async def prober() -> AsyncIterator[NetworkProber]:
    made = NetworkProber()
    yield made
    await made.close()


async def ask(prober: NetworkProber, port: int, path: str = "/", seconds: float = 5, **more: object) -> int:
    given = {"method": "GET", "headers": {}, "body": None, **more}
    return await prober.http(HERE, port, path=path, seconds=seconds, **given)  # type: ignore[arg-type]


async def test_the_request_is_what_the_check_says(prober: NetworkProber) -> None:
    seen: list[tuple[str, str, str | None, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, request.headers.get("X-A"), await request.read()))
        return web.Response(status=204)

    async with serving(handle) as port:
        assert await ask(prober, port, "/a?b=c", method="POST", headers={"X-A": "1"}, body=b"x") == 204
        assert await ask(prober, port, "no-slash") == 204
    assert seen == [("POST", "/a?b=c", "1", b"x"), ("GET", "/no-slash", None, b"")]


async def test_a_redirect_is_an_answer_and_cookies_are_not_kept(prober: NetworkProber) -> None:
    cookies: list[int] = []

    async def handle(request: web.Request) -> web.Response:
        cookies.append(len(request.cookies))
        answer = web.Response(status=302, headers={"Location": "/elsewhere"})
        answer.set_cookie("a", "b")
        return answer

    async with serving(handle) as port:
        assert [await ask(prober, port) for _ in range(2)] == [302, 302]
    assert cookies == [0, 0]


async def test_an_op_that_does_not_answer_is_not_well(prober: NetworkProber) -> None:
    async def silent(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(silent) as port:
        with pytest.raises(ProbeRefused, match=r"gives no answer within 0\.2 s"):
            await ask(prober, port, seconds=0.2)
    with pytest.raises(ProbeRefused, match="nothing listens on port"):
        await ask(prober, unused_port())


async def test_an_op_that_speaks_something_else_is_not_well(prober: NetworkProber) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK I am no web server\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, HERE, 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ProbeRefused, match="does not speak HTTP"):
        await ask(prober, port)
    with pytest.raises(ProbeRefused):
        await prober.websocket(HERE, port, listen=False, seconds=5)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ConnectionTimeoutError("connect"),
        aiohttp.ClientConnectorError(None, OSError(113, "No route to host")),  # type: ignore[arg-type]
    ],
)
async def test_a_pod_out_of_reach_says_nothing_about_the_op(
    prober: NetworkProber, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def request(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(prober._session, "request", request)
    with pytest.raises(ProbeUnavailable):
        await prober.http(NOWHERE, 80, method="GET", path="/", headers={}, body=None, seconds=5)


async def test_a_request_that_cannot_be_sent_tells_nothing_of_what_it_held(prober: NetworkProber) -> None:
    with pytest.raises(ProbeError) as caught:
        await ask(prober, unused_port(), headers={"X-Key": "secret\r\nX-More: 1"})
    assert "secret" not in str(caught.value)


async def test_websockets(prober: NetworkProber) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade") is None:
            return web.Response(status=400)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("hello")
        async for _ in socket:
            pass
        return socket

    async def plain(request: web.Request) -> web.Response:
        return web.Response(status=200)

    async with serving(handle) as port:
        assert await prober.websocket(HERE, port, listen=True, seconds=5) == "hello"
        assert await prober.websocket(HERE, port, listen=False, seconds=5) == ""
    async with serving(plain) as port:
        with pytest.raises(ProbeRefused, match="answers a WebSocket handshake with 200 instead of 101"):
            await prober.websocket(HERE, port, listen=False, seconds=5)


async def test_a_websocket_that_stays_silent_or_closes_is_not_well(prober: NetworkProber) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if request.path == "/":
            async for _ in socket:
                pass
        return socket

    async def close(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async with serving(handle) as port:
        with pytest.raises(ProbeRefused, match="gives no answer"):
            await prober.websocket(HERE, port, listen=True, seconds=0.2)
    async with serving(close) as port:
        with pytest.raises(ProbeRefused, match="without sending a message"):
            await prober.websocket(HERE, port, listen=True, seconds=5)
