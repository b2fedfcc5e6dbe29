"""Who is told of what over WebSocket, at which commitment."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from solana.rpc.commitment import Confirmed, Finalized
from solana.rpc.types import MemcmpOpts
from solana.rpc.websocket_api import connect
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions

from nosana_sandbox.chain import RunningChain
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.world.genesis import Founded
from support.transactions import SOL, finish, pay, post, signed, wire, work

pytestmark = pytest.mark.contract


class Listener:
    """A raw WebSocket client: what arrives is exactly what was sent."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._next = 0

    async def ask(self, method: str, *params: Any) -> Any:
        self._next += 1
        await self.socket.send_json(
            {"jsonrpc": "2.0", "id": self._next, "method": method, "params": list(params)}
        )
        reply = await self.hear()
        assert reply["id"] == self._next
        return reply.get("result", reply.get("error"))

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            message: dict[str, Any] = await self.socket.receive_json()
        return message

    async def silent(self) -> None:
        """Nothing was queued before this question's answer."""
        assert isinstance(await self.ask("getSlot"), int)


@pytest.fixture
async def listener(chain: RunningChain) -> AsyncIterator[Listener]:
    async with aiohttp.ClientSession() as session, session.ws_connect(chain.ws_url) as socket:
        yield Listener(socket)


async def test_an_account_is_told_at_its_commitment(listener: Listener, founded: Founded) -> None:
    to = Keypair().pubkey()
    number = await listener.ask(
        "accountSubscribe", str(to), {"encoding": "base64", "commitment": "confirmed"}
    )
    founded.submit([pay(founded.poster, to, SOL)], founded.poster)
    slot = founded.bank.slot
    await listener.silent()
    founded.bank.tick()
    told = await listener.hear()
    assert told["method"] == "accountNotification"
    assert told["params"]["subscription"] == number
    assert told["params"]["result"]["context"]["slot"] == slot
    assert told["params"]["result"]["value"]["lamports"] == SOL
    founded.bank.tick(5)
    await listener.silent()


async def test_two_changes_in_one_slot_are_one_notification(listener: Listener, founded: Founded) -> None:
    to = Keypair().pubkey()
    await listener.ask("accountSubscribe", str(to), {"encoding": "base64", "commitment": "finalized"})
    founded.submit([pay(founded.poster, to, SOL)], founded.poster)
    founded.submit([pay(founded.poster, to, 2 * SOL)], founded.poster)
    founded.bank.tick(2)
    await listener.silent()
    founded.bank.tick()
    assert (await listener.hear())["params"]["result"]["value"]["lamports"] == 3 * SOL
    await listener.silent()


async def test_a_closed_account_is_told_to_its_own_subscribers_only(
    listener: Listener, founded: Founded
) -> None:
    job, run, stand = Keypair(), Keypair(), Keypair()
    founded.submit([work(founded, stand)], founded.host, stand)
    config = {"encoding": "base64", "commitment": "processed"}
    by_program = await listener.ask("programSubscribe", str(JOBS_PROGRAM), {**config, "filters": RUNS})
    by_account = await listener.ask("accountSubscribe", str(run.pubkey()), config)
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    created = [await listener.hear(), await listener.hear()]
    assert {each["params"]["subscription"] for each in created} == {by_program, by_account}
    founded.submit([finish(founded, job.pubkey(), run.pubkey())], founded.host)
    closed = await listener.hear()
    assert closed["params"]["subscription"] == by_account
    value = closed["params"]["result"]["value"]
    assert (value["lamports"], value["owner"], value["data"][0]) == (0, str(Pubkey.default()), "")
    await listener.silent()


RUNS = [{"memcmp": {"offset": 0, "bytes": "ZZTu8o6YwNM"}}]


async def test_program_filters_hold_for_what_the_account_is_now(listener: Listener, founded: Founded) -> None:
    host, stranger = founded.host.pubkey(), Keypair().pubkey()
    config = {"encoding": "base64", "commitment": "confirmed"}
    for node in (host, stranger):
        filters = [*RUNS, {"memcmp": {"offset": 40, "bytes": str(node)}}]
        await listener.ask("programSubscribe", str(JOBS_PROGRAM), {**config, "filters": filters})
    stand, job, run = Keypair(), Keypair(), Keypair()
    founded.submit([work(founded, stand)], founded.host, stand)
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    founded.bank.tick()
    told = await listener.hear()
    assert told["params"]["subscription"] == 1
    assert told["params"]["result"]["value"]["pubkey"] == str(run.pubkey())
    data = base64.b64decode(told["params"]["result"]["value"]["account"]["data"][0])
    assert data[40:72] == bytes(host)
    await listener.silent()


