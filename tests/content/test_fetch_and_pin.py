"""Gateways and pin services that work, fail or return wrong data, as HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from yarl import URL

from nosana_operator.content import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    ContentUnreachable,
    FetchTimeouts,
    InvalidCid,
    IpfsGateways,
    KuboPinner,
    PinataPinner,
    PinMismatch,
    PinRefused,
    PinUnavailable,
    build_unixfs,
    cid_from_digest,
    cid_of,
    dagpb,
    digest_of,
    parse_cid,
)
from nosana_operator.content.dagpb import Link, encode_inner, encode_leaf
from nosana_operator.content.fetch import DEFAULT_SIZE_LIMIT, MAX_BLOCK
from nosana_operator.content.http import RedirectFailed, redirected
from nosana_operator.content.service_check import check_gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
TEXT = b'{"ops": []}'


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", handler)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return str(server.make_url("")).rstrip("/")

    yield start
    for server in servers:
        await server.close()


def blocks_only(blocks: dict[str, bytes], whole: bytes | None = None) -> Handler:
    """A gateway with raw blocks. Its plain response is `whole`; an honest gateway assembles the file."""

    async def handle(request: web.Request) -> web.Response:
        cid = request.path.removeprefix("/ipfs/")
        if request.query.get("format") == "raw":
            return web.Response(body=blocks[cid]) if cid in blocks else web.Response(status=404)
        return web.Response(body=whole) if whole is not None else web.Response(status=404)

    return handle


def status_only(status: int, body: bytes = b"") -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    return handle


def tree(*leaves: bytes, raw: bool = False) -> tuple[str, dict[str, bytes]]:
    """A file with the given leaves, as DAG-PB (CIDv0) or raw (CIDv1) blocks."""
    blocks, children = {}, []
    for leaf in leaves:
        block = leaf if raw else encode_leaf(leaf)
        digest = hashlib.sha256(block).digest()
        binary = (b"\x01\x55" if raw else b"") + b"\x12\x20" + digest
        blocks[str(parse_cid(binary))] = block
        children.append((Link(binary, len(block)), len(leaf)))
    root = encode_inner(children)
    cid = cid_from_digest(hashlib.sha256(root).digest())
    return cid, {**blocks, cid: root}


async def test_the_first_gateway_returns_the_exact_bytes(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    url = await serve(blocks_only({}, TEXT))
    assert await IpfsGateways([url + "/"], session).fetch(cid_of(TEXT)) == TEXT


async def test_a_gateway_that_fails_or_lies_is_skipped(session: aiohttp.ClientSession, serve: Serve) -> None:
    urls = [
        "http://127.0.0.1:9",
        await serve(status_only(500)),
        await serve(status_only(404)),
        await serve(status_only(200, b"something else")),
        await serve(blocks_only({}, TEXT)),
    ]
    assert await IpfsGateways(urls, session).fetch(cid_of(TEXT)) == TEXT


@pytest.mark.parametrize("raw", [False, True], ids=["dag-pb leaves", "raw leaves"])
async def test_other_chunking_is_verified_block_by_block(
    session: aiohttp.ClientSession, serve: Serve, raw: bool
) -> None:
    cid, blocks = tree(b"one ", b"two ", b"one ", b"three", raw=raw)
    whole = b"one two one three"
    assert cid != cid_of(whole)
    url = await serve(blocks_only(blocks, whole))
    assert await IpfsGateways([url], session).fetch(cid) == whole


async def test_several_chunks_of_the_default_layout(session: aiohttp.ClientSession, serve: Serve) -> None:
    data = bytes(range(256)) * 2500
    file = build_unixfs(data)
    url = await serve(blocks_only(file.blocks, b"the plain response is wrong"))
    assert await IpfsGateways([url], session).fetch(file.root) == data


async def test_one_forged_block_invalidates_the_file(session: aiohttp.ClientSession, serve: Serve) -> None:
    cid, blocks = tree(b"one ", b"two ")
    leaf = next(name for name in blocks if name != cid)
    url = await serve(blocks_only({**blocks, leaf: encode_leaf(b"evil")}, b"evil two "))
    with pytest.raises(ContentMismatch):
        await IpfsGateways([url], session).fetch(cid)


async def test_all_lying_is_final(session: aiohttp.ClientSession, serve: Serve) -> None:
    urls = [await serve(status_only(200, b"x")), await serve(status_only(200, b"y"))]
    with pytest.raises(ContentMismatch) as raised:
        await IpfsGateways(urls, session).fetch(cid_of(TEXT))
    assert raised.value.retryable is False


@pytest.mark.parametrize(
    ("others", "kind"),
    [((404, 200), ContentNotFound), ((404, 500), ContentUnreachable), ((429,), ContentUnreachable)],
    ids=str,
)
async def test_unknown_and_missing_content_is_retryable(
    session: aiohttp.ClientSession,
    serve: Serve,
    others: tuple[int, ...],
    kind: type[ContentNotFound | ContentUnreachable],
) -> None:
    urls = [await serve(status_only(status, b"not it")) for status in others]
    with pytest.raises(kind) as raised:
        await IpfsGateways(urls, session).fetch(cid_of(TEXT))
    assert raised.value.retryable is True


async def test_a_silent_gateway_times_out(session: aiohttp.ClientSession, serve: Serve) -> None:
    stop = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    url = await serve(hang)
    gateways = IpfsGateways([url], session, FetchTimeouts(request=0.05, gateway=0.2))
    with pytest.raises(ContentUnreachable, match=r"no response in 0\.05 s") as raised:
        await gateways.fetch(cid_of(TEXT))
    assert 0.04 < raised.value.seconds < 5
    stop.set()


def keyed(url: str) -> str:
    """The URL with a password, and a key in its path, as some services require."""
    return url.replace("http://", "http://user:s3cret@") + "/key/s3cret"


async def to_itself(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path)


FAILURES = {
    "404": status_only(404),
    "500": status_only(500),
    "another file": status_only(200, b"x"),
    "in circles": to_itself,
}


@pytest.mark.parametrize("handlers", [*([one] for one in FAILURES), ["404", "500"], ["away", "404"]], ids=str)
async def test_errors_do_not_contain_a_gateways_url(
    session: aiohttp.ClientSession, serve: Serve, handlers: list[str]
) -> None:
    """These errors may be published with a job's result."""
    urls = [
        keyed("http://127.0.0.1:9" if name == "away" else await serve(FAILURES[name])) for name in handlers
    ]
    with pytest.raises(ContentError) as raised:
        await IpfsGateways(urls, session).fetch(cid_of(TEXT))
    shown = "".join(traceback.format_exception(raised.value))
    assert not any(word in shown for word in ("s3cret", "127.0.0.1", "http://"))


