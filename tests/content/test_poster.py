"""Endpoints of posters: which are forbidden, and the meaning of responses."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.content import (
    ContentTooLarge,
    EndpointFailed,
    EndpointForbidden,
    EndpointUnreachable,
    PosterClient,
    PosterTimeouts,
)
from nosana_operator.content.poster import is_forbidden
from nosana_sandbox.cluster.pki import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[int]]
SIGNED = "job:signature:1700000000000"
CLUSTER = ("203.0.113.0/24", "2606:4700::/32")


def at(*addresses: str) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """A resolver that returns these addresses for every name."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


def insecure(*addresses: str, get: float = 2.0) -> PosterClient:
    """A client that may connect to loopback, where the tests' servers listen."""
    return PosterClient(
        tuple,
        allow_insecure=True,
        resolver=at(*(addresses or ("127.0.0.1",))),
        timeouts=PosterTimeouts(connect=1.0, get=get, post=get),
    )


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[TestServer] = []

    async def start(handler: Handler) -> int:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", handler)
        server = TestServer(app)
        await server.start_server(shutdown_timeout=0)
        servers.append(server)
        return int(server.port or 0)

    yield start
    for server in servers:
        await server.close()


# -- forbidden endpoints


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254",
        "100.64.0.1", "100.127.255.254", "198.18.0.1", "192.0.2.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "203.0.113.7", "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1",
        "2606:4700::1111", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:203.0.113.9", "64:ff9b::a00:1",
        "64:ff9b::7f00:1", "2002:a00:1::", "2002:7f00:1::", "2001:0:0:0:0:0:f5ff:fffe", "2001:db8::1",
    ],
)  # fmt: skip
def test_forbidden_addresses(address: str) -> None:
    ranges = [ipaddress.ip_network(one) for one in CLUSTER]
    assert is_forbidden(ipaddress.ip_address(address), ranges)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(ipaddress.ip_address(address), [ipaddress.ip_network(one) for one in CLUSTER])


@pytest.mark.parametrize(
    "url",
    [
        "http://poster.example/definition",
        "ftp://poster.example/",
        "file:///etc/passwd",
        "//poster.example/",
        "poster.example",
        "",
        "https://",
        "https://user:word@poster.example/",
        "https://user@poster.example/",
        "https://poster.example:99999/",
        "https://[::1",
        "https://poster.example/" + "a" * 3000,
        # Addresses, in several spellings.
        "https://127.0.0.1/",
        "https://10.0.0.1:8443/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/latest/meta-data",
        "https://203.0.113.7/",
    ],
)
async def test_forbidden_urls(url: str) -> None:
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        lookups.append(host)
        return ["1.1.1.1"]

    with pytest.raises(EndpointForbidden):
        await PosterClient(lambda: CLUSTER, resolver=resolve).get(url, authorization=SIGNED)
    assert lookups == []


@pytest.mark.parametrize(
    "addresses", [("10.0.0.1",), ("1.1.1.1", "192.168.0.1"), ("203.0.113.7",), ("::ffff:7f00:1",)]
)
async def test_a_name_with_one_address_inside_is_not_asked(addresses: tuple[str, ...]) -> None:
    client = PosterClient(lambda: CLUSTER, resolver=at(*addresses))
    with pytest.raises(EndpointForbidden, match=r"poster\.example .*public internet"):
        await client.get("https://poster.example/", authorization=SIGNED)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost"])
async def test_other_spellings_of_an_address_are_recognized(host: str) -> None:
    """By the system's resolver."""
    with pytest.raises((EndpointForbidden, EndpointUnreachable)):
        await PosterClient(tuple).get(f"https://{host}/", authorization=SIGNED)


# -- responses


async def test_the_request_is_signed_and_has_the_host_header(serve: Serve) -> None:
    seen: dict[str, str] = {}

    async def handle(request: web.Request) -> web.Response:
        seen.update(
            method=request.method,
            path=request.path_qs,
            host=request.host,
            auth=request.headers["Authorization"],
        )
        return web.Response(body=b'{"ops": []}', content_type="text/plain")

    port = await serve(handle)
    data = await insecure().get(f"http://poster.example:{port}/jobs/abc?x=1", authorization=SIGNED)
    assert data == b'{"ops": []}'
    assert seen == {
        "method": "GET",
        "path": "/jobs/abc?x=1",
        "host": f"poster.example:{port}",
        "auth": SIGNED,
    }


