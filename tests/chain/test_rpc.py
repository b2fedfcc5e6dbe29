"""The RPC client against a node that answers, refuses, lies about its form and falls silent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from solana.rpc.commitment import Confirmed, Finalized

from nosana_operator.backoff import Backoff
from nosana_operator.chain import (
    BlockhashNotFound,
    ChainError,
    ChainUnavailable,
    Endpoints,
    Retry,
    Rpc,
    RpcError,
    TransactionFailed,
)
from nosana_operator.chain.rpc.wire import AccountInfo, Memcmp, read_string
from support.sending import balance

SECRET_PATH = "/an-api-key"


class Node:
    """A node whose next answers are queued; without one it repeats the last."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.waits: list[float] = []
        self.seen: list[tuple[str, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        if isinstance(answer, web.Response):
            return answer
        return web.json_response({"jsonrpc": "2.0", "id": self.requests[-1]["id"], **answer})

    @property
    def params(self) -> Any:
        return self.requests[-1]["params"]


Client = Callable[..., Rpc]


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def client(node: Node) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_post(SECRET_PATH, node.handle)
    server = TestServer(app)
    await server.start_server()

    async def sleep(seconds: float) -> None:
        node.waits.append(seconds)

    async with aiohttp.ClientSession() as session:

        def make(**retry: float) -> Rpc:
            return Rpc(
                Endpoints([str(server.make_url(SECRET_PATH))], session),
                retry=Retry(**retry),  # type: ignore[arg-type]
                observer=lambda method, outcome, seconds: node.seen.append((method, outcome)),
                sleep=sleep,
            )

        yield make
    await server.close()


def slotted(value: Any, slot: int = 7) -> dict[str, Any]:
    return {"result": {"context": {"slot": slot}, "value": value}}


def error(code: int, message: str = "no", **data: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **data}}


def account(data: bytes = b"abc", lamports: int = 5) -> dict[str, Any]:
    return {
        "lamports": lamports,
        "owner": "Owner",
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
        "rentEpoch": 18446744073709551615,
    }


async def test_commitment_and_encoding_are_always_said(node: Node, client: Client) -> None:
    node.answers = [slotted(account())]
    found = await client().account("A", Finalized)
    assert found.value == AccountInfo(5, "Owner", b"abc")
    assert found.slot == 7
    assert node.params == ["A", {"commitment": "finalized", "encoding": "base64"}]


async def test_many_accounts_go_in_hundreds_and_keep_the_oldest_slot(node: Node, client: Client) -> None:
    names = [f"A{n}" for n in range(150)]
    node.answers = [
        slotted([account(b"%d" % n) for n in range(100)], slot=9),
        slotted([None] * 50, slot=8),
    ]
    found = await client().accounts(names, Confirmed)
    assert [len(r["params"][0]) for r in node.requests] == [100, 50]
    assert found.slot == 8
    assert (found.value["A42"], found.value["A149"]) == (AccountInfo(5, "Owner", b"42"), None)


async def test_program_accounts_send_filters(node: Node, client: Client) -> None:
    node.answers = [slotted([{"pubkey": "R", "account": account()}])]
    found = await client().program_accounts("P", [Memcmp(0, "ZZ"), Memcmp(40, "N")], Confirmed)
    assert [*found.value] == ["R"]
    assert node.params[1]["filters"] == [
        {"memcmp": {"offset": 0, "bytes": "ZZ"}},
        {"memcmp": {"offset": 40, "bytes": "N"}},
    ]
    assert node.params[1]["withContext"] is True


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=429),
        web.Response(status=429, text='{"jsonrpc":"2.0","error":{"code":429,"message":"Too many"},"id":1}'),
        web.Response(status=500, text="<html>"),
        web.Response(status=503),
        web.Response(status=200, text="<html>all is well</html>"),
        web.Response(status=200, text='"text"'),
        web.Response(status=200, text='{"jsonrpc":"2.0","id":1}'),
        error(-32005, "Node is unhealthy"),
        error(-32016),
        error(-32603, "Internal error"),
        {"error": {"code": -32005}},
        {"result": None},
        {"result": {"context": {}, "value": 1}},
        slotted("5"),
        slotted(True),
    ],
    ids=lambda a: str(getattr(a, "status", a)),
)
async def test_what_says_nothing_about_the_chain_is_unavailable(
    node: Node, client: Client, answer: Any
) -> None:
    raw = None if not isinstance(answer, web.Response) else (answer.status, answer.text)

    async def again(request: web.Request) -> web.Response:
        assert raw is not None
        return web.Response(status=raw[0], text=raw[1])

    node.answers = [answer if raw is None else again]
    with pytest.raises(ChainUnavailable) as raised:
        await balance(client(), "A")
    assert "an-api-key" not in str(raised.value)