async def test_a_failing_gateway_is_named_by_its_number(session: aiohttp.ClientSession, serve: Serve) -> None:
    urls = [await serve(status_only(404)), await serve(status_only(503)), "http://127.0.0.1:9"]
    with pytest.raises(ContentUnreachable, match=r"gateway 2: HTTP 503; gateway 3: Client\w+Error"):
        await IpfsGateways(urls, session).fetch(cid_of(TEXT))
    with pytest.raises(ContentNotFound, match="not on gateway 1;"):
        await IpfsGateways([urls[0], await serve(status_only(200, b"x"))], session).fetch(cid_of(TEXT))


async def test_without_gateways_content_is_unreachable(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ContentUnreachable, match="no gateway is set"):
        await IpfsGateways([], session).fetch(cid_of(TEXT))


async def test_the_root_block_proves_the_size(session: aiohttp.ClientSession, serve: Serve) -> None:
    data = b"x" * 3000
    file = build_unixfs(data)
    url = await serve(blocks_only(file.blocks, data))
    with pytest.raises(ContentTooLarge, match="3000 bytes"):
        await IpfsGateways([url], session, size_limit=2999).fetch(file.root)
    assert await IpfsGateways([url], session, size_limit=3000).fetch(file.root) == data


async def test_a_small_tree_that_expands_to_a_large_file_is_refused(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    cid, blocks = tree(*[b"x" * 1000] * 170)
    for _ in range(3):
        inner = blocks[cid]
        link = Link(b"\x12\x20" + hashlib.sha256(inner).digest(), len(inner))
        root = encode_inner([(link, 0)] * 170)  # claims to be empty
        cid = cid_from_digest(hashlib.sha256(root).digest())
        blocks[cid] = root
    url = await serve(blocks_only(blocks))
    gateways = IpfsGateways([await serve(blocks_only(blocks, b"?")), url], session)
    with pytest.raises(ContentTooLarge):
        await gateways.fetch(cid)


def padded(number: int) -> bytes:
    """A leaf of the largest allowed size without any byte of the file: its record has an unused field."""
    size = MAX_BLOCK - 64
    field = b"\x4a" + varint(size) + number.to_bytes(4, "big") + bytes(size - 4)
    record = b"\x08\x02\x18\x00" + field
    return b"\x0a" + varint(len(record)) + record


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def above(blocks: Iterable[bytes]) -> tuple[str, dict[str, bytes]]:
    """A file with the given blocks below its root."""
    children = {cid_from_digest(hashlib.sha256(block).digest()): block for block in blocks}
    root = encode_inner([(Link(b"\x12\x20" + digest_of(cid), len(one)), 0) for cid, one in children.items()])
    cid = cid_from_digest(hashlib.sha256(root).digest())
    return cid, {**children, cid: root}


def counted(handler: Handler) -> tuple[Handler, list[int]]:
    """The same gateway, and a list of its response sizes in bytes."""
    sent: list[int] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        response = await handler(request)
        body = response.body if isinstance(response, web.Response) else None
        sent.append(len(body) if isinstance(body, bytes) else 0)
        return response

    return handle, sent


async def test_blocks_without_content_count_toward_the_limit(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    cid, blocks = above(padded(number) for number in range(4))
    handle, sent = counted(blocks_only(blocks, b""))
    with pytest.raises(ContentTooLarge, match="2048 KiB"):
        await IpfsGateways([await serve(handle)], session).fetch(cid)
    assert sum(sent) < 2 * DEFAULT_SIZE_LIMIT + MAX_BLOCK


async def test_a_block_with_more_links_than_blocks_are_allowed_is_not_followed(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    link = Link(b"\x12\x20" + bytes(32), 1)
    root = encode_inner([(link, 0)] * 600)
    cid = cid_from_digest(hashlib.sha256(root).digest())
    handle, sent = counted(blocks_only({cid: root}, b""))
    with pytest.raises(ContentTooLarge, match="more or deeper blocks"):
        await IpfsGateways([await serve(handle)], session).fetch(cid)
    assert len(sent) == 2, "the whole file and the root"


async def test_a_block_is_decoded_once_in_a_worker_thread(
    session: aiohttp.ClientSession, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block may take a quarter of a second to decode, and occur in a file five hundred times."""
    threads: list[threading.Thread] = []
    decode = dagpb.decode

    def noted(block: bytes, **limits: int) -> dagpb.Node:
        threads.append(threading.current_thread())
        return decode(block, **limits)

    monkeypatch.setattr(dagpb, "decode", noted)
    cid, blocks = tree(*[b"again "] * 100)
    url = await serve(blocks_only(blocks, b"?"))
    assert await IpfsGateways([url], session).fetch(cid) == b"again " * 100
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("status", [400, 405, 406, 415, 501])
async def test_a_gateway_without_whole_files_is_asked_for_blocks(
    session: aiohttp.ClientSession, serve: Serve, status: int
) -> None:
    file = build_unixfs(bytes(range(256)) * 2500)
    accepted: set[str] = set()

    async def trustless(request: web.Request) -> web.Response:
        if request.query.get("format") != "raw":
            return web.Response(status=status)
        accepted.add(request.headers["Accept"])
        return web.Response(body=file.blocks.get(request.path.removeprefix("/ipfs/"), b""))

    url = await serve(trustless)
    assert await IpfsGateways([url], session).fetch(file.root) == bytes(range(256)) * 2500
    assert accepted == {"application/vnd.ipld.raw"}
    assert await check_gateway(url, session) < 10


async def test_a_gateway_without_blocks_serves_whole_files(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    async def whole(request: web.Request) -> web.Response:
        return web.Response(status=400) if request.query else web.Response(body=TEXT)

    url = await serve(whole)
    assert await IpfsGateways([url], session).fetch(cid_of(TEXT)) == TEXT
    assert await check_gateway(url, session) < 10


async def test_a_gateway_without_both_forms_is_unreachable(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    url = await serve(status_only(406))
    with pytest.raises(ContentUnreachable, match="gateway 1: HTTP 406"):
        await IpfsGateways([url], session).fetch(cid_of(TEXT))
    with pytest.raises(ContentUnreachable, match="HTTP 406"):
        await check_gateway(url, session)


def identity(block: bytes, codec: bytes = b"\x55") -> str:
    assert len(block) < 128
    return str(parse_cid(b"\x01" + codec + b"\x00" + bytes([len(block)]) + block).set(base="base32"))


@pytest.mark.parametrize(
    ("cid", "data"),
    [(identity(b""), b""), (identity(TEXT), TEXT), (identity(encode_leaf(TEXT), b"\x70"), TEXT)],
)
async def test_an_identity_cid_contains_its_bytes(
    session: aiohttp.ClientSession, cid: str, data: bytes
) -> None:
    assert await IpfsGateways([], session).fetch(cid) == data
    assert await IpfsGateways(["http://127.0.0.1:9"], session).fetch(cid) == data
    with pytest.raises(InvalidCid):
        digest_of(cid)


async def test_blocks_below_an_identity_root_are_fetched(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    leaf = encode_leaf(b"below")
    link = Link(b"\x12\x20" + hashlib.sha256(leaf).digest(), len(leaf))
    root = identity(encode_inner([(link, 5)]), b"\x70")
    handle, sent = counted(blocks_only({cid_from_digest(hashlib.sha256(leaf).digest()): leaf}))
    assert await IpfsGateways([await serve(handle)], session).fetch(root) == b"below"
    assert sent == [len(leaf)]


async def test_an_identity_block_counts_toward_the_limit(session: aiohttp.ClientSession) -> None:
    with pytest.raises(ContentTooLarge):
        await IpfsGateways([], session, size_limit=4).fetch(identity(b"12345"))


@pytest.mark.parametrize(
    ("status", "cause"), [(504, True), (408, True), (None, True), (500, False), (503, False), (403, False)]
)
async def test_nobody_may_have_what_a_gateway_searches_in_vain(
    session: aiohttp.ClientSession, serve: Serve, status: int | None, cause: bool
) -> None:
    stop = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    url = await serve(hang if status is None else status_only(status))
    with pytest.raises(ContentUnreachable) as raised:
        await IpfsGateways([url], session, FetchTimeouts(request=0.05 if status is None else 5)).fetch(
            cid_of(TEXT)
        )
    assert ("or nobody has it" in str(raised.value)) is cause
    stop.set()


async def test_a_folder_is_refused(session: aiohttp.ClientSession, serve: Serve) -> None:
    folder = bytes.fromhex("0a020801")
    cid = cid_from_digest(hashlib.sha256(folder).digest())
    url = await serve(blocks_only({cid: folder}, b"<html>index</html>"))
    with pytest.raises(ContentMalformed, match="a folder"):
        await IpfsGateways([url], session).fetch(cid)


# -- redirects of gateways


async def test_a_redirect_to_another_origin_does_not_get_the_credentials(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    seen: list[tuple[str, bool]] = []

    async def other(request: web.Request) -> web.Response:
        seen.append((request.path, "Authorization" in request.headers))
        return web.Response(body=TEXT)

    there = await serve(other)

    async def gateway(request: web.Request) -> web.Response:
        seen.append((request.path, "Authorization" in request.headers))
        target = f"{there}/elsewhere" if request.path == "/moved" else "/moved"
        return web.Response(status=307, headers={"Location": target})

    url = (await serve(gateway)).replace("http://", "http://user:s3cret@")
    assert await IpfsGateways([url], session).fetch(cid_of(TEXT)) == TEXT
    assert seen == [(f"/ipfs/{cid_of(TEXT)}", True), ("/moved", True), ("/elsewhere", False)]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://bafy.ipfs.localhost:8080/", r"redirects to a subdomain of localhost.* use 127\.0\.0\.1"),
        ("http://bafy.ipfs.gateway.invalid/", "redirects to a host name that does not resolve"),
        ("ftp://127.0.0.1/", "redirects to another protocol"),
        ("http://[", "redirects to an invalid URL"),
        ("", "HTTP 301"),
        ("/ipfs/again", "redirects more than 5 times"),
    ],
)
async def test_a_redirect_that_leads_nowhere_is_the_reason(serve: Serve, location: str, reason: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": location} if location else None)

    url = await serve(handle)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Unresolved())) as session:
        with pytest.raises(ContentUnreachable, match=f"gateway 1: .*{reason}") as raised:
            await IpfsGateways([url], session).fetch(cid_of(TEXT))
        assert "bafy" not in str(raised.value)
        with pytest.raises(ContentUnreachable, match=reason):
            await check_gateway(url, session)


class Unresolved(AbstractResolver):
    """No host name resolves."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        raise OSError("Name or service not known")

    async def close(self) -> None:
        """Do nothing."""


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with pytest.raises(RedirectFailed, match="from https to http"):
        redirected(URL("https://gateway.example/ipfs/Qm"), "http://gateway.example/ipfs/Qm")


# -- pinning


class Kubo:
    """A node whose `pin/ls` and `cat` respond as given."""

    def __init__(
        self,
        cid: str = cid_of(TEXT),
        listed: tuple[int, object] | None = None,
        cat: tuple[int, bytes] = (403, b""),
    ) -> None:
        self.cid = cid
        self.listed = listed or (200, {"Keys": {cid: {"Type": "recursive", "Name": ""}}})
        self.cat = cat
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.body = b""
        self.filename = ""

    async def handle(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/api/v0/")
        self.requests.append((path, dict(request.query)))
        if path == "pin/ls":
            status, document = self.listed
            return web.json_response(document, status=status)
        if path == "cat":
            return web.Response(status=self.cat[0], body=self.cat[1])
        field = (await request.post())["file"]
        assert isinstance(field, web.FileField)
        self.body, self.filename = field.file.read(), field.filename
        line = json.dumps({"Name": "r", "Hash": self.cid, "Size": "19"})
        return web.Response(text=f'{{"Name":"r","Bytes":11}}\n{line}\n', content_type="application/json")


async def test_kubo_gets_the_exact_bytes_and_all_import_settings(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    kubo = Kubo()
    assert await KuboPinner(await serve(kubo.handle), session).pin(TEXT, "a/name") == cid_of(TEXT)
    assert (kubo.body, kubo.filename) == (TEXT, "file"), "Kubo takes a file name with a slash for a path"
    assert kubo.requests == [
        (
            "add",
            {
                "cid-version": "0",
                "hash": "sha2-256",
                "chunker": "size-262144",
                "raw-leaves": "false",
                "trickle": "false",
                "max-file-links": "174",
                "inline": "false",
                "wrap-with-directory": "false",
                "preserve-mode": "false",
                "preserve-mtime": "false",
                "pin": "true",
                "pin-name": "a/name",
                "quieter": "true",
            },
        ),
        ("pin/ls", {"arg": cid_of(TEXT), "type": "recursive"}),
    ]


NOT_PINNED = {"Message": "path 'Qm' is not pinned", "Code": 0, "Type": "error"}


@pytest.mark.parametrize(
    ("listed", "cat", "kind", "message"),
    [
        ((500, NOT_PINNED), (200, TEXT), PinUnavailable, "did not pin it .HTTP 500: path 'Qm' is not pinned"),
        ((503, {}), (200, TEXT), PinUnavailable, "HTTP 503"),
        ((200, {"Keys": {}}), (200, TEXT), PinUnavailable, "did not pin it"),
        ((200, {"Keys": {cid_of(b"another"): {}}}), (200, TEXT), PinUnavailable, "did not pin it"),
        ((200, []), (200, TEXT), PinUnavailable, "did not pin it"),
        ((403, {}), (200, b"other bytes"), PinUnavailable, "did not pin it"),
        ((404, {}), (500, b""), PinUnavailable, "did not pin it .HTTP 500"),
        ((403, {}), (403, b""), PinRefused, "allow the path /api/v0/pin/ls"),
        ((404, {}), (200, TEXT), None, ""),
        ((403, {}), (200, TEXT), None, ""),
    ],
)
async def test_a_hash_alone_is_not_a_pin(
    session: aiohttp.ClientSession,
    serve: Serve,
    listed: tuple[int, object],
    cat: tuple[int, bytes],
    kind: type[PinRefused | PinUnavailable] | None,
    message: str,
) -> None:
    """Kubo writes the hash before it pins; a later failure is in a trailer of the response with status 200."""
    pinner = KuboPinner(await serve(Kubo(listed=listed, cat=cat).handle), session)
    if kind is None:
        assert await pinner.pin(TEXT, "r") == cid_of(TEXT)
        return
    with pytest.raises(kind, match=message):
        await pinner.pin(TEXT, "r")


async def test_the_bytes_of_a_large_result_confirm_its_pin(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    data = b"x" * 200_000
    kubo = Kubo(cid_of(data), listed=(403, {}), cat=(200, data))
    assert await KuboPinner(await serve(kubo.handle), session).pin(data, "r") == cid_of(data)


def as_v1(cid: str) -> str:
    return str(parse_cid(cid).set(base="base32", version=1))


async def test_the_same_bytes_may_be_named_by_a_cidv1(session: aiohttp.ClientSession, serve: Serve) -> None:
    """CIDv0 and CIDv1 of one block have the same multihash."""
    kubo = Kubo(as_v1(cid_of(TEXT)))
    assert await KuboPinner(await serve(kubo.handle), session).pin(TEXT, "r") == cid_of(TEXT)
    pinata = status_only(200, json.dumps({"IpfsHash": as_v1(cid_of(TEXT))}).encode())
    assert await PinataPinner(await serve(pinata), session, "jwt").pin(TEXT, "r") == cid_of(TEXT)
    other = status_only(200, json.dumps({"IpfsHash": as_v1(cid_of(b"re-encoded"))}).encode())
    with pytest.raises(PinMismatch):
        await PinataPinner(await serve(other), session, "jwt").pin(TEXT, "r")


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (
            500,
            {"Message": "CIDv0 only supports sha2-256", "Code": 0, "Type": "error"},
            "HTTP 500: CIDv0 only supports",
        ),
        (
            400,
            {"error": {"reason": "INVALID", "details": "account limit reached"}},
            "HTTP 400: account limit reached",
        ),
        (403, {"error": "quota\nexceeded"}, "HTTP 403: quota exceeded"),
        (400, {"message": "no /key/s3cret"}, "HTTP 400\\)"),
        (400, {"message": "bad token t0ken"}, "HTTP 400\\)"),
        (400, {"message": ["a list"]}, "HTTP 400\\)"),
        (500, ["not an object"], "HTTP 500;"),
    ],
)
async def test_the_services_own_message_is_shown(
    session: aiohttp.ClientSession, serve: Serve, status: int, body: object, shown: str
) -> None:
    """Unless it repeats a secret."""
    url = await serve(status_only(status, json.dumps(body).encode())) + "/key/s3cret"
    for pinner in (PinataPinner(url, session, "t0ken"), KuboPinner(url, session, "Bearer t0ken")):
        with pytest.raises(ContentError, match=shown) as raised:
            await pinner.pin(TEXT, "r")
        assert not any(word in str(raised.value) for word in ("s3cret", "t0ken"))


async def test_a_response_without_a_cid_is_not_a_mismatch(
    session: aiohttp.ClientSession, serve: Serve
) -> None:
    with pytest.raises(PinUnavailable, match="did not return a CID"):
        await KuboPinner(await serve(status_only(200, b'{"Type": "error"}')), session).pin(TEXT, "r")


async def test_pinata_gets_the_file_and_the_token(session: aiohttp.ClientSession, serve: Serve) -> None:
    seen: dict[str, object] = {}

    async def pin(request: web.Request) -> web.Response:
        form = await request.post()
        field = form["file"]
        assert isinstance(field, web.FileField)
        seen.update(
            path=request.path,
            token=request.headers["Authorization"],
            body=field.file.read(),
            options=json.loads(str(form["pinataOptions"])),
        )
        return web.json_response(
            {"IpfsHash": cid_of(TEXT), "PinSize": 19, "Timestamp": "2026-01-01T00:00:00Z"}
        )

    url = await serve(pin)
    assert await PinataPinner(url, session, "secret-token").pin(TEXT, "result.json") == cid_of(TEXT)
    assert seen == {
        "path": "/pinning/pinFileToIPFS",
        "token": "Bearer secret-token",
        "body": TEXT,
        "options": {"cidVersion": 0},
    }


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (status_only(200, json.dumps({"IpfsHash": cid_of(b"re-encoded")}).encode()), PinMismatch),
        (status_only(200, b"<html>"), PinUnavailable),
        (status_only(200, b"x" * 100_000), PinUnavailable),
        (status_only(401), PinRefused),
        (status_only(400), PinRefused),
        (status_only(429), PinUnavailable),
        (status_only(503), PinUnavailable),
    ],
)
async def test_a_failed_pin_raises(
    session: aiohttp.ClientSession, serve: Serve, handler: Handler, kind: type[PinRefused | PinUnavailable]
) -> None:
    with pytest.raises(kind) as raised:
        await PinataPinner(await serve(handler), session, "secret-token").pin(TEXT, "r")
    assert "secret-token" not in str(raised.value)


@pytest.mark.parametrize("status", [None, 200, 401, 418, 503])
async def test_errors_do_not_contain_a_pin_services_url(
    session: aiohttp.ClientSession, serve: Serve, status: int | None
) -> None:
    """Errors go into logs; the label names the service."""
    body = json.dumps({"Hash": cid_of(b"something else")}).encode()
    url = keyed("http://127.0.0.1:9" if status is None else await serve(status_only(status, body)))
    with pytest.raises(ContentError, match=r"^networks\.x\.ipfs\.pin\[1\] ") as raised:
        await KuboPinner(url, session, label="networks.x.ipfs.pin[1]").pin(TEXT, "r")
    shown = "".join(traceback.format_exception(raised.value))
    assert not any(word in shown for word in ("s3cret", "127.0.0.1", "http://"))


async def test_a_silent_pin_service_times_out(session: aiohttp.ClientSession, serve: Serve) -> None:
    stop = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    url = keyed(await serve(hang))
    with pytest.raises(PinUnavailable, match=r"did not respond in 0\.05 s") as raised:
        await KuboPinner(url, session, timeout=0.05).pin(TEXT, "r")
    assert "127.0.0.1" not in "".join(traceback.format_exception(raised.value))
    stop.set()


@pytest.mark.parametrize("token", ["s3cret", "s3\ncret"])
async def test_invalid_header_values_are_refused(session: aiohttp.ClientSession, token: str) -> None:
    with pytest.raises(PinRefused, match="its URL or its token") as raised:
        await PinataPinner(keyed("http://127.0.0.1:9"), session, token).pin(TEXT, "r")
    assert "cret" not in "".join(traceback.format_exception(raised.value))
