"""The operator's chain room while the chain's nodes fail in every way that real ones do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from solana.rpc.commitment import Confirmed
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from nosana_operator.backoff import Backoff
from nosana_operator.chain import (
    BlockhashNotFound,
    ChainClient,
    ChainError,
    ChainUnavailable,
    FeePolicy,
    Health,
    JobState,
    MethodRefused,
    OutcomeState,
    Retry,
    TransactionFailed,
    Wallet,
)
from nosana_sandbox.world.genesis import Founded, access_key_accounts
from support.chain_world import RESULT, Watching, World, eventually, running_world
from support.sending import balance

pytestmark = pytest.mark.contract

IMPATIENT = Retry(attempts=1, request_timeout=0.2)
NO_ANSWER = [
    {"kind": "rate-limited"},
    {"kind": "rate-limited", "retry_after": 0.05},
    {"kind": "server-error", "status": 500},
    {"kind": "server-error", "status": 502},
    {"kind": "html"},
    {"kind": "silent", "seconds": 0.5},
    {"kind": "cut"},
    {"kind": "error", "code": -32005, "message": "Node is behind by 150 slots"},
    {"kind": "error", "code": -32016, "message": "Minimum context slot has not been reached"},
    {"kind": "error", "code": 429, "message": "Too many requests"},
]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


@pytest.fixture
async def two() -> AsyncIterator[World]:
    """A chain at two endpoints; the client prefers the first."""
    async with running_world(endpoints=2, retry=Retry(attempts=1, request_timeout=0.3)) as made:
        yield made


# Requests


@pytest.mark.parametrize("fault", NO_ANSWER, ids=lambda fault: "-".join(map(str, fault.values())))
async def test_no_answer_is_unknown_and_the_next_try_helps(fault: dict[str, object]) -> None:
    async with running_world(retry=IMPATIENT) as world:
        world.chain.faults.add(times=1, method="getBalance", **fault)  # type: ignore[arg-type]
        with pytest.raises(ChainUnavailable):
            await balance(world.client.rpc, world.market)
    async with running_world(retry=Retry(attempts=3, backoff=Backoff(0.01, 1), request_timeout=0.2)) as world:
        world.chain.faults.add(times=2, method="getBalance", **fault)  # type: ignore[arg-type]
        assert await balance(world.client.rpc, world.market) > 0


@pytest.mark.parametrize("code", [-32002, -32003, -32005, -32015, -32016, -32601, -32602, 429, 410, 0])
async def test_error_replies_without_data_never_panic(code: int) -> None:
    async with running_world(retry=IMPATIENT) as world:
        work = await world.client.sign_work(world.host, world.market)
        world.chain.faults.add("error", "*", code=code, message="no")
        for ask in (
            lambda: world.client.send(work.raw, first=True),
            lambda: world.client.send(work.raw, first=False),
            lambda: world.client.outcome(work.signature, work.last_valid_block_height),
            lambda: world.client.fetch_market(world.market),
            lambda: world.client.sign_work(world.host, world.market),
            lambda: world.client.rpc.transaction_logs(work.signature, Confirmed),
        ):
            with pytest.raises(ChainError) as raised:
                await ask()
            assert not isinstance(raised.value, TransactionFailed), "nothing was said of the transaction"


# Several nodes


@pytest.mark.parametrize("fault", NO_ANSWER, ids=lambda fault: "-".join(map(str, fault.values())))
async def test_the_second_node_takes_over(two: World, fault: dict[str, object]) -> None:
    first, second = two.nodes
    first.faults.add(method="*", **fault)  # type: ignore[arg-type]
    assert (await two.client.fetch_market(two.market)).price == 10
    worked = first.faults.injected.total()
    for _ in range(3):
        await two.client.fetch_market(two.market)
    if fault["kind"] != "rate-limited" or "retry_after" not in fault:
        assert first.faults.injected.total() == worked, "a node that fails is not asked meanwhile"
        assert two.client.endpoints.views[0].health >= Health.RESTING
    first.faults.clear()
    await two.client.endpoints.probe()
    if fault["kind"] != "rate-limited" and fault.get("code") != 429:
        assert two.client.endpoints.views[0].health is Health.GOOD
    second.faults.add("cut")
    assert (await two.client.fetch_market(two.market)).price == 10


async def test_with_all_nodes_away_it_is_unknown(two: World) -> None:
    for node in two.nodes:
        node.faults.add("cut")
    with pytest.raises(ChainUnavailable):
        await two.client.fetch_market(two.market)
    for node in two.nodes:
        node.faults.clear()
    assert (await two.client.fetch_market(two.market)).price == 10


async def test_a_node_that_lags_moves_behind(two: World) -> None:
    two.founded.bank.tick(60)
    first, _ = two.nodes
    first.faults.add("lag", slots=50)
    await two.client.endpoints.probe()
    views = two.client.endpoints.views
    assert [view.health for view in views] == [Health.LAGGING, Health.GOOD]
    assert 45 <= views[0].slots_behind <= 55
    asked = first.faults.count("lag")
    await two.client.fetch_market(two.market)
    assert first.faults.count("lag") == asked
    first.faults.clear()
    await two.client.endpoints.probe()
    assert two.client.endpoints.views[0].health is Health.GOOD


async def test_a_method_that_one_node_refuses_is_asked_of_the_other(two: World) -> None:
    first, second = two.nodes
    first.faults.add("refused")
    for _ in range(2):
        found = await two.client.rpc.program_accounts(
            two.client.network.programs.jobs,
            [],
            Confirmed,
        )
        assert two.market in found.value
    assert first.faults.count("refused") == 1, "it is remembered"
    second.faults.add("refused")
    for _ in range(2):
        with pytest.raises(MethodRefused):
            await two.client.rpc.program_accounts(
                two.client.network.programs.jobs,
                [],
                Confirmed,
            )
    assert second.faults.count("refused") == 1


# Transactions


async def test_a_lost_transaction_is_sent_again_and_to_all(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.sending.RESEND_AFTER", 0.05)
    first, _ = two.nodes
    first.faults.add("vanish")
    work = await two.client.sign_work(two.host, two.market)
    await two.confirm(work)
    assert (await two.client.fetch_market(two.market)).queue == (two.host.address,)
    assert first.faults.count("vanish") >= 2


async def test_a_late_transaction_lands_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.sending.RESEND_AFTER", 0.05)
    run, job = await world.match()
    world.advance(100)
    before = (await world.client.fetch_wallet_state(world.host.address)).nos_balance
    world.chain.faults.add("late", slots=10, times=3)
    finish = await world.client.sign_finish(world.host, run, job, RESULT)
    await world.confirm(finish, finalized=True)
    done = await world.client.fetch_job(job.address)
    assert done is not None
    paid = (await world.client.fetch_wallet_state(world.host.address)).nos_balance - before
    assert paid == 10 * (done.time_end - done.time_start)


async def test_a_transaction_that_never_arrives_is_proven_dead(world: World) -> None:
    world.chain.faults.add("vanish")
    work = await world.client.sign_work(world.host, world.market)
    await world.client.send(work.raw, first=True)
    ask = (work.signature, work.last_valid_block_height)
    assert (await world.client.outcome(*ask)).state is OutcomeState.PENDING
    world.founded.bank.tick(200)
    assert (await world.client.outcome(*ask)).state is OutcomeState.EXPIRED
    with pytest.raises(BlockhashNotFound):
        await world.client.send(work.raw, first=True)


async def test_a_lost_answer_to_a_send_does_not_send_twice(two: World) -> None:
    first, _ = two.nodes
    work = await two.client.sign_work(two.host, two.market)
    # The first node takes it; the second is asked because its answer does not come.
    await two.client.send(work.raw, first=True)
    two.founded.bank.tick()
    first.faults.add("cut", "sendTransaction", times=1)
    await two.client.send(work.raw, first=True)
    assert (await two.client.fetch_market(two.market)).queue == (two.host.address,)


async def test_an_expired_blockhash_is_unknown_not_failed(world: World) -> None:
    world.founded.bank.tick(200)
    world.chain.faults.add("lag", "getLatestBlockhash", slots=151)
    work = await world.client.sign_work(world.host, world.market)
    world.founded.bank.tick()
    with pytest.raises(BlockhashNotFound):
        await world.client.send(work.raw, first=True)


# Watching


async def watched(world: World, client: ChainClient | None = None) -> Watching:
    watching = Watching(client or world.client)
    watching.watcher.watch(keys=[world.host.address], jobs=[], markets=[world.market])
    await eventually(lambda: watching.watcher.runs_of(world.host.address) is not None)
    return watching


async def lives(world: World, watching: Watching) -> None:
    """A run is seen to begin, its job to be extended and ended, and the run to be gone."""
    watcher, client = watching.watcher, world.client
    run, job = await world.match()
    assert await eventually(lambda: watcher.runs_of(world.host.address)) == (run,)
    watcher.watch(keys=[world.host.address], jobs=[job.address], markets=[world.market])
    extend = client.program.extend(
        job=job.address,
        market=job.market,
        payer=job.payer,
        project=job.project,
        timeout=job.timeout + 60,
    )
    await world.confirm(await client.sign("extend", [extend], world.poster))

    def job_now() -> object:
        seen = watcher.jobs.get(job.address)
        return seen.value if seen else None

    await eventually(lambda: job_now() == replace(job, timeout=job.timeout + 60))
    await world.end(run, job)
    await eventually(lambda: getattr(job_now(), "state", None) is JobState.DONE)
    await eventually(lambda: watcher.runs_of(world.host.address) == ())


@pytest.mark.parametrize(
    "faults",
    [
        [{"kind": "server-error", "method": "connect"}],
        [{"kind": "mute"}],
        [
            {"kind": "lost", "method": "accountNotification"},
            {"kind": "lost", "method": "programNotification"},
        ],
        [{"kind": "doubled"}],
        [{"kind": "delayed", "seconds": 0.3, "method": "a*Notification"}],
        [{"kind": "closed", "skip": 5, "chance": 0.2}],
        [{"kind": "cut", "method": "slotNotification", "chance": 0.1}],
        [{"kind": "error", "method": "programSubscribe", "code": -32601}],
    ],
    ids=["dead", "mute", "lost", "doubled", "late", "closed", "cut", "no-program-subscription"],
)
async def test_everything_is_seen_whatever_the_websocket_does(
    world: World, faults: list[dict[str, object]]
) -> None:
    for fault in faults:
        world.chain.faults.add(**fault)  # type: ignore[arg-type]
    watching = await watched(world)
    try:
        await lives(world, watching)
    finally:
        await watching.close()


async def test_everything_is_seen_through_unreliable_requests(world: World) -> None:
    world.chain.faults.reseed(11)
    world.chain.faults.add("server-error", chance=0.15, method="get*")
    world.chain.faults.add("cut", chance=0.1, method="get*")
    world.chain.faults.add("closed", chance=0.05)
    watching = await watched(world)
    try:
        await lives(world, watching)
        assert world.chain.faults.injected.total() > 3
    finally:
        await watching.close()


@pytest.mark.parametrize("websocket", [True, False])
async def test_runs_are_found_where_listings_are_refused(world: World, websocket: bool) -> None:
    world.chain.faults.add("refused")
    if not websocket:
        world.chain.faults.add("server-error", "connect")
    before, _ = await world.match()
    watching = await watched(world)
    watcher = watching.watcher
    try:
        assert watcher.runs_of(world.host.address) == (before,), "one that was there before us"
        waiting, _ = await world.post()
        work = await world.client.sign_work(world.host, world.market)
        await world.confirm(work)
        runs = await eventually(
            lambda: (found := watcher.runs_of(world.host.address)) and len(found) == 2 and found
        )
        assert {run.address for run in runs} == {before.address, work.run}
        assert waiting in {run.job for run in runs}
        for run in runs:
            job = await world.client.fetch_job(run.job)
            assert job is not None
            await world.confirm(await world.client.sign_finish(world.host, run, job, RESULT))
        await eventually(lambda: watcher.runs_of(world.host.address) == ())
        assert (await watcher.refresh_runs(world.host.address)) == ()
        # And the way in which most runs begin.
        await lives(world, watching)
    finally:
        await watching.close()


async def test_a_run_that_a_fork_took_back_is_gone(world: World) -> None:
    watching = await watched(world)
    watcher, bank = watching.watcher, world.founded.bank
    try:
        await world.confirm(await world.client.sign_work(world.host, world.market), finalized=True)
        job, run = await world.post()
        await eventually(lambda: watcher.runs_of(world.host.address))
        landed = next(each for each in reversed(bank.history_of(Pubkey.from_string(run))))
        bank.fork(bank.slot - landed.slot + 1)
        await eventually(lambda: watcher.runs_of(world.host.address) == ())
        assert await world.client.fetch_run(run) is None
        assert await world.client.fetch_job(job) is None
        assert (await world.client.fetch_market(world.market)).queue == (world.host.address,)
    finally:
        await watching.close()


async def test_staleness_grows_while_the_chain_is_away(world: World) -> None:
    watching = await watched(world)
    watcher = watching.watcher
    try:
        await eventually(lambda: watcher.staleness is not None and watcher.staleness < 0.5)
        world.chain.faults.add("cut", "get*")
        await eventually(lambda: watcher.staleness is not None and watcher.staleness > 0.7)
        runs = watcher.runs_of(world.host.address)
        assert runs == (), "what was known stays"
        world.chain.faults.clear()
        await eventually(lambda: watcher.staleness is not None and watcher.staleness < 0.5)
        # A node that answers and stands still is no better.
        world.chain.faults.add("lag", "get*", slots=300)
        await eventually(lambda: watcher.staleness is not None and watcher.staleness > 0.7)
    finally:
        await watching.close()


async def test_the_second_websocket_takes_over(two: World) -> None:
    first, _ = two.nodes
    first.faults.add("server-error", "connect")
    watching = await watched(two)
    try:
        await eventually(lambda: watching.watcher.alive)
        await lives(two, watching)
    finally:
        await watching.close()


# Access keys and fees


async def closed_market(world: World) -> str:
    """A market for holders of a collection's tokens; the collection."""
    authority, market, collection = (
        Wallet(world.founded.market_authority),
        Wallet.generate(),
        Keypair().pubkey(),
    )
    opened = world.client.program.open(
        market=market.address, authority=authority.address, price=1, access_key=str(collection)
    )
    await world.confirm(await world.client.sign("open", [opened], authority, (market,)))
    world.founded = Founded(
        world.founded.bank,
        market.keypair.pubkey(),
        authority.keypair,
        world.founded.host,
        world.founded.poster,
    )
    return str(collection)


