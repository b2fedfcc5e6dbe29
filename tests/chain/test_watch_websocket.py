"""A WebSocket that stands and does not tell all: its node refuses, forgets, or hangs up. Time is simulated."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from nosana_operator.chain import JobState
from nosana_sandbox.chain import Bank, DirectSession
from nosana_sandbox.program.layout import STATE_DONE, Job
from support.watched_chain import SLOT, Scene, account, simulate

ACCOUNTS = ("accountSubscribe", "programSubscribe")


class Socket:
    """Confirms subscriptions and tells of slots, of nothing else.

    `refuse`, `forget`: methods that it answers with an error, or not at all. It hangs up when it is asked for
    more than `most`, and after so many `seconds`.
    """

    close_code = 1008

    def __init__(
        self,
        *,
        refuse: Collection[str] = (),
        forget: Collection[str] = (),
        most: int = 100_000,
        seconds: float = 1e9,
    ) -> None:
        self._refuse, self._forget, self._most = refuse, forget, most
        self._ends = asyncio.get_running_loop().time() + seconds
        self._count = 0
        self._said: asyncio.Queue[SimpleNamespace] = asyncio.Queue()
        self._slots: asyncio.Task[None] | None = None

    async def send_json(self, body: dict[str, Any]) -> None:
        method, answer = body["method"], {"jsonrpc": "2.0", "id": body["id"]}
        if method in self._forget:
            return
        if method in self._refuse:
            self._say(answer | {"error": {"code": -32602, "message": "too many subscriptions"}})
            return
        self._count += 1
        if self._count > self._most:
            self._hang_up()
            return
        self._say(answer | {"result": self._count})
        if method == "slotSubscribe":
            self._slots = asyncio.create_task(self._tell_slots(self._count))

    async def _tell_slots(self, subscription: int) -> None:
        while asyncio.get_running_loop().time() < self._ends:
            await asyncio.sleep(SLOT)
            params = {"result": {"slot": 1}, "subscription": subscription}
            self._say({"jsonrpc": "2.0", "method": "slotNotification", "params": params})
        self._hang_up()

    def _hang_up(self) -> None:
        self._said.put_nowait(SimpleNamespace(type=aiohttp.WSMsgType.CLOSED, data=None))

    def _say(self, body: dict[str, Any]) -> None:
        self._said.put_nowait(SimpleNamespace(type=aiohttp.WSMsgType.TEXT, data=json.dumps(body)))

    async def receive(self) -> SimpleNamespace:
        return await self._said.get()

    async def close(self) -> None:
        if self._slots is not None:
            self._slots.cancel()


class Session(DirectSession):
    """HTTP as ever, and WebSockets as made."""

    def __init__(self, make: Callable[[], Socket], bank: Bank) -> None:
        super().__init__(bank, seconds=0.05)
        self._make = make
        self.connections = 0

    async def ws_connect(self, url: str, **options: Any) -> Socket:
        await asyncio.sleep(0.05)
        self.connections += 1
        return self._make()


def run(program: Any, make: Callable[[], Socket], **world: Any) -> Any:
    return simulate(program, session=partial(Session, make), **world)


async def latest_end(scene: Scene) -> float:
    """Seconds after which the last of 20 owners' `end` was seen, one after the other."""
    await asyncio.sleep(30)
    assert scene.watcher.alive
    bank, chance, late = scene.founded.bank, random.Random(3), []
    for job in [run.job for run in scene.runs.values()][:20]:
        await asyncio.sleep(chance.uniform(0, 20))
        held = bank.account(job)
        assert held is not None
        bank.place(job, account(replace(Job.decode(held.data), state=STATE_DONE)))

        def seen(job: Any = job) -> bool:
            value = scene.watcher.jobs[str(job)].value
            return value is not None and value.state is JobState.DONE

        late.append(await scene.until(seen))
    return max(late)


@pytest.mark.parametrize("how", ["refuse", "forget"])
def test_accounts_that_the_websocket_does_not_tell_of_are_read_as_without_one(how: str) -> None:
    given: dict[str, Any] = {how: ACCOUNTS}
    socket: Any = partial(Socket, **given)
    assert run(latest_end, socket, jobs=50) <= 10


def test_what_tells_of_all_accounts_saves_readings() -> None:
    """Where runs cannot be followed by their host, their own accounts still can."""

    async def program(scene: Scene) -> float:
        await asyncio.sleep(30)
        before = scene.session.requests
        await asyncio.sleep(300)
        return (scene.session.requests - before) / 300

    socket = partial(Socket, refuse=["programSubscribe"])
    assert run(program, socket, jobs=50) < 1 / 6 + 1 / 20 + 1 / 60
    assert run(program, partial(Socket, refuse=ACCOUNTS), jobs=50) > 1 / 6 + 1 / 10


def test_a_node_that_hangs_up_at_its_limit_is_hardly_asked_again() -> None:
    async def program(scene: Scene) -> tuple[float, float]:
        session = scene.session
        assert isinstance(session, Session)
        await asyncio.sleep(900)
        requests, connections = session.requests, session.connections
        await asyncio.sleep(1800)
        return (session.requests - requests) / 1800, (session.connections - connections) / 1800

    with_limit, connections = run(program, partial(Socket, most=900), hosts=8, jobs=500)
    without, _ = run(program, partial(Socket, refuse=ACCOUNTS), hosts=8, jobs=500)
    assert connections <= 1 / 150
    assert with_limit <= without + 0.15, "each connection has everything read once"


@pytest.mark.parametrize(("lives", "least", "most"), [(40, 17, 20), (20, 5, 12)])
def test_only_a_connection_that_lasted_is_made_again_at_once(lives: float, least: int, most: int) -> None:
    async def program(scene: Scene) -> int:
        await asyncio.sleep(800)
        assert isinstance(scene.session, Session)
        return scene.session.connections

    assert least <= run(program, partial(Socket, seconds=lives)) <= most
