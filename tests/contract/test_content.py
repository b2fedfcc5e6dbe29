"""The operator's IPFS clients against Kubo and the sandbox's stand-in for it: pinning, fetching, and faults."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
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
    parse_cid,
)
from nosana_operator.content.dagpb import Link, encode_inner, encode_leaf
from nosana_operator.content.service_check import check_gateway, check_pin_service
from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.build import ensure_kubo, kubo_key
from nosana_sandbox.ipfs import IpfsStore, ipfs_app
from nosana_sandbox.kubo import KuboNode, kubo_node

pytestmark = pytest.mark.contract

SMALL = b'{"ops": []}'
LARGE = bytes(range(256)) * 3000
MORE_THAN_174_BLOCKS = bytes(range(256)) * 1024 * 175
SIZE_LIMIT = 64 * 1024 * 1024
RunKubo = Callable[..., AbstractContextManager[KuboNode]]
OTHER_SETTINGS: dict[str, Any] = {
    "Import": {
        "CidVersion": 1,
        "HashFunction": "blake2b-256",
        "UnixFSChunker": "size-65536",
        "UnixFSRawLeaves": True,
        "UnixFSDAGLayout": "trickle",
        "UnixFSFileMaxLinks": 1024,
    },
    "Gateway": {"DeserializedResponses": False},
}
"""A node that imports in another way than the operator, with a trustless gateway."""


@dataclass
class Node:
    """An IPFS node with its API and its gateway."""

    api: str
    gateway: str
    session: aiohttp.ClientSession

    @property
    def gateways(self) -> IpfsGateways:
        timeouts = FetchTimeouts(request=20, gateway=60)
        return IpfsGateways([self.gateway], self.session, timeouts, size_limit=SIZE_LIMIT)

    @property
    def pinner(self) -> Pinner:
        return KuboPinner(self.api, self.session)

    async def pin_names(self) -> dict[str, str]:
        async with self.session.post(f"{self.api}/api/v0/pin/ls?names=true") as response:
            return {cid: pin["Name"] for cid, pin in (await response.json())["Keys"].items()}

    async def put(self, block: bytes, codec: str = "dag-pb") -> None:
        form = aiohttp.FormData()
        form.add_field("data", block, filename="block")
        async with self.session.post(
            f"{self.api}/api/v0/block/put?cid-codec={codec}&mhtype=sha2-256", data=form
        ) as response:
            assert response.status == 200, await response.text()


@pytest.fixture(scope="session")
def run_kubo(tmp_path_factory: pytest.TempPathFactory) -> RunKubo:
    built = cache_folder() / kubo_key() / "bin" / "ipfs"
    if os.environ.get("CI") != "true" and not built.is_file():
        pytest.skip("the program is not built yet; `python -m nosana_sandbox.prepare` builds it")
    program = ensure_kubo(print)
    return lambda *args, **options: kubo_node(program, tmp_path_factory.mktemp("kubo"), *args, **options)


@pytest.fixture(scope="session")
def kubo(run_kubo: RunKubo) -> Iterator[KuboNode]:
    with run_kubo() as running:
        yield running


@pytest.fixture(scope="session")
def other_kubo(run_kubo: RunKubo) -> Iterator[KuboNode]:
    with run_kubo(OTHER_SETTINGS) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture(params=["stand-in", "kubo"])
async def node(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> AsyncIterator[Node]:
    if request.param == "kubo":
        running: KuboNode = request.getfixturevalue("kubo")
        yield Node(running.api, running.gateway, session)
        return
    async with TestServer(ipfs_app(IpfsStore())) as server:
        url = str(server.make_url("")).rstrip("/")
        yield Node(url, url, session)


@pytest.fixture(params=["stand-in", "kubo"])
async def other_node(request: pytest.FixtureRequest, session: aiohttp.ClientSession) -> AsyncIterator[Node]:
    """With OTHER_SETTINGS, or what the stand-in knows of them."""
    if request.param == "kubo":
        running: KuboNode = request.getfixturevalue("other_kubo")
        yield Node(running.api, running.gateway, session)
        return
    store = IpfsStore(
        trustless=True,
        import_settings={
            "cid-version": "1",
            "hash": "blake2b-256",
            "chunker": "size-65536",
            "raw-leaves": "true",
            "trickle": "true",
            "max-file-links": "1024",
        },
    )
    async with TestServer(ipfs_app(store)) as server:
        url = str(server.make_url("")).rstrip("/")
        yield Node(url, url, session)


def raw_link(data: bytes) -> Link:
    return Link(b"\x01\x55\x12\x20" + hashlib.sha256(data).digest(), len(data))


# -- on Kubo and on the stand-in ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", SMALL, LARGE, MORE_THAN_174_BLOCKS],
    ids=["empty", "one block", "three blocks", "175 blocks"],
)
async def test_what_is_pinned_is_what_is_fetched(node: Node, data: bytes) -> None:
    cid = await node.pinner.pin(data, "namespace-result")
    assert cid == cid_of(data)
    assert (await node.pin_names())[cid] == "namespace-result"
    assert await node.gateways.fetch(cid) == data


@pytest.mark.parametrize(
    "data", [b"", SMALL, LARGE, MORE_THAN_174_BLOCKS], ids=["empty", "one", "three", "175"]
)
async def test_the_nodes_own_import_settings_do_not_change_the_cid(other_node: Node, data: bytes) -> None:
    assert await other_node.pinner.pin(data, "result") == cid_of(data)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "one block", "three blocks"])
async def test_a_trustless_gateway_serves_files_block_by_block(other_node: Node, data: bytes) -> None:
    cid = await other_node.pinner.pin(data, "result")
    async with other_node.session.get(f"{other_node.gateway}/ipfs/{cid}") as response:
        assert response.status == 406, "it does not serve whole files"
    assert await other_node.gateways.fetch(cid) == data
    with pytest.raises(ContentNotFound):
        await other_node.gateways.fetch(cid_of(b"never pinned"))


async def test_the_service_check_accepts_both_kinds_of_gateways(node: Node, other_node: Node) -> None:
    for one in (node, other_node):
        assert await check_gateway(one.gateway, one.session) < 10
        await check_pin_service("kubo", one.api, None, one.session)


async def test_pinning_again_is_harmless(node: Node) -> None:
    assert await node.pinner.pin(b"twice", "a") == await node.pinner.pin(b"twice", "a")


async def test_a_pins_name_may_contain_a_slash(node: Node) -> None:
    cid = await node.pinner.pin(b"in a folder?", "namespace/name")
    assert (await node.pin_names())[cid] == "namespace/name"


async def test_missing_content_is_not_found(node: Node) -> None:
    with pytest.raises(ContentNotFound, match="pin it"):
        await node.gateways.fetch(cid_of(b"never pinned"))


async def test_a_file_that_is_too_large_is_refused(node: Node) -> None:
    gateways = IpfsGateways([node.gateway], node.session)
    too_large = await node.pinner.pin(b"x" * (1024 * 1024 + 1), "a")
    with pytest.raises(ContentTooLarge, match="1048577 bytes"):
        await gateways.fetch(too_large)
    exactly = await node.pinner.pin(b"x" * (1024 * 1024), "a")
    assert len(await gateways.fetch(exactly)) == 1024 * 1024


@pytest.mark.parametrize("other", [False, True], ids=["whole files", "blocks only"])
async def test_raw_and_inlined_leaves_are_joined(node: Node, other_node: Node, other: bool) -> None:
    """As `ipfs add --raw-leaves --inline` makes them: the last leaf is an identity CID."""
    one = other_node if other else node
    leaves = [b"raw leaf ", b"dag-pb leaf ", b"inlined leaf"]
    inner = encode_leaf(leaves[1])
    links = [
        raw_link(leaves[0]),
        Link(b"\x12\x20" + hashlib.sha256(inner).digest(), len(inner)),
        Link(b"\x01\x55\x00" + bytes([len(leaves[2])]) + leaves[2], len(leaves[2])),
    ]
    root = encode_inner([(link, len(leaf)) for link, leaf in zip(links, leaves, strict=True)])
    await one.put(leaves[0], "raw")
    await one.put(inner)
    await one.put(root)
    cid = cid_of_block(root)
    assert await one.gateways.fetch(cid) == b"".join(leaves)


def cid_of_block(block: bytes) -> str:
    return str(parse_cid(b"\x12\x20" + hashlib.sha256(block).digest()))


async def test_an_identity_cid_needs_no_gateway(node: Node) -> None:
    cid = "bafkqablimvwgy3y"
    async with node.session.get(f"{node.gateway}/ipfs/{cid}") as response:
        assert await response.read() == b"hello"
    assert await IpfsGateways([], node.session).fetch(cid) == b"hello"


# -- on Kubo alone ------------------------------------------------------------------------------------------


class NoSubdomains(AbstractResolver):
    """A machine whose resolver knows localhost, but no subdomain of it."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host != "localhost":
            raise OSError("Name or service not known")
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Do nothing."""


async def test_a_redirect_of_kubo_on_localhost_is_explained(kubo: KuboNode) -> None:
    url = kubo.gateway.replace("127.0.0.1", "localhost")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=NoSubdomains())) as session:
        with pytest.raises(
            ContentUnreachable, match=r"redirects to a subdomain of localhost.* use 127\.0\.0\.1"
        ):
            await IpfsGateways([url], session).fetch(cid_of(SMALL))
        with pytest.raises(ContentUnreachable, match=r"use 127\.0\.0\.1"):
            await check_gateway(url, session)


async def test_content_that_nobody_has_is_named_as_a_possible_cause(
    run_kubo: RunKubo, session: aiohttp.ClientSession
) -> None:
    """An online node searches until its time-out, and answers 504; the search may take longer than we wait."""
    with run_kubo({"Gateway": {"RetrievalTimeout": "200ms"}}, offline=False) as running:
        for seconds, reason in ((20.0, "HTTP 504"), (0.05, "no response")):
            gateways = IpfsGateways([running.gateway], session, FetchTimeouts(request=seconds))
            with pytest.raises(ContentUnreachable, match=f"{reason}.* or nobody has it"):
                await gateways.fetch(cid_of(b"never pinned"))
        assert await check_gateway(running.gateway, session) < 10, "the check requires no search"


# -- on the stand-in alone: faults, and Pinata's API ---------------------------------------------------------


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


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "one block", "three blocks"])
async def test_what_is_pinned_with_pinatas_api_is_what_is_fetched(world: World, data: bytes) -> None:
    cid = await world.pinner("pinata").pin(data, "result.json")
    assert cid == cid_of(data)
    assert world.store.pins[cid].name == "result.json"
    assert await world.gateways.fetch(cid) == data


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


async def test_content_that_does_not_match_is_refused(world: World) -> None:
    cid = world.store.add(SMALL).cid
    world.store.corrupt(cid, b'{"ops": ["evil"]}')
    with pytest.raises(ContentMismatch, match=cid):
        await world.gateways.fetch(cid)