async def test_a_closed_market_is_entered_with_its_key(world: World) -> None:
    bank, host, client = world.founded.bank, world.founded.host.pubkey(), world.client
    collection = await closed_market(world)
    assert await client.find_access_key(world.host.address, collection) is None
    with pytest.raises(TransactionFailed) as raised:
        await client.send((await client.sign_work(world.host, world.market)).raw, first=True)
    assert raised.value.name == "NodeNftInvalidAmount", "the NOS account stands in for a key, and is empty"

    other = Keypair().pubkey()
    wanted = Pubkey.from_string(collection)
    for accounts in (
        access_key_accounts(host, other),
        access_key_accounts(host, wanted, verified=False),
        access_key_accounts(host, wanted, amount=0),
    ):
        for address, account in accounts.items():
            bank.place(address, account)
    bank.tick(2)
    assert await client.find_access_key(world.host.address, collection) is None

    for address, account in access_key_accounts(host, wanted).items():
        bank.place(address, account)
    bank.tick(2)
    key = await client.find_access_key(world.host.address, collection)
    assert key is not None
    await world.confirm(await client.sign_work(world.host, world.market, access_key=key))
    assert (await client.fetch_market(world.market)).queue == (world.host.address,)


def budget(raw: bytes) -> tuple[int, int]:
    """Compute limit and price that a transaction asks for."""
    message = VersionedTransaction.from_bytes(raw).message
    found = {
        bytes(ix.data)[0]: int.from_bytes(bytes(ix.data)[1:], "little") for ix in message.instructions[:2]
    }
    return found[2], found.get(3, 0)