async def test_a_signature_is_told_once(listener: Listener, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    signature = str(transaction.signatures[0])
    for commitment in ("finalized", "confirmed"):
        await listener.ask("signatureSubscribe", signature, {"commitment": commitment})
    founded.bank.submit(wire(transaction))
    await listener.silent()
    founded.bank.tick()
    told = await listener.hear()
    assert told["params"] == {
        "subscription": 2,
        "result": {
            "context": {"apiVersion": "3.1.10", "slot": founded.bank.slot - 1},
            "value": {"err": None},
        },
    }
    founded.bank.tick(10)
    assert (await listener.hear())["params"]["subscription"] == 1
    await listener.silent()
    # One that is there already is told at once.
    await listener.ask("signatureSubscribe", signature, {"commitment": "finalized"})
    assert (await listener.hear())["params"]["result"]["value"] == {"err": None}


async def test_a_failed_signature_says_why(listener: Listener, founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), 10**9 * SOL)], founded.poster)
    await listener.ask("signatureSubscribe", str(transaction.signatures[0]), {"commitment": "processed"})
    founded.bank.submit(wire(transaction))
    assert (await listener.hear())["params"]["result"]["value"] == {
        "err": {"InstructionError": [0, {"Custom": 1}]}
    }


async def test_logs_of_those_who_mention(listener: Listener, founded: Founded) -> None:
    await listener.ask("logsSubscribe", {"mentions": [str(founded.market)]}, {"commitment": "confirmed"})
    founded.submit([pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    job, run = Keypair(), Keypair()
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    founded.bank.tick()
    value = (await listener.hear())["params"]["result"]["value"]
    assert "Program log: Instruction: List" in value["logs"]
    await listener.silent()
    assert (await listener.ask("logsSubscribe", {"mentions": []}))["code"] == -32602


async def test_slots_are_told_and_unsubscribed(listener: Listener, founded: Founded) -> None:
    number = await listener.ask("slotSubscribe")
    founded.bank.tick()
    slot = founded.bank.slot
    told = await listener.hear()
    assert told["method"] == "slotNotification"
    assert told["params"]["result"] == {"parent": slot - 1, "root": slot - 3, "slot": slot}
    assert await listener.ask("slotUnsubscribe", number) is True
    founded.bank.tick()
    await listener.silent()
    assert (await listener.ask("slotUnsubscribe", number))["code"] == -32602


async def test_placed_accounts_are_told_too(listener: Listener, founded: Founded) -> None:
    key = Keypair().pubkey()
    await listener.ask("accountSubscribe", str(key), {"encoding": "base64", "commitment": "processed"})
    founded.bank.place(key, Account(5_000_000, Pubkey.default()))
    assert (await listener.hear())["params"]["result"]["value"]["lamports"] == 5_000_000


async def test_solana_py_subscribes(chain: RunningChain, founded: Founded) -> None:
    to, job, run = Keypair().pubkey(), Keypair(), Keypair()
    async with connect(chain.ws_url) as socket:
        await socket.account_subscribe(to, Confirmed, "base64")
        await socket.program_subscribe(
            JOBS_PROGRAM, Confirmed, "base64", filters=[MemcmpOpts(0, "GESmduEEyPE")]
        )
        await socket.logs_subscribe(RpcTransactionLogsFilterMentions(founded.market), Confirmed)
        await socket.slot_subscribe()
        transaction = signed(founded.bank, [post(founded, job, run)], founded.poster, job, run)
        await socket.signature_subscribe(transaction.signatures[0], Finalized)
        numbers: list[Any] = [(await socket.recv())[0].result for _ in range(5)]
        founded.bank.submit(wire(transaction))
        founded.submit([pay(founded.poster, to, SOL)], founded.poster)
        founded.bank.tick(3)
        told: list[Any] = [(await socket.recv())[0] for _ in range(7)]
        subscriptions: list[int] = [each.subscription for each in told]
        assert sorted(subscriptions) == sorted([*numbers[:3], *[numbers[3]] * 3, numbers[4]])


async def test_the_next_port_answers_too(chain: RunningChain) -> None:
    """Clients that are given the HTTP address alone add one to its port."""
    port = int(chain.url.rsplit(":", 1)[1])
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{port + 1}") as socket:
        assert isinstance(await Listener(socket).ask("getSlot"), int)