async def test_transient_answers_are_retried_with_growing_random_waits(node: Node, client: Client) -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=500)

    node.answers = [busy, busy, busy, slotted(12)]
    assert await balance(client(attempts=4, backoff=Backoff(1, 3)), "A") == 12
    assert len(node.waits) == 3
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(node.waits, (1, 2, 3), strict=True))
    assert [outcome for _, outcome in node.seen] == ["unavailable"] * 3 + ["ok"]


async def test_retry_after_is_heeded_up_to_our_longest_wait(node: Node, client: Client) -> None:
    async def later(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "2"})

    async def much_later(request: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    node.answers = [later, much_later, slotted(1)]
    await balance(client(backoff=Backoff(0.1, 4)), "A")
    assert node.waits[0] == 2
    assert node.waits[1] == 4


async def test_silence_and_a_dead_port_are_unavailable(node: Node, client: Client) -> None:
    stop = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    node.answers = [hang]
    with pytest.raises(ChainUnavailable, match="no answer to getSlot in"):
        await client(attempts=1, request_timeout=0.05).slot(Confirmed)
    stop.set()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ChainUnavailable, match="cannot be reached"):
            await Rpc(Endpoints(["http://127.0.0.1:9/an-api-key"], session), retry=Retry(attempts=1)).slot(
                Confirmed
            )


async def test_a_refusal_keeps_code_and_data_and_is_not_retried(node: Node, client: Client) -> None:
    node.answers = [error(-32602, "Invalid param", data={"x": 1})]
    with pytest.raises(RpcError, match="Invalid param") as raised:
        await client().slot(Confirmed)
    assert (raised.value.code, raised.value.data) == (-32602, {"x": 1})
    assert len(node.requests) == 1
    assert node.seen == [("getSlot", "refused")]


async def test_preflight_is_asked_for_explicitly(node: Node, client: Client) -> None:
    node.answers = [{"result": "sig"}]
    assert await client().send(b"raw", preflight=True) == "sig"
    assert node.params == [
        base64.b64encode(b"raw").decode(),
        {"encoding": "base64", "skipPreflight": False, "preflightCommitment": "confirmed"},
    ]
    await client().send(b"raw", preflight=False)
    assert node.params[1]["skipPreflight"] is True


@pytest.mark.parametrize(
    "answer",
    [
        error(-32002, "Transaction simulation failed: This transaction has already been processed"),
        error(-32002, "Transaction simulation failed: x", data={"err": "AlreadyProcessed", "logs": []}),
    ],
    ids=["without data", "with data"],
)
async def test_already_processed_counts_as_sent(node: Node, client: Client, answer: dict[str, Any]) -> None:
    node.answers = [answer]
    assert await client().send(b"raw", preflight=True) == ""


async def test_a_failed_preflight_keeps_anchors_name(node: Node, client: Client) -> None:
    logs = ["Program log: AnchorError. Error Code: NotInMarketQueue. Error Number: 6002. Error Message: x"]
    data = {"err": {"InstructionError": [1, {"Custom": 6002}]}, "logs": logs, "unitsConsumed": 3}
    node.answers = [error(-32002, "Transaction simulation failed: custom program error: 0x1772", data=data)]
    with pytest.raises(TransactionFailed) as raised:
        await client().send(b"raw", preflight=True)
    assert (raised.value.name, raised.value.number, raised.value.instruction) == ("NotInMarketQueue", 6002, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(-32002, "failed", data={"err": "BlockhashNotFound"}), BlockhashNotFound),
        (error(-32002, "Transaction simulation failed: Blockhash not found"), BlockhashNotFound),
        # The typed parsers of solders panic on these.
        (error(-32002, "Transaction simulation failed"), RpcError),
        (error(-32002, "Transaction simulation failed", data=None), RpcError),
        (error(-32003, "Transaction signature verification failure"), RpcError),
    ],
)
async def test_other_send_errors(
    node: Node, client: Client, answer: dict[str, Any], kind: type[BlockhashNotFound | RpcError]
) -> None:
    node.answers = [answer]
    with pytest.raises(kind):
        await client().send(b"raw", preflight=True)


