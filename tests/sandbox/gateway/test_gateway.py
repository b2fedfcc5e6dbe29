"""The sandbox's gateway: which Service a host and path name, and that requests get there and back whole."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from nosana_operator.kube import KubeUnavailable
from nosana_sandbox.gateway import Backend, Unroutable, gateway_app, route

HOST = "abc.jobs.localhost"
GO_ON = web.AppKey("go on", asyncio.Event)


def ingress(
    host: str, *paths: tuple[str, str, str, int | str], namespace: str = "nosana-jobs"
) -> dict[str, Any]:
    entries = [
        {
            "path": path,
            "pathType": kind,
            "backend": {
                "service": {"name": name, "port": {"number" if isinstance(port, int) else "name": port}}
            },
        }
        for path, kind, name, port in paths
    ]
    return {
        "metadata": {"namespace": namespace, "name": "i"},
        "spec": {"rules": [{"host": host, "http": {"paths": entries}}]},
    }


def service(name: str, address: str, port: int, namespace: str = "nosana-jobs") -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": address, "ports": [{"name": "web", "port": port}]},
    }


SERVICES = [
    service("root", "10.96.0.1", 80),
    service("deep", "10.96.0.2", 8888),
    service("deep", "10.96.9.9", 1, namespace="other"),
    service("headless", "None", 80),
]
INGRESSES = [
    ingress(
        HOST,
        ("/", "Prefix", "root", 80),
        ("/a", "Prefix", "deep", "web"),
        ("/a/exact", "Exact", "root", "web"),
    ),
    ingress("*.wild.localhost", ("/", "Prefix", "deep", 8888)),
    ingress("only.wild.localhost", ("/only", "ImplementationSpecific", "root", 80)),
    ingress("broken.localhost", ("/", "Prefix", "missing", 80), ("/port", "Prefix", "root", 81)),
    ingress("headless.localhost", ("/", "Prefix", "headless", 80)),
    {"metadata": {"namespace": "n", "name": "empty"}, "spec": {}},
]


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        (HOST, "/", Backend("nosana-jobs/root", "10.96.0.1", 80)),
        (HOST.upper() + ".", "/", Backend("nosana-jobs/root", "10.96.0.1", 80)),
        (HOST, "/a", Backend("nosana-jobs/deep", "10.96.0.2", 8888)),
        (HOST, "/a/b", Backend("nosana-jobs/deep", "10.96.0.2", 8888)),
        (HOST, "/ab", Backend("nosana-jobs/root", "10.96.0.1", 80)),
        (HOST, "/a/exact", Backend("nosana-jobs/root", "10.96.0.1", 80)),
        (HOST, "/a/exact/not", Backend("nosana-jobs/deep", "10.96.0.2", 8888)),
        ("x.wild.localhost", "/", Backend("nosana-jobs/deep", "10.96.0.2", 8888)),
        ("only.wild.localhost", "/only/x", Backend("nosana-jobs/root", "10.96.0.1", 80)),
    ],
)
def test_route(host: str, path: str, expected: Backend) -> None:
    assert route(INGRESSES, SERVICES, host, path) == expected


@pytest.mark.parametrize(
    ("host", "path", "status", "words"),
    [
        ("unknown.localhost", "/", 404, ["unknown.localhost", HOST]),
        ("x.y.wild.localhost", "/", 404, ["x.y.wild.localhost"]),
        ("broken.localhost", "/", 502, ["nosana-jobs/missing", "does not exist"]),
        ("broken.localhost", "/port", 502, ["nosana-jobs/root", "81"]),
        ("headless.localhost", "/", 502, ["nosana-jobs/headless"]),
    ],
)
def test_no_route_says_why(host: str, path: str, status: int, words: list[str]) -> None:
    found = route(INGRESSES, SERVICES, host, path)
    assert isinstance(found, Unroutable)
    assert found.status == status
    for word in words:
        assert word in found.reason


def test_a_host_without_a_rule_for_the_path_is_not_called_unknown() -> None:
    found = route([ingress("h.localhost", ("/x", "Prefix", "root", 80))], SERVICES, "h.localhost", "/y")
    assert found == Unroutable(404, "The Ingress for h.localhost has no rule for the path /y.")


class FakeCluster:
    """Ingresses and Services that a test changes; counts how often it is asked."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {"Ingress": [], "Service": []}
        self.asked = 0
        self.down = False

    def expose(self, host: str, port: int) -> None:
        self.objects["Ingress"].append(ingress(host, ("/", "Prefix", host, port)))
        self.objects["Service"].append(service(host, "127.0.0.1", port))

    async def list(self, kind: str) -> list[dict[str, Any]]:
        self.asked += kind == "Ingress"
        if self.down:
            raise KubeUnavailable("connection refused")
        return list(self.objects[kind])


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "host": request.host,
            "forwarded": request.headers.get("X-Forwarded-For"),
            "hop": request.headers.get("Keep-Alive"),
            "body": body.decode(),
        },
        headers={"Set-Cookie": "a=b"},
    )