async def test_a_name_is_resolved_once(serve: Serve) -> None:
    """A name that resolves to another address after the check (DNS rebinding) has no effect."""
    results = [["127.0.0.1"], ["10.255.255.1"]]
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        lookups.append(host)
        return results.pop(0)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"here")

    port = await serve(handle)
    client = PosterClient(tuple, allow_insecure=True, resolver=resolve)
    assert await client.get(f"http://poster.example:{port}/", authorization=SIGNED) == b"here"
    assert lookups == ["poster.example"]


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    paths: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        paths.append(request.path)
        raise web.HTTPFound("/inside")

    port = await serve(handle)
    with pytest.raises(EndpointFailed, match="redirects are not followed"):
        await insecure().get(f"http://poster.example:{port}/", authorization=SIGNED)
    assert paths == ["/"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410])
async def test_an_error_status_fails(serve: Serve, status: int) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status)

    port = await serve(handle)
    with pytest.raises(EndpointFailed, match=f"HTTP {status}") as raised:
        await insecure().get(f"http://poster.example:{port}/", authorization=SIGNED)
    assert raised.value.status == status


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_busy_endpoint_is_unknown(serve: Serve, status: int) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status)

    port = await serve(handle)
    with pytest.raises(EndpointUnreachable, match=f"HTTP {status}"):
        await insecure().post(f"http://poster.example:{port}/", b"{}", authorization=SIGNED)


async def test_no_response_in_time_is_unknown(serve: Serve) -> None:
    gone = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await gone.wait()
        return response

    port = await serve(handle)
    with pytest.raises(EndpointUnreachable, match=r"did not respond in 0\.3 s"):
        await insecure(get=0.3).get(f"http://poster.example:{port}/", authorization=SIGNED)
    gone.set()


async def test_a_closed_port_and_an_unknown_name_are_unknown(unused_port: int) -> None:
    with pytest.raises(EndpointUnreachable, match="cannot be reached"):
        await insecure().get(f"http://poster.example:{unused_port}/", authorization=SIGNED)

    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(EndpointUnreachable, match="does not resolve in DNS"):
        await PosterClient(tuple, resolver=unknown).get("https://poster.example/", authorization=SIGNED)


@pytest.fixture
async def unused_port(serve: Serve) -> int:
    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(nobody, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


async def test_an_endless_definition_is_refused(serve: Serve) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(40):
            await response.write(bytes(64 * 1024))
        return response

    port = await serve(handle)
    with pytest.raises(ContentTooLarge, match="1024 KiB"):
        await insecure().get(f"http://poster.example:{port}/", authorization=SIGNED)


async def test_compressed_bytes_are_not_decompressed(serve: Serve) -> None:
    """A small response must not become large in memory."""

    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=b"\x1f\x8b not decompressed", headers={"Content-Encoding": "gzip"})

    port = await serve(handle)
    data = await insecure().get(f"http://poster.example:{port}/", authorization=SIGNED)
    assert data == b"\x1f\x8b not decompressed"


async def test_a_result_is_posted_as_json_whatever_the_response_body(serve: Serve) -> None:
    requests: list[tuple[str, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        requests.append((request.content_type, await request.read()))
        return web.Response(body=bytes(1024 * 1024))

    port = await serve(handle)
    result = b'{"opStates":[]}' + b" " * 3_000_000
    await insecure().post(f"http://poster.example:{port}/results", result, authorization=SIGNED)
    assert requests == [("application/json", result)]


@pytest.mark.contract
async def test_the_certificate_has_to_match_the_name_not_the_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    identity = authority.issue("poster", "poster", alternatives=("DNS:poster.example",))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(identity.certificate, identity.key)
    trusting = ssl.create_default_context(cafile=str(authority.identity.certificate))

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"over TLS")

    app = web.Application()
    app.router.add_get("/", handle)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=tls, shutdown_timeout=0)
    client = PosterClient(tuple, allow_insecure=True, resolver=at("127.0.0.1"), tls=trusting)
    assert await client.get(f"https://poster.example:{server.port}/", authorization=SIGNED) == b"over TLS"
    for stranger, name in ((client, "other.example"), (insecure(), "poster.example")):
        with pytest.raises(EndpointUnreachable, match="certificate is not trusted"):
            await stranger.get(f"https://{name}:{server.port}/", authorization=SIGNED)
    await server.close()
