"""JSON-RPC over HTTP and WebSocket on one port, over a bank."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import WSMsgType, web
from solders.pubkey import Pubkey

from nosana_sandbox.chain.bank import DEFAULT_FINALITY, Bank
from nosana_sandbox.chain.clock import ChainClock
from nosana_sandbox.chain.errors import INVALID_REQUEST, PARSE_ERROR, RpcError
from nosana_sandbox.chain.rpc import Methods
from nosana_sandbox.chain.subscriptions import SUBSCRIBE_METHODS, UNSUBSCRIBE_METHODS, Hub, Send
from nosana_sandbox.program import Account

SLOT_SECONDS: Final = 0.4
"""How long a slot takes on a real chain."""
_MAX_BODY: Final = 50 * 1024
BANK: Final = web.AppKey("bank", Bank)
"""Where the app keeps its bank."""


def chain_app(bank: Bank, *, slot_seconds: float | None = SLOT_SECONDS) -> web.Application:
    """A node's RPC: POST / and WebSocket on /, GET /health.

    With `slot_seconds` None no slot passes but by `bank.tick()` and by `sandbox_clock`.
    """
    endpoint = _Endpoint(bank)
    app = web.Application(client_max_size=_MAX_BODY)
    app[BANK] = bank
    app.router.add_post("/", endpoint.post)
    app.router.add_get("/", endpoint.websocket)
    app.router.add_get("/health", endpoint.health)

    async def run(_: web.Application) -> AsyncIterator[None]:
        ticker = None if slot_seconds is None else asyncio.create_task(_tick(bank, slot_seconds))
        try:
            yield
        finally:
            if ticker is not None:
                ticker.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticker
            endpoint.close()

    async def hang_up(_: web.Application) -> None:
        await endpoint.close_websockets()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(hang_up)
    return app


async def _tick(bank: Bank, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        # Against the loop's clock, so that late wake-ups do not add up.
        due = max(due + seconds, loop.time())
        await asyncio.sleep(due - loop.time())
        bank.tick()


class _Endpoint:
    def __init__(self, bank: Bank) -> None:
        self._methods = Methods(bank)
        self._hub = Hub(bank)
        self._websockets: set[web.WebSocketResponse] = set()

    def close(self) -> None:
        self._hub.close()

    async def close_websockets(self) -> None:
        for websocket in list(self._websockets):
            await websocket.close(code=1001)

    async def health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def post(self, request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _reply(_error(None, RpcError(PARSE_ERROR, "Parse error")))
        if isinstance(body, list):
            return _reply([self._answer(item) for item in body])
        return _reply(self._answer(body))

    def _answer(self, body: Any) -> dict[str, Any]:
        number = body.get("id") if isinstance(body, dict) else None
        try:
            method, params = _parse(body)
            return _result(number, self._methods.call(method, params))
        except RpcError as error:
            return _error(number, error)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(
                status=405, text="Used HTTP Method is not allowed. POST or OPTIONS is required"
            )
        websocket = web.WebSocketResponse(max_msg_size=_MAX_BODY)
        await websocket.prepare(request)
        outgoing: asyncio.Queue[str] = asyncio.Queue()

        def send(message: dict[str, Any]) -> None:
            outgoing.put_nowait(json.dumps(message, separators=(",", ":")))

        writer = asyncio.create_task(_write(websocket, outgoing))
        self._websockets.add(websocket)
        try:
            async for message in websocket:
                if message.type is WSMsgType.TEXT:
                    self._receive(message.data, send)
        finally:
            self._websockets.discard(websocket)
            self._hub.drop_client(send)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
        return websocket

    def _receive(self, text: str, send: Send) -> None:
        number: Any = None
        try:
            body = json.loads(text)
            number = body.get("id") if isinstance(body, dict) else None
            method, params = _parse(body)
            if method in SUBSCRIBE_METHODS:
                subscription = self._hub.subscribe(method, params, send)
                send(_result(number, subscription))
                self._hub.announce(subscription)
            elif method in UNSUBSCRIBE_METHODS:
                send(_result(number, self._hub.unsubscribe(params, send)))
            else:
                send(_result(number, self._methods.call(method, params)))
        except RpcError as error:
            send(_error(number, error))
        except ValueError:
            send(_error(None, RpcError(PARSE_ERROR, "Parse error")))


async def _write(websocket: web.WebSocketResponse, outgoing: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_str(await outgoing.get())


def _parse(body: Any) -> tuple[str, Any]:
    if not isinstance(body, dict) or not isinstance(body.get("method"), str) or body.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "Invalid request")
    return body["method"], body.get("params")


def _result(number: Any, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": result, "id": number}


def _error(number: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": error.to_json(), "id": number}


def _reply(body: Any) -> web.Response:
    return web.Response(text=json.dumps(body, separators=(",", ":")), content_type="application/json")


@dataclass(frozen=True, slots=True)
class RunningChain:
    """A chain that answers on loopback."""

    bank: Bank
    url: str
    ws_url: str


@contextlib.asynccontextmanager
async def running_chain(
    bank: Bank | None = None,
    *,
    slot_seconds: float | None = SLOT_SECONDS,
    finality: int = DEFAULT_FINALITY,
    clock: ChainClock | None = None,
    genesis: Mapping[Pubkey, Account] | None = None,
) -> AsyncIterator[RunningChain]:
    """A chain in this process on a free port of loopback, for as long as the context lasts.

    `finality` (slots until finalized), `clock` and `genesis` are for a bank made here; pass `bank` to bring
    one's own. `slot_seconds` None leaves slots to `chain.bank.tick()`.
    """
    bank = bank or Bank(genesis=genesis, clock=clock, finality=finality)
    runner = web.AppRunner(chain_app(bank, slot_seconds=slot_seconds), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        listening = loopback_pair()
        for each in listening:
            await web.SockSite(runner, each).start()
        port = listening[0].getsockname()[1]
        yield RunningChain(bank, f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}")
    finally:
        await runner.cleanup()


def loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Two listening sockets on neighbouring free ports of loopback.

    Clients that are given only the HTTP address take the next port for WebSocket.
    """
    for _ in range(50):
        first = socket.create_server(("127.0.0.1", 0))
        try:
            return first, socket.create_server(("127.0.0.1", first.getsockname()[1] + 1))
        except (OSError, OverflowError):
            first.close()
    raise OSError("no two neighbouring free ports on 127.0.0.1 in 50 tries")
