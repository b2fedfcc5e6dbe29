"""What a host earned, read back from the chain alone, against what the balances say."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nosana_operator.chain import ChainUnavailable, LedgerEntry, TransactionFailed, Wallet, read_ledger
from nosana_operator.chain.rpc.wire import LandedTransaction
from nosana_operator.cli.earnings import earnings
from support.chain_world import RESULT, World, running_world

pytestmark = pytest.mark.contract


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


async def ledger(world: World, **more: Any) -> list[LedgerEntry]:
    return await read_ledger(world.client.rpc, world.client.program.programs, world.host.address, **more)


async def finish(world: World, after: int, payout: str | None = None) -> str:
    run, job = await world.match()
    world.advance(after)
    signed = await world.client.sign_finish(world.host, run, job, RESULT, payout=payout)
    await world.confirm(signed, finalized=True)
    return job.address


async def test_every_kind_of_end_is_found_with_what_it_paid(world: World) -> None:
    finished = await finish(world, 100)
    run, job = await world.match()
    world.advance(40)
    await world.end(run, job)
    await world.confirm(await world.client.sign_complete(world.host, job, RESULT))
    run, given_up = await world.match()
    await world.confirm(await world.client.sign_quit(world.host, run), finalized=True)

    entries = await ledger(world)

    assert [entry.kind for entry in entries] == [
        "work",
        "finish",
        "work",
        "end",
        "complete",
        "work",
        "quit",
    ]
    assert {entry.market for entry in entries if entry.kind != "quit"} == {world.market}
    assert [entry.job for entry in entries if entry.kind == "finish"] == [finished]
    earned = [entry.earned for entry in entries]
    assert None not in earned
    assert (
        sum(amount or 0 for amount in earned)
        == (await world.client.fetch_wallet_state(world.host.address)).nos_balance
    )
    for entry in entries:
        if entry.kind in ("finish", "end"):
            assert entry.earned is not None
            assert entry.refunded is not None
            assert entry.earned + entry.refunded == 600 * 10, "all of the deposit is accounted for"
            assert entry.seconds == entry.earned // 10 > 0
        else:
            assert (entry.earned, entry.refunded, entry.seconds) == (0, 0, 0)
    assert [entry.fee for entry in entries if entry.kind == "end"] == [0], "its owner pays for `end`"
    assert all(entry.fee >= 5000 for entry in entries if entry.kind != "end")
    assert given_up.address in {entry.job for entry in entries if entry.kind == "quit"}


async def test_pay_to_another_wallet_is_the_keys_all_the_same(world: World) -> None:
    before = (await world.client.fetch_wallet_state(world.host.address)).nos_balance
    elsewhere = Wallet.generate().address
    await finish(world, 50, payout=elsewhere)
    (entry,) = [entry for entry in await ledger(world) if entry.kind == "finish"]
    assert entry.earned == (await world.client.fetch_wallet_state(elsewhere)).nos_balance > 0
    assert (await world.client.fetch_wallet_state(world.host.address)).nos_balance == before


async def test_work_names_its_run_only_when_it_took_a_job(world: World) -> None:
    job, _unused = await world.post()
    taken = await world.client.sign_work(world.host, world.market)
    await world.confirm(taken)
    await world.confirm(await world.client.sign_work(world.host, world.market), finalized=True)
    works = [entry for entry in await ledger(world) if entry.kind == "work"]
    assert [entry.run for entry in works] == [taken.run, None]
    run = await world.client.fetch_run(str(taken.run))
    assert run is not None
    assert run.job == job


async def test_what_failed_cost_its_fee_and_nothing_else(world: World) -> None:
    signed = await world.client.sign_stop(world.host, world.market)
    with pytest.raises(TransactionFailed):
        await world.confirm(signed)
    await world.client.send(signed.raw, first=False)
    await world.confirm(await world.client.sign_work(world.host, world.market), finalized=True)
    failed, good = await ledger(world)
    assert (failed.kind, failed.failed, failed.earned) == ("stop", True, 0)
    assert failed.fee > 0
    assert (good.kind, good.failed) == ("work", False)


async def test_since_leaves_out_what_is_older(world: World) -> None:
    await finish(world, 30)
    middle = int(world.founded.bank.clock.now()) + 100
    world.advance(200)
    later = await finish(world, 30)
    entries = await ledger(world, since=middle)
    assert [entry.job for entry in entries if entry.kind == "finish"] == [later]
    assert len(await ledger(world)) > len(entries)
    assert all(entry.time is not None and entry.time >= middle for entry in entries)
    assert await ledger(world, since=int(time.time()) + 10**8) == []


async def test_amounts_that_a_node_does_not_keep_are_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finish(world, 30)
    call = world.client.rpc.call

    async def forgetful(method: str, params: object, *more: object) -> object:
        result = await call(method, params, *more)  # type: ignore[arg-type, var-annotated]
        return replace(result, inner=None) if isinstance(result, LandedTransaction) else result

    monkeypatch.setattr(world.client.rpc, "call", forgetful)
    (entry,) = [entry for entry in await ledger(world) if entry.kind == "finish"]
    assert (entry.earned, entry.refunded) == (None, None)


async def test_a_finish_tells_what_it_paid(world: World) -> None:
    await finish(world, 30)
    (entry,) = [one for one in await ledger(world) if one.kind == "finish"]
    assert entry.earned
    assert await world.client.paid_by(entry.signature) == (entry.earned, entry.refunded)
    (other, *_) = [one for one in await ledger(world) if one.kind != "finish"]
    assert await world.client.paid_by(other.signature) is None


async def test_a_history_that_cannot_be_read_is_no_history(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finish(world, 30)
    call = world.client.rpc.call

    async def pruned(method: str, params: object, *more: object) -> object:
        return None if method == "getTransaction" else await call(method, params, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(world.client.rpc, "call", pruned)
    with pytest.raises(ChainUnavailable, match="--since"):
        await ledger(world)


async def test_the_command_tells_it_without_any_cluster(world: World, tmp_path: Path) -> None:
    await finish(world, 100)
    paid = (await world.client.fetch_wallet_state(world.host.address)).nos_balance
    programs = world.client.program.programs
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"networks: {{sandbox: {{rpc: ['{world.chain.url}'], ws: ['{world.chain.ws_url}'], "
        f"program: {programs.jobs}, nosMint: {programs.nos_mint}}}}}"
    )
    arguments = ["--settings", str(settings), "--wallet", world.host.address, "--output", "json"]
    told = await asyncio.to_thread(CliRunner().invoke, earnings, arguments)
    assert told.exit_code == 0, told.output
    (row,) = json.loads(told.output)["sums"]
    assert (row["market"], row["wallet"], row["earned"]) == (world.market, world.host.address, paid)
    elsewhere = await asyncio.to_thread(
        CliRunner().invoke, earnings, [*arguments[:4], "--market", world.host.address]
    )
    assert elsewhere.output.startswith("No transactions")