async def test_without_a_price_nothing_is_simulated() -> None:
    async with running_world() as world:
        world.chain.faults.add("error", "simulateTransaction")
        world.chain.faults.add("error", "getRecentPrioritizationFees")
        limit, price = budget((await world.client.sign_work(world.host, world.market)).raw)
        assert (limit > 100_000, price) == (True, 0)
        assert world.chain.faults.injected.total() == 0


async def test_with_a_price_the_limit_is_what_it_takes_and_the_cap_holds() -> None:
    fees = FeePolicy(priority="fixed", price=1_000_000, cap=30_000)
    async with running_world(fees=fees) as world:
        lamports = (await world.client.fetch_wallet_state(world.host.address)).lamports
        work = await world.client.sign_work(world.host, world.market)
        limit, price = budget(work.raw)
        assert 20_000 < limit < 60_000
        assert price == 20_000 * 1_000_000 // limit
        await world.confirm(work)
        after = (await world.client.fetch_wallet_state(world.host.address)).lamports
        assert 29_900 <= lamports - after <= 30_000


async def test_a_dynamic_price_follows_the_market_and_survives_silence() -> None:
    fees = FeePolicy(priority="dynamic", minimum=5_000, percentile=100)
    async with running_world(fees=fees, retry=IMPATIENT) as world:
        world.chain.faults.add("cut", "getRecentPrioritizationFees", times=1)
        world.chain.faults.add("cut", "simulateTransaction", times=1)
        limit, price = budget((await world.client.sign_work(world.host, world.market)).raw)
        assert (limit > 100_000, price) == (True, 5_000), "the static limit, the lowest price"
        assert world.chain.faults.injected.total() == 2


async def test_a_failing_simulation_leaves_the_verdict_to_the_preflight() -> None:
    fees = FeePolicy(priority="fixed", price=1_000)
    async with running_world(fees=fees) as world:
        stop = await world.client.sign_stop(world.host, world.market)
        with pytest.raises(TransactionFailed) as raised:
            await world.client.send(stop.raw, first=True)
        assert raised.value.name == "MarketInWrongState"
