"""JSON-RPC over HTTP and WebSocket on one port, over a bank."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import WSMsgType, web
from solders.pubkey import Pubkey

from nosana_sandbox.chain.bank import DEFAULT_FINALITY, Bank
from nosana_sandbox.chain.clock import ChainClock
from nosana_sandbox.chain.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, RpcError
from nosana_sandbox.chain.faults import (
    ANSWER,
    CONNECT,
    MUTING,
    NOTIFICATION,
    TRANSACTION,
    TRANSPORT,
    Fault,
    Faults,
    Kind,
    LateTransactions,
)
from nosana_sandbox.chain.params import Config
from nosana_sandbox.chain.rpc import Methods
from nosana_sandbox.chain.subscriptions import SUBSCRIBE_METHODS, UNSUBSCRIBE_METHODS, Hub, Send
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import Account

SLOT_SECONDS: Final = 0.4
"""How long a slot takes on a real chain."""
_MAX_BODY: Final = 50 * 1024
BANK: Final = web.AppKey("bank", Bank)
"""Where the app keeps its bank."""
_PAGE: Final = "<!DOCTYPE html><html><body><h1>Welcome</h1></body></html>"


def chain_app(
    bank: Bank, *, slot_seconds: float | None = SLOT_SECONDS, faults: Faults | None = None
) -> web.Application:
    """A node's RPC: POST / and WebSocket on /, GET /health.

    With `slot_seconds` None no slot passes but by `bank.tick()` and by `sandbox_clock`. `faults` are what
    goes wrong; they can be changed any time, also by `sandbox_faults`.
    """
    return _app(Endpoint(bank, faults or Faults()), bank, slot_seconds)


def _app(endpoint: Endpoint, bank: Bank, slot_seconds: float | None) -> web.Application:
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


class Endpoint:
    """One node of the chain: requests and WebSockets, with their faults."""

    def __init__(self, bank: Bank, faults: Faults) -> None:
        self._bank = bank
        self._faults = faults
        self._late = LateTransactions(bank)
        self._methods = Methods(bank, self._hand_in)
        self._hub = Hub(bank)
        self._clients: set[_Client] = set()

    def close(self) -> None:
        """Stop observing the bank."""
        self._hub.close()
        self._late.close()

    async def close_websockets(self) -> None:
        """Close every client's WebSocket."""
        for client in list(self._clients):
            await client.websocket.close(code=1001)

    async def health(self, _: web.Request) -> web.Response:
        """GET /health."""
        return web.Response(text="ok")

    async def post(self, request: web.Request) -> web.Response:
        """JSON-RPC, single or in a batch."""
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _reply(_error(None, RpcError(PARSE_ERROR, "Parse error")))
        items = body if isinstance(body, list) else [body]
        for item in items:
            name = _name(item)
            fault = None if name is None else self._faults.pick(name, TRANSPORT)
            if fault is not None:
                return await _spoiled(request, fault)
        if isinstance(body, list):
            return _reply([self.answer(item) for item in body])
        return _reply(self.answer(body))

    def answer(self, body: Any) -> dict[str, Any]:
        """The reply to one JSON-RPC request."""
        number = body.get("id") if isinstance(body, dict) else None
        try:
            method, params = _parse(body)
            return _result(number, self._call(method, params))
        except RpcError as error:
            return _error(number, error)

    def _call(self, method: str, params: Any) -> Any:
        if method == "sandbox_faults":
            return self._script(params)
        fault = None if method.startswith("sandbox_") else self._faults.pick(method, ANSWER)
        if fault is None:
            return self._methods.call(method, params)
        if fault.kind is Kind.LAG:
            with self._bank.seen_late(fault.slots):
                return self._methods.call(method, params)
        if fault.kind is Kind.REFUSED:
            raise RpcError(410, "The RPC call or parameters have been disabled.")
        raise RpcError(fault.code, fault.message)

    def _hand_in(self, transaction: WireTransaction) -> None:
        fault = self._faults.pick("sendTransaction", TRANSACTION)
        if fault is None:
            self._bank.submit(transaction)
        elif fault.kind is Kind.LATE:
            self._late.hold(transaction, fault.slots)

    def _script(self, params: Any) -> Any:
        """Change the faults: `clear`, `seed`, `add` a rule, `fork` so many slots, `hangUp` all WebSockets.

        Without parameters only tells the rules and what they did.
        """
        if params is not None and (not isinstance(params, list) or len(params) > 1):
            raise RpcError(INVALID_PARAMS, "sandbox_faults takes one object.")
        settings = Config.of(params[0] if params else None)
        unknown = settings.keys - {"clear", "seed", "add", "fork", "hangUp"}
        if unknown:
            raise RpcError(INVALID_PARAMS, f"sandbox_faults does not know {', '.join(sorted(unknown))}.")
        if settings.flag("clear"):
            self._faults.clear()
        seed, slots, how = settings.whole("seed"), settings.whole("fork"), settings.text("hangUp")
        if seed is not None:
            self._faults.reseed(seed)
        added = settings.inner("add")
        if added is not None:
            rest = {key: added.raw(key) for key in added.keys - {"kind", "method"}}
            self._faults.add(added.text("kind") or "", added.text("method"), **rest)
        lost: list[str] = []
        if slots is not None:
            try:
                lost = [str(signature) for signature in self._bank.fork(slots)]
            except ValueError as error:
                raise RpcError(INVALID_PARAMS, f"sandbox_faults: {error}.") from error
        if how is not None:
            self.hang_up(polite=how != "cut")
        return {
            "seed": self._faults.seed,
            "rules": [rule.to_json() for rule in self._faults.rules],
            "injected": {f"{kind} {name}": n for (kind, name), n in self._faults.injected.items()},
            "lostTransactions": lost,
        }

    def hang_up(self, *, polite: bool = True) -> None:
        """End every WebSocket now: with a close frame, or abruptly."""
        for client in list(self._clients):
            if polite:
                client.close()
            else:
                client.cut()

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """A client's WebSocket, until it ends."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(
                status=405, text="Used HTTP Method is not allowed. POST or OPTIONS is required"
            )
        fault = self._faults.pick(CONNECT, TRANSPORT)
        if fault is not None:
            return await _spoiled(request, fault)
        websocket = web.WebSocketResponse(max_msg_size=_MAX_BODY)
        await websocket.prepare(request)
        client = _Client(websocket, request, self._faults)
        writer = asyncio.create_task(client.write())
        self._clients.add(client)
        try:
            async for message in websocket:
                if message.type is WSMsgType.TEXT:
                    self._receive(message.data, client.send)
        finally:
            self._clients.discard(client)
            self._hub.drop_client(client.send)
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
                fault = self._faults.pick(method, ANSWER)
                if fault is not None and fault.kind is not Kind.LAG:
                    raise RpcError(fault.code, fault.message)
                subscription = self._hub.subscribe(method, params, send)
                send(_result(number, subscription))
                self._hub.announce(subscription)
            elif method in UNSUBSCRIBE_METHODS:
                send(_result(number, self._hub.unsubscribe(params, send)))
            else:
                send(_result(number, self._call(method, params)))
        except RpcError as error:
            send(_error(number, error))
        except ValueError:
            send(_error(None, RpcError(PARSE_ERROR, "Parse error")))


class _Client:
    """One WebSocket: what is sent on it passes the faults."""

    def __init__(self, websocket: web.WebSocketResponse, request: web.Request, faults: Faults) -> None:
        self.websocket = websocket
        self._request = request
        self._faults = faults
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        # One object for the connection's life: the hub knows its clients by it.
        self.send: Send = self._send

    def _send(self, message: dict[str, Any]) -> None:
        name = str(message.get("method", "reply"))
        if self._faults.pick(name, MUTING) is not None:
            return
        text = json.dumps(message, separators=(",", ":"))
        fault = self._faults.pick(name, NOTIFICATION) if "method" in message else None
        match fault.kind if fault else None:
            case None:
                self._outgoing.put_nowait(text)
            case Kind.DOUBLED:
                self._outgoing.put_nowait(text)
                self._outgoing.put_nowait(text)
            case Kind.DELAYED if fault is not None:
                asyncio.get_running_loop().call_later(fault.seconds, self._outgoing.put_nowait, text)
            case Kind.CLOSED:
                self.close()
            case Kind.CUT:
                self.cut()

    def close(self) -> None:
        """Close after everything queued is sent."""
        self._outgoing.put_nowait(None)

    def cut(self) -> None:
        """End it without a close frame."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def write(self) -> None:
        """Send queued messages until the connection ends."""
        while (text := await self._outgoing.get()) is not None:
            await self.websocket.send_str(text)
        await self.websocket.close(code=1001)


