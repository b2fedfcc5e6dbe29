"""What a key signed, as a node tells it: the chain's own histories, not ours of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.chain_world import RESULT, World, running_world

pytestmark = pytest.mark.contract


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as made:
        yield made


async def test_what_the_key_signed_is_told_from_what_only_names_it(world: World) -> None:
    client, host = world.client, world.host.address
    run, job = await world.match()
    gift = client.program.create_nos_account(payer=world.poster.address, owner=host)
    await world.confirm(await client.sign("gift", [gift], world.poster))
    await world.end(run, job)
    await world.confirm(await client.sign_complete(world.host, job, RESULT), finalized=True)

    history = await client.fetch_history(host, until=None)

    kinds = [await client.signed_by(one.signature, host) for one in history]
    assert [kind for kind in kinds if kind is not None] == ["complete", "work"], "the newest first"
    assert None in kinds, "a gift names the key, which did not sign it"
    slots = [one.slot for one in history]
    assert slots == sorted(slots, reverse=True)
    newest = history[0]
    assert newest.err is None
    assert await client.signed_by(newest.signature, world.poster.address) is None
    assert await client.fetch_history(host, until=newest.signature) == []
    later = await world.confirm(await client.sign_work(world.host, world.market), finalized=True)
    (found,) = await client.fetch_history(host, until=newest.signature)
    assert found.signature == later.signature
    older = await client.fetch_history(host, until=None, before=history[0].signature, limit=1)
    assert older == history[1:2], "a page"
