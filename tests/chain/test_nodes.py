"""Several nodes of one network, some of which lag, refuse, or make no sense. Time is simulated."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, cast

import aiohttp
import pytest
from solana.rpc.commitment import Confirmed, Finalized
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from fakes.virtual_time import run_virtually
from nosana_operator.backoff import Backoff
from nosana_operator.chain import (
    DEVNET,
    ChainClient,
    ChainUnavailable,
    Endpoints,
    Health,
    MethodRefused,
    Network,
    OutcomeState,
    Retry,
    Rpc,
    RpcError,
)
from nosana_operator.chain.watch.newest_slot import NewestSlot
from nosana_sandbox.chain import DirectSession
from nosana_sandbox.program.layout import Job, Run
from nosana_sandbox.world.genesis import found
from support.sending import balance
from support.watched_chain import Scene, account, simulate

LISTING = "getProgramAccounts"


class Says:
    """A node that answers each method the same, or these methods only and the others as `otherwise`."""

    def __init__(
        self,
        said: Any,
        status: int = 200,
        *,
        to: Collection[str] | None = None,
        otherwise: DirectSession | None = None,
    ) -> None:
        self._body = (
            said if isinstance(said, bytes) else json.dumps({"jsonrpc": "2.0", "id": 1, **said}).encode()
        )
        self.status = status
        self.headers: Mapping[str, str] = {}
        self.content = self
        self._to, self._otherwise = to, otherwise

    def post(self, url: str, *, json: Any, **options: Any) -> Any:
        if self._otherwise is not None and self._to is not None and json["method"] not in self._to:
            return self._otherwise.post(url, json=json, **options)
        return self

    async def __aenter__(self) -> Says:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


class Nodes:
    """A session over nodes by their URLs; `asked` is (URL, method)."""

    def __init__(self, nodes: Mapping[str, Says | DirectSession]) -> None:
        self.nodes = nodes
        self.asked: list[tuple[str, str]] = []

    def post(self, url: str, *, json: Any, **options: Any) -> Any:
        self.asked.append((url, json["method"]))
        return self.nodes[url].post(url, json=json, **options)


def rpc_over(nodes: Mapping[str, Says | DirectSession], **retry: Any) -> tuple[Rpc, Endpoints, Nodes]:
    async def sleep(seconds: float) -> None:
        """No waits."""

    session = Nodes(nodes)
    endpoints = Endpoints([*nodes], cast(aiohttp.ClientSession, session))
    return Rpc(endpoints, retry=Retry(**retry), sleep=sleep), endpoints, session


def error(code: int, message: str = "no") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


# Nodes that lag


class Two:
    """A chain on which a run began a minute ago, a good node, and one that is 250 slots behind."""

    def __init__(self) -> None:
        self.founded = found(finality=4)
        bank = self.founded.bank
        bank.tick(300)
        self.job, self.run = Keypair().pubkey(), Keypair().pubkey()
        host = self.founded.host.pubkey()
        bank.place(self.job, account(Job(market=self.founded.market, timeout=3600)))
        bank.place(self.run, account(Run(job=self.job, node=host, payer=host, time=int(bank.unix_time))))
        bank.tick(150)
        self.good, self.late = DirectSession(bank), DirectSession(bank)
        self.late.faults.add("lag", slots=250)
        session = Nodes({"http://good": self.good, "http://late": self.late})
        self.client = ChainClient(
            Network(tuple(session.nodes), (), DEVNET),
            cast(Any, session),
            retry=Retry(backoff=Backoff(0.1, 4)),
        )

    async def watch(self) -> None:
        """Let the watcher see the market, of the good node."""
        self.client.watcher.watch(keys=[], jobs=[], markets=[str(self.founded.market)])
        await self.client.watcher.refresh([str(self.founded.market)])


def with_two(program: Callable[[Two], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await program(Two())

    return run_virtually(run())


def test_what_a_node_that_lags_says_is_asked_of_another() -> None:
    async def program(two: Two) -> None:
        await two.watch()
        two.good.faults.add("server-error", "getAccountInfo", times=1)
        assert await two.client.fetch_run(str(two.run)) is not None
        assert two.late.requests > 0, "it was asked meanwhile"
        assert two.client.endpoints.views[1].health is Health.LAGGING

    with_two(program)


def test_with_only_a_node_that_lags_nothing_is_known() -> None:
    async def program(two: Two) -> None:
        await two.watch()
        two.good.faults.add("cut")
        market, payer = str(two.founded.market), str(two.run)
        for reading in (
            lambda: two.client.fetch_run(str(two.run)),
            lambda: two.client.fetch_job(str(two.job)),
            lambda: two.client.fetch_payment(market=market, payer=payer, payout=None),
        ):
            with pytest.raises(ChainUnavailable):
                await reading()
        # As soon as it has what was known it is believed.
        two.founded.bank.tick(250)
        assert await two.client.fetch_run(str(two.run)) is not None

    with_two(program)


def test_at_finalized_a_node_behind_the_time_that_was_read_is_not_believed() -> None:
    async def program(two: Two) -> None:
        await two.client.finalized_time()
        two.good.faults.add("server-error", "getAccountInfo", times=1)
        assert await two.client.fetch_run(str(two.run), finalized=True) is not None
        two.good.faults.add("cut")
        with pytest.raises(ChainUnavailable):
            await two.client.fetch_run(str(two.run), finalized=True)

    with_two(program)


def test_nodes_may_differ_by_seconds_but_for_an_account_that_was_seen() -> None:
    async def program(two: Two) -> None:
        await two.watch()
        two.late.faults.clear()
        two.late.faults.add("lag", slots=20)
        two.good.faults.add("cut")
        assert await two.client.fetch_run(str(two.run)) is not None
        with pytest.raises(ChainUnavailable):
            await two.client.fetch_market(str(two.founded.market))

    with_two(program)


def test_a_slot_that_never_was_is_believed_for_minutes_only() -> None:
    now = 0.0
    newest = NewestSlot(lambda: now)
    newest.saw(1000)
    newest.saw(10**12)
    newest.saw(1001)
    assert newest.slot == 10**12
    now = 300.0
    assert newest.slot == 0
    newest.saw(1500)
    assert newest.slot == 1500
    newest.saw(1400)
    assert newest.slot == 1500


def test_a_slot_from_the_future_holds_single_readings_up_for_minutes_only() -> None:
    async def program(scene: Scene) -> None:
        job, _ = scene.job(scene.hosts[0])
        endpoint = scene.session._endpoint
        answer = endpoint.answer

        def from_the_future(body: Any) -> dict[str, Any]:
            said = answer(body)
            if body["method"] == "getMultipleAccounts":
                said["result"]["context"]["slot"] = 10**12
            return said

        endpoint.answer = from_the_future  # type: ignore[method-assign]
        await asyncio.sleep(10)
        endpoint.answer = answer  # type: ignore[method-assign]
        with pytest.raises(ChainUnavailable):
            await scene.client.fetch_job(str(job))
        await asyncio.sleep(120)
        assert await scene.client.fetch_job(str(job)) is not None

    simulate(program)


# Nodes that refuse


@pytest.mark.parametrize(
    "refusal",
    [
        Says(b"Forbidden", 403),
        Says(b"", 405),
        Says(error(-32011, "Transaction history is not available from this node")),
        Says(error(-32012, "scan aborted")),
        Says(error(-32601)),
        Says(error(-32052, "API key is not allowed"), 403),
    ],
    ids=["403", "405", "-32011", "-32012", "-32601", "-32052"],
)
async def test_a_method_that_a_node_refuses_is_asked_of_another_for_long(refusal: Says) -> None:
    bank = found().bank
    rpc, endpoints, session = rpc_over({"http://a": refusal, "http://b": DirectSession(bank)})
    for _ in range(2):
        assert await rpc.program_accounts(DEVNET.jobs, [], Confirmed)
    assert [url for url, _ in session.asked] == ["http://a", "http://b", "http://b"]
    assert rpc.refuses(LISTING)
    assert not rpc.refuses("getSlot")
    assert endpoints.views[0].health is Health.GOOD


@pytest.mark.parametrize("code", [-32600, -32000, -32097, 0, 400])
async def test_what_a_provider_says_in_its_own_words_is_asked_of_another(code: int) -> None:
    bank = found().bank
    no = Says(error(code, "RPC call or parameters have been disabled."))
    rpc, _, _ = rpc_over({"http://a": no, "http://b": DirectSession(bank)})
    assert await rpc.program_accounts(DEVNET.jobs, [], Confirmed)
    rpc, _, session = rpc_over({"http://a": no, "http://b": no})
    with pytest.raises(RpcError) as raised:
        await rpc.program_accounts(DEVNET.jobs, [], Confirmed)
    assert raised.value.code == code
    assert len(session.asked) == 2, "an answer, so that it is not asked again and again"


async def test_what_is_wrong_with_the_request_is_asked_once() -> None:
    wrong = Says(error(-32602, "Invalid param: could not find account"))
    rpc, _, session = rpc_over({"http://a": wrong, "http://b": wrong})
    with pytest.raises(RpcError):
        await rpc.account("A", Confirmed)
    assert len(session.asked) == 1


async def test_that_one_node_refuses_is_known_though_the_other_is_away() -> None:
    away = DirectSession(found().bank)
    away.faults.add("cut")
    rpc, _, _ = rpc_over({"http://a": Says(error(410)), "http://b": away}, attempts=2)
    for _ in range(2):
        with pytest.raises(ChainUnavailable):
            await rpc.program_accounts(DEVNET.jobs, [], Confirmed)
        assert rpc.refuses(LISTING)
    away.faults.clear()
    assert await rpc.program_accounts(DEVNET.jobs, [], Confirmed)


async def test_a_node_that_refuses_everything_is_down() -> None:
    """A wrong API key is no matter of methods: as soon as the node answers it is asked for all again."""
    bank = found().bank
    nodes: dict[str, Says | DirectSession] = {"http://a": Says(b"invalid key", 401)}
    rpc, endpoints, _ = rpc_over(nodes, attempts=1)
    for ask in (rpc.slot, rpc.latest_blockhash):
        with pytest.raises(MethodRefused):
            await ask(Confirmed)
    for _ in range(2):
        with pytest.raises(ChainUnavailable, match=r"HTTP 401.*check its URL and API key"):
            await rpc.epoch_info(Confirmed)
        assert endpoints.views[0].health is Health.DOWN
    nodes["http://a"] = DirectSession(bank)
    await rpc.slot(Confirmed)
    await rpc.latest_blockhash(Confirmed)
    assert endpoints.views[0].health is Health.GOOD


def test_an_outcome_is_asked_of_a_node_that_keeps_history() -> None:
    async def program() -> None:
        bank = found().bank
        none = Says(error(-32011), to={"getSignatureStatuses"}, otherwise=DirectSession(bank))
        session = Nodes({"http://a": none, "http://b": DirectSession(bank)})
        client = ChainClient(Network(tuple(session.nodes), (), DEVNET), cast(Any, session))
        outcome = await client.outcome(str(Keypair().sign_message(b"")), 10**9)
        assert outcome.state is OutcomeState.PENDING

    run_virtually(program())


# Nodes that make no sense


@pytest.mark.parametrize(
    "nonsense",
    [
        Says({"result": None}),
        Says({"result": {}}),
        Says({"result": {"context": {"slot": "x"}, "value": 1}}),
        Says(b"[" * 200_000),
    ],
    ids=["null", "empty", "slot", "deep"],
)
async def test_a_node_that_makes_no_sense_is_left_for_another(nonsense: Says) -> None:
    founded = found()
    rpc, endpoints, session = rpc_over({"http://a": nonsense, "http://b": DirectSession(founded.bank)})
    poster = str(founded.poster.pubkey())
    assert await balance(rpc, poster) > 0
    assert endpoints.views[0].health is Health.DOWN
    session.asked.clear()
    assert (await rpc.account(poster, Finalized)).value is not None
    assert [url for url, _ in session.asked] == ["http://b"]
    await endpoints.probe()
    assert endpoints.views[0].health is Health.DOWN, "it does not know its slot either"


async def test_sending_into_nonsense_is_not_sent() -> None:
    rpc, _, _ = rpc_over({"http://a": Says({"result": None})}, attempts=1)
    with pytest.raises(ChainUnavailable):
        await rpc.send(b"raw", preflight=False)


async def test_a_transaction_whose_effects_a_node_has_lost() -> None:
    lost = {"slot": 5, "blockTime": 1, "transaction": ["AAAA", "base64"], "meta": None}
    rpc, _, _ = rpc_over({"http://a": Says({"result": lost})}, attempts=1)
    with pytest.raises(ChainUnavailable):
        await rpc.landed("S", Confirmed)
    assert await rpc.transaction_logs("S", Confirmed) == ()
    assert await rpc.transaction("S", Confirmed) == b"\0\0\0"


@pytest.mark.parametrize("said", [{"data": ["\u00e9", "base64"]}, {"data": ["A", "base64"]}, {"data": []}])
async def test_data_that_cannot_be_read(said: dict[str, Any]) -> None:
    value = {"lamports": 1, "owner": "O", **said}
    rpc, _, _ = rpc_over({"http://a": Says({"result": {"context": {"slot": 1}, "value": value}})}, attempts=1)
    with pytest.raises(ChainUnavailable):
        await rpc.account("A", Confirmed)


# Keys


@pytest.mark.parametrize(
    "url",
    [
        "http://a/?api-key=SECRETKEY123",
        "http://a/v2/SECRETKEY123",
        "http://a/rpc/SECRETKEY123/",
        "http://SECRETKEY123@a/",
        "http://user:SECRETKEY123@a/",
        "http://a/?api-key=SECRETKEY123%2B",
    ],
)
@pytest.mark.parametrize("status", [200, 401, 503])
async def test_a_key_that_a_node_repeats_is_cut_out(url: str, status: int) -> None:
    said = "x" * 290 + " invalid api key: SECRETKEY123"
    for message in (said, said + "+", f"no such path {url}"):
        rpc, _, _ = rpc_over({url: Says(error(-32401, message), status)}, attempts=1)
        with pytest.raises((RpcError, ChainUnavailable)) as raised:
            await rpc.slot(Confirmed)
        assert "SECRET" not in str(raised.value)


async def test_the_header_that_holds_a_key_is_cut_out() -> None:
    header = base64.b64encode(b"user:SECRET+KEY").decode()
    url = "http://user:SECRET%2BKEY@a/"
    rpc, _, _ = rpc_over({url: Says(error(-32401, f"not for Basic {header}"))}, attempts=1)
    with pytest.raises(RpcError, match="not for Basic …"):
        await rpc.slot(Confirmed)


# Slow nodes


def test_many_accounts_are_read_at_the_same_time() -> None:
    """With a node that takes a second, 500 jobs are as late as one."""

    async def program() -> float:
        session = DirectSession(found().bank, seconds=1.0)
        rpc = Rpc(Endpoints(["http://a"], cast(aiohttp.ClientSession, session)))
        addresses = [str(Pubkey.new_unique()) for _ in range(500)]
        assert (await rpc.accounts(addresses, Confirmed)).value == dict.fromkeys(addresses)
        assert session.requests == 5
        return asyncio.get_running_loop().time()

    assert run_virtually(program()) == pytest.approx(1.0)