async def _spoiled(request: web.Request, fault: Fault) -> web.Response:
    """What comes instead of an answer."""
    match fault.kind:
        case Kind.RATE_LIMITED:
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            return web.Response(status=429, text="Too many requests", headers=headers)
        case Kind.SERVER_ERROR:
            return web.Response(status=fault.status, text="upstream connect error")
        case Kind.HTML:
            return web.Response(text=_PAGE, content_type="text/html")
        case Kind.SILENT:
            await asyncio.sleep(fault.seconds)
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _name(body: Any) -> str | None:
    """The method that a request names; None for the sandbox's own, which are never spoiled."""
    method = body.get("method") if isinstance(body, dict) else None
    return method if isinstance(method, str) and not method.startswith("sandbox_") else None


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
    faults: Faults
    """The faults of this endpoint."""
    hang_up: Callable[..., None]
    """End every WebSocket now: `hang_up()` with a close frame, `hang_up(polite=False)` without."""


@contextlib.asynccontextmanager
async def running_chain(
    bank: Bank | None = None,
    *,
    slot_seconds: float | None = SLOT_SECONDS,
    finality: int = DEFAULT_FINALITY,
    clock: ChainClock | None = None,
    genesis: Mapping[Pubkey, Account] | None = None,
    seed: int = 0,
) -> AsyncIterator[RunningChain]:
    """A chain in this process on a free port of loopback, for as long as the context lasts.

    `finality` (slots until finalized), `clock` and `genesis` are for a bank made here; pass `bank` to bring
    one's own, also a second time for another endpoint of the same chain. `slot_seconds` None leaves slots to
    `chain.bank.tick()`. `seed` is that of the faults' chances.
    """
    bank = bank or Bank(genesis=genesis, clock=clock, finality=finality)
    faults = Faults(seed)
    endpoint = Endpoint(bank, faults)
    runner = web.AppRunner(_app(endpoint, bank, slot_seconds), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        listening = loopback_pair()
        for each in listening:
            await web.SockSite(runner, each).start()
        port = listening[0].getsockname()[1]
        url, ws_url = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        yield RunningChain(bank, url, ws_url, faults, endpoint.hang_up)
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