async def packed(_request: web.Request) -> web.Response:
    return web.Response(body=gzip.compress(b"packed"), headers={"Content-Encoding": "gzip"})


async def moved(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def private(_request: web.Request) -> web.Response:
    raise web.HTTPForbidden


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first")
    await request.app[GO_ON].wait()
    await response.write(b"second")
    return response


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "10"})
    await response.prepare(request)
    await response.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return response


async def chat(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("chat",))
    await socket.prepare(request)
    async for message in socket:
        if message.data == "bye":
            await socket.close(code=4001)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data.upper())
        else:
            await socket.send_bytes(message.data[::-1])
    return socket


@pytest.fixture
async def backend() -> AsyncIterator[TestServer]:
    app = web.Application()
    app[GO_ON] = asyncio.Event()
    for path, handler in (
        ("/gz", packed),
        ("/moved", moved),
        ("/stream", stream),
        ("/cut", cut),
        ("/ws", chat),
        ("/private", private),
    ):
        app.router.add_get(path, handler)
    app.router.add_route("*", "/{path:.*}", echo)
    async with TestServer(app) as server:
        yield server  # type: ignore[misc]


@pytest.fixture
async def cluster(backend: TestServer) -> FakeCluster:
    fake = FakeCluster()
    assert backend.port is not None
    fake.expose(HOST, backend.port)
    return fake


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(
        TestServer(gateway_app(cluster, cache_seconds=60)), auto_decompress=False
    ) as client:
        yield client


async def test_a_request_arrives_whole_and_comes_back_whole(client: TestClient[Any, Any]) -> None:
    answer = await client.post(
        "/a%2Fb?q=%20", headers={"Host": f"{HOST}:8080", "Keep-Alive": "5"}, data="body"
    )
    assert await answer.json() == {
        "method": "POST",
        "path": "/a%2Fb?q=%20",
        "host": f"{HOST}:8080",
        "forwarded": "127.0.0.1",
        "hop": None,
        "body": "body",
    }
    assert answer.headers["Set-Cookie"] == "a=b"


async def test_packed_bodies_both_ways(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/gz", headers={"Host": HOST})
    assert gzip.decompress(await answer.read()) == b"packed"
    sent = await client.post(
        "/", headers={"Host": HOST, "Content-Encoding": "gzip"}, data=gzip.compress(b"packed")
    )
    assert (await sent.json())["body"] == "packed"


async def test_redirects_are_the_clients(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/moved", headers={"Host": HOST}, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")


async def test_answers_are_streamed(client: TestClient[Any, Any], backend: TestServer) -> None:
    async with client.get("/stream", headers={"Host": HOST}) as answer:
        assert await answer.content.readexactly(5) == b"first"
        backend.app[GO_ON].set()
        assert await answer.content.read() == b"second"


async def test_a_broken_answer_stays_broken(client: TestClient[Any, Any]) -> None:
    with pytest.raises(aiohttp.ClientError):
        await (await client.get("/cut", headers={"Host": HOST})).read()


async def test_websocket_messages_protocol_and_close_code(client: TestClient[Any, Any]) -> None:
    async with client.ws_connect("/ws", headers={"Host": HOST}, protocols=("other", "chat")) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("hello")
        assert await socket.receive_str() == "HELLO"
        await socket.send_bytes(b"abc")
        assert await socket.receive_bytes() == b"cba"
        await socket.send_str("bye")
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 4001


@pytest.mark.parametrize(("path", "status"), [("/private", 403), ("/no-websocket", 502)])
async def test_a_refused_websocket_keeps_its_status(
    client: TestClient[Any, Any], path: str, status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await client.ws_connect(path, headers={"Host": HOST})
    assert raised.value.status == status


async def test_unknown_host_and_dead_service(client: TestClient[Any, Any], cluster: FakeCluster) -> None:
    unknown = await client.get("/", headers={"Host": "nobody.localhost"})
    assert unknown.status == 404
    assert "nobody.localhost" in await unknown.text()
    async with TestServer(web.Application()) as gone:
        port = gone.port
    assert port is not None
    cluster.expose("dead.localhost", port)
    dead = await client.get("/", headers={"Host": "dead.localhost"})
    assert dead.status == 502
    assert "nosana-jobs/dead.localhost" in await dead.text()


async def test_the_cluster_is_asked_again_only_for_what_is_not_known(
    client: TestClient[Any, Any], cluster: FakeCluster, backend: TestServer
) -> None:
    for _ in range(3):
        assert (await client.get("/", headers={"Host": HOST})).status == 200
    assert cluster.asked == 1
    assert backend.port is not None
    cluster.expose("new.localhost", backend.port)
    assert (await client.get("/", headers={"Host": "new.localhost"})).status == 200
    assert cluster.asked == 2


async def test_an_unreachable_cluster_is_said_so(client: TestClient[Any, Any], cluster: FakeCluster) -> None:
    cluster.down = True
    answer = await client.get("/", headers={"Host": HOST})
    assert answer.status == 503
    assert "connection refused" in await answer.text()
