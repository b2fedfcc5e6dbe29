"""A poster's life against a whole world in this process."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from solders.keypair import Keypair

from nosana_sandbox.world.daemon import WorldOptions, running_world
from nosana_sandbox.world.errors import NotRunning, TransactionFailed, UnknownJob, WorldError
from nosana_sandbox.world.genesis import read_keypair
from nosana_sandbox.world.poster import Poster
from nosana_sandbox.world.state import World, WorldFolder

pytestmark = pytest.mark.contract

DEFINITION = json.dumps({"version": "0.1", "type": "container", "ops": []}).encode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(WorldOptions(tmp_path, price=1_000, slot_seconds=0.02, finality=3)) as running:
        yield running


@pytest.fixture
async def poster(world: World) -> AsyncIterator[Poster]:
    keypair = read_keypair(Path(world.poster.keypair))
    async with Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=keypair) as ready:
        yield ready


async def test_a_job_is_posted_extended_and_taken_back(world: World, poster: Poster) -> None:
    posted = await poster.post(DEFINITION, world.market, timeout=60)
    assert posted.run is None, "nobody stands in the market"
    assert await poster.fetch(posted.cid) == DEFINITION
    await poster.extend(posted.job, 40)
    view = await poster.job(posted.job)
    assert (view.state, view.timeout, view.project) == ("Queued", 100, world.poster.address)
    assert view.definition_cid == posted.cid
    assert (view.totals.deposited, view.totals.earned) == (100_000, 0)
    assert await poster.result(view) is None
    await poster.delist(posted.job)
    with pytest.raises(UnknownJob, match="delisted"):
        await poster.job(posted.job)


async def test_the_markets_own_timeout_is_the_default(world: World, poster: Poster) -> None:
    posted = await poster.post(DEFINITION, world.market)
    assert (await poster.job(posted.job)).timeout == 7_200


async def test_what_the_program_refuses_is_said_in_its_words(world: World, poster: Poster) -> None:
    posted = await poster.post(DEFINITION, world.market, timeout=60)
    with pytest.raises(WorldError, match="does not run"):
        await poster.end(posted.job)
    async with Poster(rpc=world.rpc, ipfs=world.ipfs, keypair=Keypair()) as stranger:
        with pytest.raises(TransactionFailed, match="no record of a prior credit"):
            await stranger.post(DEFINITION, world.market)
    with pytest.raises(WorldError, match="no market"):
        await poster.post(DEFINITION, world.host.address)
    with pytest.raises(WorldError, match="not a Solana address"):
        await poster.job("0x12")


async def test_a_deposit_that_is_too_large_is_refused(world: World, poster: Poster) -> None:
    with pytest.raises(TransactionFailed, match="refused the transaction"):
        await poster.post(DEFINITION, world.market, timeout=10**9)


async def test_the_world_says_where_it_is(world: World, tmp_path: Path) -> None:
    assert WorldFolder(tmp_path).read() == world
    for party in (world.host, world.poster, world.market_authority):
        assert_keypair_file(Path(party.keypair), party.address)


async def test_the_gateway_knows_no_host_without_a_cluster(world: World) -> None:
    async with aiohttp.ClientSession() as session, session.get(world.gateway) as response:
        assert response.status == 404


async def test_the_record_goes_when_the_world_ends(tmp_path: Path) -> None:
    async with running_world(WorldOptions(tmp_path, price=1, slot_seconds=0.02, finality=1)):
        pass
    with pytest.raises(NotRunning, match="nosana-sandbox up"):
        WorldFolder(tmp_path).read()


def assert_keypair_file(path: Path, address: str) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(json.loads(path.read_text())) == 64
    assert str(read_keypair(path).pubkey()) == address