async def test_statuses(node: Node, client: Client) -> None:
    entry = {"slot": 5, "confirmations": 2, "err": None, "confirmationStatus": "confirmed"}
    rooted = {"slot": 4, "confirmations": None, "err": {"InstructionError": [0, {"Custom": 1}]}}
    node.answers = [slotted([entry, rooted, None])]
    found = (await client().signature_statuses(["a", "b", "c"])).value
    assert node.params[1] == {"searchTransactionHistory": True}
    assert found[0] is not None
    assert found[1] is not None
    assert (found[0].commitment, found[0].err) == ("confirmed", None)
    assert (found[1].commitment, found[1].err) == ("finalized", rooted["err"])
    assert found[2] is None


async def test_the_other_readings(node: Node, client: Client) -> None:
    rpc = client()
    node.answers = [slotted({"blockhash": "H", "lastValidBlockHeight": 9})]
    assert (await rpc.latest_blockhash(Confirmed)).last_valid_block_height == 9
    node.answers = [{"result": {"absoluteSlot": 10, "blockHeight": 8, "epoch": 0}}]
    info = await rpc.epoch_info(Finalized)
    assert (info.slot, info.block_height) == (10, 8)
    node.answers = [{"result": 11}]
    assert await rpc.slot(Confirmed) == 11
    node.answers = [{"result": None}]
    assert await rpc.transaction_logs("s", Confirmed) == ()
    node.answers = [{"result": {"meta": {"logMessages": ["a", "b"]}}}]
    assert await rpc.transaction_logs("s", Confirmed) == ("a", "b")
    node.answers = [{"result": [{"slot": 1, "prioritizationFee": 0}, {"slot": 2, "prioritizationFee": 70}]}]
    assert await rpc.recent_priority_fees(["A"]) == [0, 70]
    node.answers = [slotted({"err": None, "logs": ["l"], "unitsConsumed": 450})]
    simulation = await rpc.simulate(b"raw", Confirmed)
    assert (simulation.err, simulation.logs, simulation.units_consumed) == (None, ("l",), 450)


async def test_an_answer_larger_than_a_node_gives_is_cut_off(
    node: Node, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_operator.chain.rpc.endpoints._MAX_BODY", 1000)
    node.answers = [{"result": "x" * 2000}]
    with pytest.raises(ChainUnavailable):
        await client(attempts=1).call("getVersion", [], read_string)


WORDS = [
    "context",
    "slot",
    "value",
    "data",
    "err",
    "owner",
    "lamports",
    "code",
    "message",
    "account",
    "pubkey",
    "blockhash",
    "meta",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)


class Parrot:
    """A session in which every request is answered with the same bytes."""

    def __init__(self, body: bytes) -> None:
        self.status, self.content, self._body = 200, self, body
        self.headers: dict[str, str] = {}

    def post(self, *_: Any, **__: Any) -> Parrot:
        return self

    async def __aenter__(self) -> Parrot:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


@settings(max_examples=300, deadline=None)
@given(
    answer=json_values
    | st.builds(lambda value: {"context": {"slot": 7}, "value": value}, json_values)
    | st.lists(json_values, min_size=1, max_size=2).map(lambda v: {"context": {"slot": 7}, "value": v}),
    member=st.sampled_from(["result", "error"]),
)
async def test_whatever_a_node_says_is_an_answer_or_an_error_of_ours(answer: Any, member: str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, member: answer}).encode()
    rpc = Rpc(Endpoints(["http://node"], cast(aiohttp.ClientSession, Parrot(body))), retry=Retry(attempts=1))
    for ask in (
        lambda: rpc.account("A", Confirmed),
        lambda: rpc.accounts(["A", "B"], Confirmed),
        lambda: rpc.program_accounts("P", [], Confirmed),
        lambda: rpc.token_accounts("A", Confirmed),
        lambda: rpc.latest_blockhash(Confirmed),
        lambda: rpc.signature_statuses(["S"]),
        lambda: rpc.signatures_of("A", Confirmed),
        lambda: rpc.transaction("S", Confirmed),
        lambda: rpc.transaction_logs("S", Confirmed),
        lambda: rpc.send(b"x", preflight=True),
        lambda: rpc.send(b"x", preflight=False),
        lambda: rpc.simulate(b"x", Confirmed),
        lambda: rpc.recent_priority_fees([]),
        lambda: rpc.epoch_info(Confirmed),
    ):
        with contextlib.suppress(ChainError):
            await ask()
