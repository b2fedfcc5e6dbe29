"""The operator's IPFS clients against the sandbox's IPFS: pinning, fetching, and faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from nosana_operator.content import (
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    ContentUnreachable,
    FetchTimeouts,
    IpfsGateways,
    KuboPinner,
    PinataPinner,
    Pinner,
    PinRefused,
    PinUnavailable,
    cid_of,
)
from nosana_sandbox.ipfs import IpfsStore, ipfs_app

pytestmark = pytest.mark.contract

SMALL = b'{"ops": []}'
LARGE = bytes(range(256)) * 3000


@dataclass
class World:
    store: IpfsStore
    url: str
    session: aiohttp.ClientSession

    @property
    def gateways(self) -> IpfsGateways:
        return IpfsGateways([self.url], self.session, FetchTimeouts(request=0.5, gateway=1))

    def pinner(self, kind: str, jwt: str = "right") -> Pinner:
        if kind == "kubo":
            return KuboPinner(self.url, self.session, timeout=1)
        return PinataPinner(self.url, self.session, jwt, timeout=1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    store = IpfsStore()
    server = TestServer(ipfs_app(store, token="right"))
    await server.start_server(shutdown_timeout=0)
    async with aiohttp.ClientSession() as session:
        yield World(store, str(server.make_url("/")), session)
    await server.close()


@pytest.mark.parametrize("kind", ["kubo", "pinata"])
@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "one block", "three blocks"])
async def test_what_is_pinned_is_what_is_fetched(world: World, kind: str, data: bytes) -> None:
    cid = await world.pinner(kind).pin(data, "result.json")
    assert cid == cid_of(data)
    assert world.store.pins[cid].name == "result.json"
    assert await world.gateways.fetch(cid) == data


async def test_pinning_again_is_harmless(world: World) -> None:
    pinner = world.pinner("kubo")
    assert await pinner.pin(SMALL, "a") == await pinner.pin(SMALL, "a")
    assert len(world.store.pins) == 1


async def test_wrong_credentials_are_refused(world: World) -> None:
    with pytest.raises(PinRefused, match="check the pin credentials") as raised:
        await world.pinner("pinata", jwt="a-wrong-token").pin(SMALL, "a")
    assert "a-wrong-token" not in str(raised.value)


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "hang"])
async def test_an_outage_is_unknown_to_both_clients(world: World, fault: int | str) -> None:
    cid = world.store.add(SMALL).cid
    world.store.unreachable = fault  # type: ignore[assignment]
    with pytest.raises(ContentUnreachable):
        await world.gateways.fetch(cid)
    with pytest.raises(PinUnavailable):
        await world.pinner("kubo").pin(SMALL, "a")
    world.store.unreachable = None
    assert await world.gateways.fetch(cid) == SMALL


async def test_missing_content_is_not_found(world: World) -> None:
    with pytest.raises(ContentNotFound, match="pin it"):
        await world.gateways.fetch(cid_of(b"never pinned"))


async def test_content_that_does_not_match_is_refused(world: World) -> None:
    cid = world.store.add(SMALL).cid
    world.store.corrupt(cid, b'{"ops": ["evil"]}')
    with pytest.raises(ContentMismatch, match=cid):
        await world.gateways.fetch(cid)


async def test_a_file_that_is_too_large_is_refused(world: World) -> None:
    cid = world.store.add(b"x" * (1024 * 1024 + 1)).cid
    with pytest.raises(ContentTooLarge, match="1048577 bytes"):
        await world.gateways.fetch(cid)
    exactly = world.store.add(b"x" * (1024 * 1024)).cid
    assert len(await world.gateways.fetch(exactly)) == 1024 * 1024
