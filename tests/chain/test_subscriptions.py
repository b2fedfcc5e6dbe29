"""Subscriptions over a connection that closes, breaks, falls silent and talks nonsense."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from nosana_operator.chain import DEVNET
from nosana_operator.chain.rpc.wire import AccountInfo
from nosana_operator.chain.watch import subscriptions as room
from nosana_operator.chain.watch.subscriptions import (
    AccountTarget,
    RunsTarget,
    SlotTarget,
    Subscriptions,
    Target,
)


class Node:
    """A WebSocket node that confirms what is asked, unless told otherwise."""

    def __init__(self) -> None:
        self.sockets: list[web.WebSocketResponse] = []
        self.asked: list[tuple[str, list[Any]]] = []
        self.refuse: set[str] = set()
        self.changed = asyncio.Condition()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            body = json.loads(message.data)
            self.asked.append((body["method"], body["params"]))
            if body["method"] in self.refuse:
                answer: dict[str, Any] = {"error": {"code": -32601, "message": "Method not found"}}
            else:
                answer = {"result": self.next_number()}
            await socket.send_json({"jsonrpc": "2.0", "id": body["id"], **answer})
            async with self.changed:
                self.changed.notify_all()
        return socket

    def next_number(self) -> int:
        return len(self.asked)

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]

    def number(self, method: str) -> int:
        return self.methods.index(method) + 1

    async def notify(
        self, subscription: int, slot: int, value: Any, method: str = "accountNotification"
    ) -> None:
        result = {"context": {"slot": slot}, "value": value}
        await self.sockets[-1].send_json(
            {"jsonrpc": "2.0", "method": method, "params": {"result": result, "subscription": subscription}}
        )


class Heard:
    def __init__(self) -> None:
        self.accounts: list[tuple[str, int, AccountInfo | None]] = []
        self.subscribed: list[Target] = []
        self.changed = asyncio.Event()

    def account(self, target: Target, address: str, slot: int, info: AccountInfo | None) -> None:
        self.accounts.append((address, slot, info))
        self.changed.set()

    def began(self, target: Target) -> None:
        self.subscribed.append(target)
        self.changed.set()

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.changed.clear()
                # Some of what is waited for changes without a callback.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.01)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def subscriptions(
    node: Node, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subscriptions]:
    monkeypatch.setattr(room, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(room, "_LONGEST_WAIT", 0.02)
    app = web.Application()
    app.router.add_get("/", node.handle)
    server = TestServer(app)
    await server.start_server()
    async with aiohttp.ClientSession() as session:
        made = Subscriptions([str(server.make_url("/"))], session, DEVNET.jobs, heard.account, heard.began)
        task = asyncio.create_task(made.run())
        yield made
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await server.close()


def account(lamports: int = 5, data: bytes = b"x") -> dict[str, Any]:
    return {"lamports": lamports, "owner": "O", "data": [base64.b64encode(data).decode(), "base64"]}


async def test_what_is_asked_for(node: Node, heard: Heard, subscriptions: Subscriptions) -> None:
    subscriptions.set_targets(frozenset({AccountTarget("A"), RunsTarget("N")}))
    await heard.until(lambda: len(heard.subscribed) == 3)
    asked = dict(node.asked)
    assert asked["accountSubscribe"] == ["A", {"commitment": "confirmed", "encoding": "base64"}]
    assert asked["programSubscribe"] == [
        DEVNET.jobs,
        {
            "commitment": "confirmed",
            "encoding": "base64",
            "filters": [
                {"memcmp": {"offset": 0, "bytes": "ZZTu8o6YwNM"}},
                {"memcmp": {"offset": 40, "bytes": "N"}},
            ],
        },
    ]
    assert asked["slotSubscribe"] == []
    assert set(heard.subscribed) == {AccountTarget("A"), RunsTarget("N"), SlotTarget()}


async def test_notifications(node: Node, heard: Heard, subscriptions: Subscriptions) -> None:
    subscriptions.set_targets(frozenset({AccountTarget("A"), RunsTarget("N")}))
    await heard.until(lambda: len(heard.subscribed) == 3)
    await node.notify(node.number("accountSubscribe"), 7, account())
    await node.notify(node.number("accountSubscribe"), 8, account(lamports=0, data=b""))
    await node.notify(node.number("programSubscribe"), 9, {"pubkey": "R", "account": account()})
    await node.notify(node.number("slotSubscribe"), 9, None)
    await node.notify(99, 9, account())
    await heard.until(lambda: len(heard.accounts) == 3)
    assert heard.accounts == [
        ("A", 7, AccountInfo(5, "O", b"x")),
        ("A", 8, None),
        ("R", 9, AccountInfo(5, "O", b"x")),
    ]
    assert subscriptions.connected


async def test_what_is_no_longer_wanted_is_unsubscribed(
    node: Node, heard: Heard, subscriptions: Subscriptions
) -> None:
    subscriptions.set_targets(frozenset({AccountTarget("A"), AccountTarget("B")}))
    await heard.until(lambda: len(heard.subscribed) == 3)
    number = 1 + node.asked.index(
        ("accountSubscribe", ["A", {"commitment": "confirmed", "encoding": "base64"}])
    )
    subscriptions.set_targets(frozenset({AccountTarget("B")}))
    await heard.until(lambda: "accountUnsubscribe" in node.methods)
    assert node.asked[-1] == ("accountUnsubscribe", [number])
    await node.notify(number, 9, account())
    subscriptions.set_targets(frozenset({AccountTarget("B"), AccountTarget("C")}))
    await heard.until(lambda: AccountTarget("C") in heard.subscribed)
    assert heard.accounts == []


@pytest.mark.parametrize("how", ["polite", "abrupt"])
async def test_a_closed_connection_is_made_again_with_everything(
    node: Node, heard: Heard, subscriptions: Subscriptions, how: str
) -> None:
    subscriptions.set_targets(frozenset({AccountTarget("A")}))
    await heard.until(lambda: len(heard.subscribed) == 2)
    if how == "polite":
        await node.sockets[0].close(code=1001)
    else:
        transport = node.sockets[0]._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()
    await heard.until(lambda: len(heard.subscribed) == 4)
    assert node.methods.count("accountSubscribe") == 2
    assert subscriptions.connections == 2


async def test_silence_ends_a_connection(
    node: Node, heard: Heard, subscriptions: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_SILENCE", 0.05)
    await heard.until(lambda: subscriptions.connections >= 3)
    assert len(node.sockets) >= 3


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[1, 2]",
        "{}",
        '{"params": null}',
        '{"params": {"subscription": [1], "result": {}}}',
        '{"jsonrpc":"2.0","method":"accountNotification","params":{"subscription":1,"result":{"value":null}}}',
        '{"jsonrpc":"2.0","method":"newNotification","params":{"subscription":1,"result":"?"}}',
        '{"id": 999, "result": 5}',
        pytest.param("[" * 5_000, id="nested too deep"),
    ],
)
async def test_one_odd_message_costs_nothing(
    node: Node, heard: Heard, subscriptions: Subscriptions, text: str
) -> None:
    subscriptions.set_targets(frozenset({AccountTarget("A")}))
    await heard.until(lambda: len(heard.subscribed) == 2)
    await node.sockets[0].send_str(text)
    await node.notify(node.number("accountSubscribe"), 7, account())
    await heard.until(lambda: heard.accounts)
    assert subscriptions.connections == 1


async def test_a_refused_subscription_is_not_asked_for_again_and_again(
    node: Node, heard: Heard, subscriptions: Subscriptions
) -> None:
    node.refuse.add("programSubscribe")
    subscriptions.set_targets(frozenset({RunsTarget("N")}))
    await heard.until(lambda: "programSubscribe" in node.methods)
    subscriptions.set_targets(frozenset({RunsTarget("N"), AccountTarget("A")}))
    await heard.until(lambda: AccountTarget("A") in heard.subscribed)
    assert node.methods.count("programSubscribe") == 1
    assert RunsTarget("N") not in heard.subscribed


async def test_a_node_that_numbers_two_subscriptions_alike(
    node: Node, heard: Heard, subscriptions: Subscriptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Node, "next_number", lambda self: 7)
    subscriptions.set_targets(frozenset({AccountTarget("A"), AccountTarget("B")}))
    await heard.until(lambda: {AccountTarget("A"), AccountTarget("B")} <= set(heard.subscribed))
    subscriptions.set_targets(frozenset())
    await heard.until(lambda: node.methods.count("accountUnsubscribe") == 2)
    subscriptions.set_targets(frozenset({AccountTarget("C")}))
    await heard.until(lambda: AccountTarget("C") in heard.subscribed)
    assert subscriptions.connections == 1


async def test_a_dead_address_is_tried_again(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    dialled: list[str] = []
    real, connect = asyncio.sleep, aiohttp.ClientSession.ws_connect

    def dial(self: aiohttp.ClientSession, url: str, **options: Any) -> Any:
        dialled.append(url)
        return connect(self, url, **options)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    monkeypatch.setattr("nosana_operator.chain.watch.subscriptions.asyncio.sleep", sleep)
    monkeypatch.setattr(aiohttp.ClientSession, "ws_connect", dial)
    async with aiohttp.ClientSession() as session:
        made = Subscriptions(["ws://127.0.0.1:9"], session, DEVNET.jobs, heard.account, heard.began)
        task = asyncio.create_task(made.run())
        await heard.until(lambda: len(waits) >= 6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(dialled) >= 6
    assert set(dialled) == {"ws://127.0.0.1:9"}
    assert waits[0] <= 0.5
    assert 2.5 <= waits[5] <= 5
    assert made.connected is False


async def test_a_node_that_says_nothing_is_left_for_the_next(
    node: Node, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(room, "_SILENCE", 0.05)
    mute = asyncio.Event()

    async def silent(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        mute.set()
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/mute", silent)
    app.router.add_get("/", node.handle)
    server = TestServer(app)
    await server.start_server()
    urls = [str(server.make_url("/mute")), str(server.make_url("/"))]
    now = [100.0]
    async with aiohttp.ClientSession() as session:
        made = Subscriptions(urls, session, DEVNET.jobs, heard.account, heard.began, clock=lambda: now[0])
        assert made.alive is False
        task = asyncio.create_task(made.run())
        await heard.until(lambda: SlotTarget() in heard.subscribed and made.alive)
        assert mute.is_set()
        now[0] += 3
        assert made.alive is False, "open and mute is not alive"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await server.close()
