"""Gateways and pin services that work, fail or return wrong data, as HTTP servers on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.content import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    ContentUnreachable,
    FetchTimeouts,
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


async def redirected(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.path)


FAILURES = {
    "404": status_only(404),
    "500": status_only(500),
    "another file": status_only(200, b"x"),
    "in circles": redirected,
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


async def test_a_folder_is_refused(session: aiohttp.ClientSession, serve: Serve) -> None:
    folder = bytes.fromhex("0a020801")
    cid = cid_from_digest(hashlib.sha256(folder).digest())
    url = await serve(blocks_only({cid: folder}, b"<html>index</html>"))
    with pytest.raises(ContentMalformed, match="a folder"):
        await IpfsGateways([url], session).fetch(cid)


async def test_kubo_gets_the_exact_bytes(session: aiohttp.ClientSession, serve: Serve) -> None:
    seen: dict[str, object] = {}

    async def add(request: web.Request) -> web.Response:
        form = await request.post()
        field = form["file"]
        assert isinstance(field, web.FileField)
        seen.update(path=request.path, query=dict(request.query), body=field.file.read())
        line = json.dumps({"Name": "r", "Hash": cid_of(TEXT), "Size": "19"})
        return web.Response(text=f'{{"Name":"r","Bytes":11}}\n{line}\n', content_type="application/json")

    url = await serve(add)
    assert await KuboPinner(url, session).pin(TEXT, "result.json") == cid_of(TEXT)
    assert seen["path"] == "/api/v0/add"
    assert seen["body"] == TEXT
    assert seen["query"] == {
        "cid-version": "0",
        "raw-leaves": "false",
        "chunker": "size-262144",
        "pin": "true",
        "quieter": "true",
    }


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
