"""What the chain client tells of its transactions: each once, with the fee that the chain took."""

from __future__ import annotations

import pytest

from nosana_operator.chain import ChainClient, FeePolicy, OutcomeState, SignedTransaction
from nosana_sandbox.chain import Commitment
from support.chain_world import World, eventually, running_world

pytestmark = pytest.mark.contract


async def outcome(client: ChainClient, signed: SignedTransaction) -> OutcomeState:
    return (await client.outcome(signed.signature, signed.last_valid_block_height)).state


async def over(client: ChainClient, signed: SignedTransaction) -> None:
    async def look() -> bool:
        return await outcome(client, signed) is not OutcomeState.PENDING

    await eventually(look)


def telling(world: World) -> tuple[ChainClient, list[tuple[str, str, int]]]:
    told: list[tuple[str, str, int]] = []
    client = ChainClient(
        world.client.network,
        world.session,
        on_transaction=lambda kind, became, fee: told.append((kind, became, fee)),
    )
    return client, told


@pytest.mark.parametrize(
    "policy", [FeePolicy(), FeePolicy(priority="fixed", price=50_001)], ids=["plain", "priced"]
)
async def test_a_fee_is_what_the_chain_took_and_told_once(policy: FeePolicy) -> None:
    async with running_world(fees=policy) as world:
        client, told = telling(world)
        work = await client.sign_work(world.host, world.market)
        await client.send(work.raw, first=True)
        await over(client, work)
        before = await client.fetch_wallet_state(world.host.address)
        stop = await client.sign_stop(world.host, world.market)
        await client.send(stop.raw, first=True)
        await over(client, stop)
        await over(client, stop)
        after = await client.fetch_wallet_state(world.host.address)
        assert [(kind, became) for kind, became, _ in told] == [("work", "landed"), ("stop", "landed")]
        assert told[1][2] == before.lamports - after.lamports
        assert (told[1][2] > 5_000) == bool(policy.price)


async def test_a_failure_costs_its_fee_and_what_expires_nothing() -> None:
    async with running_world() as world:
        client, told = telling(world)
        stop = await client.sign_stop(world.host, world.market)
        await client.send(stop.raw, first=False)
        await over(client, stop)
        unsent = await client.sign_work(world.host, world.market)
        bank = world.founded.bank
        while bank.height_at(Commitment.FINALIZED) <= unsent.last_valid_block_height:
            bank.tick()
        assert await outcome(client, unsent) is OutcomeState.EXPIRED
        assert told == [("stop", "failed", 5_000), ("work", "expired", 0)]
