"""Each fault as a client meets it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from solders.keypair import Keypair

from nosana_sandbox.chain import Commitment, Faults, RunningChain, running_chain
from nosana_sandbox.chain.errors import RpcError
from nosana_sandbox.program.layout import Run
from nosana_sandbox.world.genesis import Founded
from support.transactions import SOL, pay, post, rpc, signed, work

pytestmark = pytest.mark.contract


async def raw(url: str, method: str, *params: Any) -> tuple[int, dict[str, str], str]:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return response.status, dict(response.headers), await response.text()


async def test_answers_that_are_none(chain: RunningChain) -> None:
    chain.faults.add("rate-limited", "getSlot", times=1, retry_after=2)
    chain.faults.add("rate-limited", "getSlot", times=1)
    chain.faults.add("server-error", "getSlot", times=1, status=502)
    chain.faults.add("html", "getSlot", times=1)
    status, headers, _ = await raw(chain.url, "getSlot")
    assert (status, headers["Retry-After"]) == (429, "2")
    status, headers, _ = await raw(chain.url, "getSlot")
    assert (status, "Retry-After" in headers) == (429, False)
    assert (await raw(chain.url, "getSlot"))[0] == 502
    status, headers, text = await raw(chain.url, "getSlot")
    assert (status, text[:9]) == (200, "<!DOCTYPE")
    assert (await raw(chain.url, "getSlot"))[0] == 200
    assert chain.faults.rules == ()
    assert chain.faults.count("rate-limited") == 2
    assert chain.faults.count("html", "getBalance") == 0


@pytest.mark.parametrize(("kind", "options"), [("cut", {}), ("silent", {"seconds": 0.05})])
async def test_a_connection_that_ends_without_an_answer(
    chain: RunningChain, kind: str, options: dict[str, float]
) -> None:
    chain.faults.add(kind, "getSlot", times=1, **options)
    with pytest.raises(aiohttp.ClientError):
        await raw(chain.url, "getSlot")
    assert (await raw(chain.url, "getSlot"))[0] == 200


async def test_errors_without_data(chain: RunningChain) -> None:
    chain.faults.add("error", "getSlot", code=-32002, message="no", times=1)
    assert (await rpc(chain.url, "getSlot"))["error"] == {"code": -32002, "message": "no"}
    chain.faults.add("refused")
    assert (await rpc(chain.url, "getProgramAccounts", "x"))["error"]["code"] == 410
    chain.faults.clear()
    assert "result" in await rpc(chain.url, "getSlot")


async def test_a_node_that_lags_shows_the_past(chain: RunningChain, founded: Founded) -> None:
    to = Keypair().pubkey()
    founded.submit([pay(founded.poster, to, SOL)], founded.poster)
    founded.bank.tick(10)
    now = (await rpc(chain.url, "getBalance", str(to)))["result"]
    chain.faults.add("lag", slots=11, times=4)
    past = (await rpc(chain.url, "getBalance", str(to)))["result"]
    assert (now["value"], past["value"]) == (SOL, 0)
    assert now["context"]["slot"] - past["context"]["slot"] == 11
    ahead = {"commitment": "confirmed", "minContextSlot": founded.bank.slot}
    assert (await rpc(chain.url, "getBalance", str(to), ahead))["error"]["code"] == -32016
    old = (await rpc(chain.url, "getLatestBlockhash"))["result"]["value"]
    slot = (await rpc(chain.url, "getSlot", {"commitment": "processed"}))["result"]
    assert slot < founded.bank.slot
    assert old["lastValidBlockHeight"] < founded.bank.blockhash_at(Commitment.FINALIZED)[1]


async def test_a_node_that_lags_does_not_know_what_landed_since(
    chain: RunningChain, founded: Founded
) -> None:
    to = Keypair().pubkey()
    founded.bank.tick(20)
    for lamports in (SOL, 2 * SOL, 3 * SOL):
        founded.submit([pay(founded.poster, to, lamports)], founded.poster)
        founded.bank.tick(2)
    first, second, third = sent = [str(landed.signature) for landed in founded.bank.history_of(to)]

    async def statuses(**config: bool) -> list[Any]:
        reply = (await rpc(chain.url, "getSignatureStatuses", sent, config))["result"]
        assert all(one is None or one["slot"] <= reply["context"]["slot"] for one in reply["value"])
        return [one and (one["confirmationStatus"], one["confirmations"]) for one in reply["value"]]

    async def history(**config: Any) -> list[str]:
        reply = await rpc(
            chain.url, "getSignaturesForAddress", str(to), {"commitment": "confirmed", **config}
        )
        return [one["signature"] for one in reply["result"]]

    assert await statuses() == [("finalized", None), ("finalized", None), ("confirmed", 2)]
    assert await history() == [third, second, first]
    assert await history(until=first) == [third, second]
    assert await history(before=third) == [second, first]
    # It is in the slot of the second, two slots after the first.
    chain.faults.add("lag", slots=4)
    for known in (True, False):
        assert await statuses(searchTransactionHistory=known) == [("confirmed", 2), ("processed", 0), None]
    assert await history() == [first]
    assert await history(until=first) == []
    assert await history(until=third) == [first], "what it does not know cannot end the list"
    assert await history(before=third) == []


async def test_a_transaction_that_vanishes_and_one_that_comes_late(
    chain: RunningChain, founded: Founded
) -> None:
    to = Keypair().pubkey()
    transaction = signed(founded.bank, [pay(founded.poster, to, SOL)], founded.poster)
    sent = base64.b64encode(bytes(transaction)).decode()
    config = {"encoding": "base64", "preflightCommitment": "confirmed"}
    chain.faults.add("vanish", times=1)
    chain.faults.add("late", times=1, slots=5)
    for _ in range(2):
        reply = await rpc(chain.url, "sendTransaction", sent, config)
        assert reply["result"] == str(transaction.signatures[0])
    founded.bank.tick(4)
    assert founded.bank.account(to) is None
    founded.bank.tick()
    assert founded.bank.account(to) is not None


async def test_a_fork_takes_back_what_was_confirmed(chain: RunningChain, founded: Founded) -> None:
    bank, stand, job, run = founded.bank, Keypair(), Keypair(), Keypair()
    founded.submit([work(founded, stand)], founded.host, stand)
    bank.tick(bank.finality + 1)
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    bank.tick()
    assert bank.account(run.pubkey(), Commitment.CONFIRMED) is not None
    hash_before, _ = bank.blockhash_at(Commitment.CONFIRMED)
    reply = (await rpc(chain.url, "sandbox_faults", {"fork": 2}))["result"]
    assert len(reply["lostTransactions"]) == 1
    for commitment in Commitment:
        assert bank.account(run.pubkey(), commitment) is None
        assert bank.account(job.pubkey(), commitment) is None
    assert not bank.blockhash_valid(hash_before, Commitment.CONFIRMED)
    statuses = await rpc(chain.url, "getSignatureStatuses", reply["lostTransactions"])
    assert statuses["result"]["value"] == [None]
    bank.tick()
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    account = bank.account(run.pubkey())
    assert account is not None
    assert Run.decode(account.data).node == founded.host.pubkey()
    with pytest.raises(ValueError, match="finalized"):
        bank.fork(bank.finality + 1)


class Listener:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def ask(self, method: str, *params: Any) -> Any:
        await self.socket.send_json({"jsonrpc": "2.0", "id": 9, "method": method, "params": list(params)})
        while (body := await self.socket.receive_json(timeout=5)).get("id") != 9:
            pass
        return body

    async def slot(self, seconds: float = 5) -> int:
        body = await self.socket.receive_json(timeout=seconds)
        result: int = body["params"]["result"]["slot"]
        return result


@pytest.fixture
async def listener(chain: RunningChain) -> AsyncIterator[Listener]:
    async with aiohttp.ClientSession() as session, session.ws_connect(chain.ws_url) as socket:
        made = Listener(socket)
        await made.ask("slotSubscribe")
        yield made


async def test_notifications_lost_doubled_late(chain: RunningChain, listener: Listener) -> None:
    bank = chain.bank
    chain.faults.add("lost", times=1)
    bank.tick(2)
    assert await listener.slot() == bank.slot
    chain.faults.add("doubled", times=1)
    bank.tick()
    assert (await listener.slot(), await listener.slot()) == (bank.slot, bank.slot)
    chain.faults.add("delayed", times=1, seconds=0.05)
    bank.tick(2)
    assert (await listener.slot(), await listener.slot()) == (bank.slot, bank.slot - 1)


async def test_a_websocket_that_is_mute_stays_open(chain: RunningChain, listener: Listener) -> None:
    chain.faults.add("mute")
    chain.bank.tick()
    await listener.socket.ping()
    with pytest.raises(TimeoutError):
        await listener.slot(seconds=0.05)
    chain.faults.clear()
    chain.bank.tick()
    assert await listener.slot() == chain.bank.slot


@pytest.mark.parametrize(("polite", "code"), [(True, 1001), (False, 1006)])
async def test_a_websocket_that_ends(
    chain: RunningChain, listener: Listener, polite: bool, code: int
) -> None:
    chain.hang_up(polite=polite)
    message = await listener.socket.receive(timeout=5)
    assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
    assert listener.socket.close_code == code


@pytest.mark.parametrize("kind", ["closed", "cut"])
async def test_a_websocket_that_ends_with_a_notification(
    chain: RunningChain, listener: Listener, kind: str
) -> None:
    chain.faults.add(kind, "slotNotification", skip=1)
    chain.bank.tick(2)
    if kind == "closed":
        assert await listener.slot() == chain.bank.slot - 1
    assert (await listener.socket.receive(timeout=5)).type is not aiohttp.WSMsgType.TEXT


async def test_a_websocket_that_is_not_opened(chain: RunningChain) -> None:
    chain.faults.add("server-error", "connect", times=1)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(chain.ws_url)
        async with session.ws_connect(chain.ws_url):
            pass


async def test_two_endpoints_of_one_chain_fail_apart(chain: RunningChain) -> None:
    async with running_chain(chain.bank, slot_seconds=None) as other:
        other.faults.add("server-error", "getSlot")
        assert (await raw(chain.url, "getSlot"))[0] == 200
        assert (await raw(other.url, "getSlot"))[0] == 503


def test_chances_repeat_with_their_seed() -> None:
    def hits(seed: int) -> list[bool]:
        faults = Faults(seed)
        faults.add("html", "getSlot", chance=0.5)
        return [faults.pick("getSlot", {"html"}) is not None for _ in range(50)]  # type: ignore[arg-type]

    assert hits(7) == hits(7) != hits(8)
    assert 10 < sum(hits(7)) < 40


async def test_rules_come_by_rpc_and_never_lock_it_out(chain: RunningChain) -> None:
    rule = {"kind": "server-error", "method": "*", "times": 9}
    reply = (await rpc(chain.url, "sandbox_faults", {"add": rule, "seed": 5}))["result"]
    assert (reply["seed"], reply["rules"][0]["kind"]) == (5, "server-error")
    assert (await raw(chain.url, "getSlot"))[0] == 503
    assert (await rpc(chain.url, "sandbox_faults"))["result"]["injected"] == {"server-error getSlot": 1}
    assert (await rpc(chain.url, "sandbox_faults", {"clear": True}))["result"]["rules"] == []
    assert (await raw(chain.url, "getSlot"))[0] == 200


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"add": {"kind": "sunny"}}, "unknown kind 'sunny'"),
        ({"add": {"kind": "html", "tims": 3}}, "unknown field 'tims'"),
        ({"add": {"kind": "html", "times": "3"}}, "times has another type"),
        ({"fork": 99}, "are finalized"),
        ({"add": 3}, "configuration object"),
        ({"spoil": True}, "does not know spoil"),
    ],
)
async def test_a_mistake_is_named(chain: RunningChain, told: dict[str, Any], said: str) -> None:
    reply = await rpc(chain.url, "sandbox_faults", told)
    assert said in reply["error"]["message"]
    assert reply["error"]["code"] == -32602


def test_a_mistake_in_a_test_is_named_too() -> None:
    with pytest.raises(RpcError, match="unknown kind"):
        Faults().add("sunny")


async def test_a_mute_connection_does_not_hang_the_others(chain: RunningChain) -> None:
    chain.faults.add("silent", "getSlot", times=1, seconds=30)
    slow = asyncio.create_task(raw(chain.url, "getSlot"))
    assert (await raw(chain.url, "getBlockHeight"))[0] == 200
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
