"""The operator's chain room against the sandbox's chain: a host's life, money included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from nosana_operator.chain import (
    DEVNET,
    AccountMalformed,
    AccountMissing,
    BlockhashNotFound,
    ChainClient,
    JobState,
    Network,
    OutcomeState,
    TransactionFailed,
    Wallet,
)
from nosana_sandbox.chain import Commitment
from nosana_sandbox.world.genesis import Founded, stake_accounts, wallet_accounts
from support.chain_world import DEFINITION, OFTEN, RESULT, Watching, World, eventually, running_world

pytestmark = pytest.mark.contract


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


async def test_a_market_job_is_finished_and_paid_exactly(world: World) -> None:
    client, host = world.client, world.host
    before = await client.fetch_wallet_state(host.address)
    assert (before.nos_account_exists, before.nos_balance) == (True, 0)
    assert before.stake_xnos == 40_000_000_000
    market = await client.fetch_market(world.market)
    assert (market.price, market.queue_type, market.node_access_key) == (10, "Empty", None)

    run, job = await world.match()
    assert (run.job, run.node, run.payer) == (job.address, host.address, world.poster.address)
    assert (job.ipfs_job, job.state, job.timeout, job.price) == (DEFINITION, JobState.QUEUED, 600, 10)
    world.advance(250)
    finish = await client.sign_finish(host, run, job, RESULT)
    await world.confirm(finish, finalized=True)

    assert await client.fetch_run(run.address, finalized=True) is None
    done = await client.fetch_job(job.address, finalized=True)
    assert done is not None
    assert (done.state, done.node, done.ipfs_result) == (JobState.DONE, host.address, RESULT)
    seconds = done.time_end - done.time_start
    assert 250 <= seconds <= 260
    assert (await client.fetch_wallet_state(host.address)).nos_balance == 10 * seconds
    outcome = await client.outcome(finish.signature, finish.last_valid_block_height)
    assert (outcome.state, outcome.finalized) == (OutcomeState.FINALIZED, True)


async def test_waiting_jobs_are_taken_by_work_at_its_own_run_account(world: World) -> None:
    job, unused = await world.post()
    assert await world.client.fetch_run(unused) is None
    work = await world.client.sign_work(world.host, world.market)
    await world.confirm(work)
    assert work.run is not None
    run = await world.client.fetch_run(work.run)
    assert run is not None
    assert (run.job, run.payer) == (job, world.host.address)


async def test_a_host_without_a_nos_account_gets_one_with_work(world: World) -> None:
    fresh = Wallet.generate()
    key = fresh.keypair.pubkey()
    for address, account in {
        **wallet_accounts(key, sol=1, nos=None),
        **stake_accounts(key, amount=5),
    }.items():
        world.founded.bank.place(address, account)
    world.founded.bank.tick(2)
    assert (await world.client.fetch_wallet_state(fresh.address)).nos_account_exists is False
    await world.confirm(await world.client.sign_work(fresh, world.market))
    state = await world.client.fetch_wallet_state(fresh.address)
    assert (state.nos_account_exists, state.nos_balance, state.stake_xnos) == (True, 0, 20)
    market = await world.client.fetch_market(world.market)
    assert (market.queue_type, market.queue) == ("Node", (fresh.address,))
    await world.confirm(await world.client.sign_stop(fresh, world.market))
    assert (await world.client.fetch_market(world.market)).queue == ()


async def test_the_owner_ends_the_host_completes(world: World) -> None:
    run, job = await world.match()
    await world.end(run, job)
    ended = await world.client.fetch_job(job.address)
    assert ended is not None
    assert (ended.state, ended.ipfs_result) == (JobState.DONE, bytes(32))
    finish = await world.client.sign_finish(world.host, run, job, RESULT)
    with pytest.raises(TransactionFailed) as raised:
        await world.client.send(finish.raw, first=True)
    assert (raised.value.name, raised.value.number) == ("AccountNotInitialized", 3012)
    await world.confirm(await world.client.sign_complete(world.host, ended, RESULT))
    completed = await world.client.fetch_job(job.address)
    assert completed is not None
    assert completed.ipfs_result == RESULT


async def test_quit_pays_nothing(world: World) -> None:
    run, job = await world.match()
    await world.confirm(await world.client.sign_quit(world.host, run))
    stopped = await world.client.fetch_job(job.address)
    assert stopped is not None
    assert stopped.state is JobState.STOPPED
    assert (await world.client.fetch_wallet_state(world.host.address)).nos_balance == 0


async def test_a_poster_delists_and_extends(world: World) -> None:
    client, poster = world.client, world.poster
    job, _ = await world.post(timeout=100)
    extend = client.program.extend(
        job=job, market=world.market, payer=poster.address, project=poster.address, timeout=300
    )
    await world.confirm(await client.sign("extend", [extend], poster))
    extended = await client.fetch_job(job)
    assert extended is not None
    assert extended.timeout == 300
    delist = client.program.delist(job=job, market=world.market, payer=poster.address, project=poster.address)
    await world.confirm(await client.sign("delist", [delist], poster))
    assert await client.fetch_job(job) is None


async def test_a_market_is_opened_and_updated(world: World) -> None:
    client, authority, market = world.client, Wallet(world.founded.market_authority), Wallet.generate()
    opened = client.program.open(market=market.address, authority=authority.address, price=7)
    await world.confirm(await client.sign("open", [opened], authority, (market,)))
    before = await client.fetch_market(market.address)
    updated = client.program.update(
        market=market.address,
        authority=authority.address,
        price=9,
        job_timeout=60,
        job_expiration=before.job_expiration,
        job_type=before.job_type,
        xnos_minimum=4,
        access_key=DEVNET.nos_mint,
    )
    await world.confirm(await client.sign("update", [updated], authority))
    after = await client.fetch_market(market.address)
    assert (before.price, after.price, after.job_timeout) == (7, 9, 60)
    assert (before.node_access_key, after.node_access_key, after.xnos_minimum) == (None, DEVNET.nos_mint, 4)


async def test_a_free_job_is_finished_without_the_payers_account(world: World) -> None:
    client, authority, market = world.client, Wallet(world.founded.market_authority), Wallet.generate()
    opened = client.program.open(market=market.address, authority=authority.address, price=0)
    await world.confirm(await client.sign("open", [opened], authority, (market,)))
    world.founded = Founded(
        world.founded.bank,
        market.keypair.pubkey(),
        authority.keypair,
        world.founded.host,
        world.founded.poster,
    )
    run, job = await world.match()
    assert job.price == 0
    await world.confirm(await client.sign_finish(world.host, run, job, RESULT))
    done = await client.fetch_job(job.address)
    assert done is not None
    assert done.state is JobState.DONE


async def test_pay_goes_where_the_admin_wants_it(world: World) -> None:
    run, job = await world.match()
    world.advance(100)
    treasury = Wallet.generate().address
    await world.confirm(await world.client.sign_finish(world.host, run, job, RESULT, payout=treasury))
    assert (await world.client.fetch_wallet_state(treasury)).nos_balance >= 1000
    assert (await world.client.fetch_wallet_state(world.host.address)).nos_balance == 0


async def test_the_same_bytes_act_once_however_often_they_are_sent(world: World) -> None:
    client = world.client
    work = await client.sign_work(world.host, world.market)
    await client.send(work.raw, first=True)
    await client.send(work.raw, first=False)
    await client.send(work.raw, first=True)
    await world.confirm(work)
    assert (await client.fetch_market(world.market)).queue == (world.host.address,)
    again = await client.sign_work(world.host, world.market)
    with pytest.raises(TransactionFailed) as raised:
        await client.send(again.raw, first=True)
    assert raised.value.name == "NodeAlreadyQueued"


async def test_a_failed_transaction_in_a_block_is_named(world: World) -> None:
    stop = await world.client.sign_stop(world.host, world.market)
    await world.client.send(stop.raw, first=False)

    async def failed() -> str | None:
        outcome = await world.client.outcome(stop.signature, stop.last_valid_block_height)
        return outcome.error.name if outcome.error and outcome.finalized else None

    assert await eventually(failed) == "MarketInWrongState"


async def test_what_was_never_sent_expires_only_at_finalized(world: World) -> None:
    client, bank = world.client, world.founded.bank
    signed = await client.sign_work(world.host, world.market)
    ask = (signed.signature, signed.last_valid_block_height)
    assert (await client.outcome(*ask)).state is OutcomeState.PENDING
    while bank.height_at(Commitment.FINALIZED) <= signed.last_valid_block_height:
        bank.tick()
    outcome = await client.outcome(*ask)
    assert (outcome.state, outcome.finalized) == (OutcomeState.EXPIRED, True)
    with pytest.raises(BlockhashNotFound):
        await client.send(signed.raw, first=True)


async def test_wrong_addresses(world: World) -> None:
    with pytest.raises(AccountMissing, match="check the address"):
        await world.client.fetch_market(Wallet.generate().address)
    with pytest.raises(AccountMissing):
        await world.client.fetch_market(world.host.address)
    run, job = await world.match()
    with pytest.raises(AccountMalformed):
        await world.client.fetch_market(job.address)
    with pytest.raises(AccountMalformed):
        await world.client.fetch_job(run.address)
    nobody = await world.client.fetch_wallet_state(Wallet.generate().address)
    assert (nobody.lamports, nobody.nos_account_exists, nobody.stake_xnos) == (0, False, None)
    host = await world.client.fetch_wallet_state(world.host.address)
    both = await world.client.fetch_wallet_states([nobody.address, host.address])
    assert [replace(one, slot=0) for one in both.values()] == [replace(one, slot=0) for one in (nobody, host)]


async def test_the_chains_clock_is_measured(world: World) -> None:
    world.advance(86_400)
    await world.client.measure_clock()
    offset = world.client.clock.offset
    assert offset is not None
    assert 86_397 <= offset <= 86_401
    assert abs(world.client.chain_time() - world.founded.bank.clock.now()) < 3


@pytest.fixture
async def watching(world: World) -> AsyncIterator[Watching]:
    made = Watching(world.client)
    yield made
    await made.close()


async def test_a_run_its_job_and_its_end_are_seen(world: World, watching: Watching) -> None:
    watcher = watching.watcher
    watcher.watch(keys=[world.host.address], jobs=[], markets=[world.market])
    assert await eventually(lambda: watcher.runs_of(world.host.address) == ())
    await eventually(lambda: watcher.connected and world.market in watcher.markets)

    run, job = await world.match()
    seen = await eventually(lambda: watcher.runs_of(world.host.address))
    assert seen == (run,)
    assert ("run", run.address) in watching.told
    watcher.watch(keys=[world.host.address], jobs=[job.address], markets=[world.market])
    await eventually(lambda: job.address in watcher.jobs)

    await world.end(run, job)
    await eventually(lambda: watcher.runs[run.address].value is None)
    ended = await eventually(
        lambda: (seen := watcher.jobs[job.address].value) and seen.state is JobState.DONE and seen
    )
    assert ended.node == world.host.address
    assert watching.told.count(("run", run.address)) == 2
    assert watcher.staleness is not None
    assert watcher.staleness < 5
    assert watching.watcher.runs_of(world.host.address) == ()


async def test_everything_is_seen_without_a_websocket(world: World) -> None:
    network = Network((world.chain.url,), ("ws://127.0.0.1:9",), DEVNET)
    client = ChainClient(network, world.session, watch=OFTEN)
    watching = Watching(client)
    try:
        client.watcher.watch(keys=[world.host.address], jobs=[], markets=[])
        run, job = await world.match()
        await eventually(lambda: client.watcher.runs_of(world.host.address) == (run,))
        client.watcher.watch(keys=[world.host.address], jobs=[job.address], markets=[])
        await world.end(run, job)
        await eventually(lambda: client.watcher.runs_of(world.host.address) == ())
        await eventually(
            lambda: (
                (seen := client.watcher.jobs.get(job.address))
                and seen.value
                and seen.value.state is JobState.DONE
            )
        )
        assert client.watcher.connected is False
        assert client.clock.offset is not None
    finally:
        await watching.close()


async def test_refreshing_reads_at_once(world: World) -> None:
    watcher = world.client.watcher
    watcher.watch(keys=[world.host.address], jobs=[], markets=[world.market])
    assert watcher.runs_of(world.host.address) is None
    run, _ = await world.match()
    assert await watcher.refresh_runs(world.host.address) == (run,)
    await watcher.refresh([world.market])
    assert watcher.markets[world.market].value is not None
