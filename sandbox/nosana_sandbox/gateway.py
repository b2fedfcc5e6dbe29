"""Opens the cluster's Ingress hosts on this machine: a reverse proxy on loopback.

It stands in for an ingress controller. A request's Host names an Ingress rule, the rule a Service, and the
Service's cluster address is reached with a socket made by the caller: inside the cluster's network namespace
for a local sandbox. Hosts under `.localhost` open in a browser without any name server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from nosana_operator.errors import NosanaError
from nosana_operator.kube import KubeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    Objects = Sequence[Mapping[str, Any]]

DEFAULT_CACHE_SECONDS: Final = 0.5
DEFAULT_CONNECT_SECONDS: Final = 5.0

# Headers that belong to one connection and not to the message (RFC 9110, 7.6.1).
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_HANDSHAKE: Final = frozenset(
    {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}
)


class Cluster(Protocol):
    """Where Ingresses and Services are read; `nosana_operator.kube.KubeClient` is one."""

    async def list(self, kind: str) -> Objects:
        """All objects of a kind, in all namespaces.

        Raises:
            KubeError: the API cannot be read now.
        """
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a request goes: a Service's address inside the cluster."""

    service: str
    """`namespace/name`, for people."""
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Unroutable:
    """Why a request goes nowhere: an HTTP status and a sentence for the person who asked."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Route:
    host: str
    path: str
    exact: bool
    namespace: str
    service: str
    port: int | str

    def matches(self, host: str, path: str) -> bool:
        return _host_matches(self.host, host) and self._path_matches(path)

    def _path_matches(self, path: str) -> bool:
        if self.exact:
            return path == self.path
        # A prefix ends at a path element: /a takes /a and /a/b, not /ab.
        prefix = self.path.rstrip("/")
        return path == prefix or path.startswith(prefix + "/")

    @property
    def precedence(self) -> tuple[bool, bool, int]:
        """A full host before a wildcard, an exact path before a prefix, a long path before a short one."""
        return (not self.host.startswith("*"), self.exact, len(self.path))


def route(ingresses: Objects, services: Objects, host: str, path: str) -> Backend | Unroutable:
    """The Service that the Ingresses (networking.k8s.io/v1) name for a host (no port) and a path."""
    host = host.lower().rstrip(".")
    routes = [found for ingress in ingresses for found in _routes(ingress)]
    matching = [found for found in routes if found.matches(host, path)]
    if not matching:
        if any(_host_matches(found.host, host) for found in routes):
            return Unroutable(404, f"The Ingress for {host} has no rule for the path {path}.")
        known = ", ".join(sorted({found.host for found in routes})) or "none"
        return Unroutable(404, f"No Ingress in the cluster has the host {host}; known hosts: {known}.")
    chosen = max(matching, key=lambda found: found.precedence)
    return _backend(chosen, services)


def _routes(ingress: Mapping[str, Any]) -> list[_Route]:
    namespace = ingress["metadata"]["namespace"]
    found = []
    for rule in (ingress.get("spec") or {}).get("rules") or []:
        host = str(rule.get("host") or "").lower()
        for entry in (rule.get("http") or {}).get("paths") or []:
            service = (entry.get("backend") or {}).get("service")
            if not host or not service:
                continue
            port = service.get("port") or {}
            found.append(
                _Route(
                    host=host,
                    path=entry.get("path") or "/",
                    exact=entry.get("pathType") == "Exact",
                    namespace=namespace,
                    service=service["name"],
                    port=port.get("number") or port.get("name") or 0,
                )
            )
    return found


def _backend(chosen: _Route, services: Objects) -> Backend | Unroutable:
    name = f"{chosen.namespace}/{chosen.service}"
    for service in services:
        metadata = service["metadata"]
        if (metadata["namespace"], metadata["name"]) != (chosen.namespace, chosen.service):
            continue
        spec = service.get("spec") or {}
        address = spec.get("clusterIP")
        if not address or address == "None":
            return Unroutable(
                502, f"The Service {name} has no cluster address, so nothing can be sent to it."
            )
        for port in spec.get("ports") or []:
            if chosen.port in (port["port"], port.get("name")):
                return Backend(name, address, port["port"])
        return Unroutable(502, f"The Service {name} has no port {chosen.port}, which its Ingress names.")
    return Unroutable(502, f"The Service {name}, which the Ingress for {chosen.host} names, does not exist.")


def _host_matches(pattern: str, host: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == host
    # One label only: *.example.org takes a.example.org, not a.b.example.org.
    _label, dot, parent = host.partition(".")
    return bool(dot) and parent == pattern.removeprefix("*.")


def gateway_app(
    cluster: Cluster,
    make_socket: Callable[[], socket.socket] = socket.socket,
    *,
    cache_seconds: float = DEFAULT_CACHE_SECONDS,
    connect_seconds: float = DEFAULT_CONNECT_SECONDS,
) -> web.Application:
    """The proxy as an aiohttp application.

    Args:
        cluster: read on demand, at most once per `cache_seconds`.
        make_socket: makes the unconnected TCP socket for a connection to a Service (for a sandbox cluster
            `partial(socket_in_namespace, path)`).
        cache_seconds: how old what is known of the cluster may be. A host that is not known is looked up
            again at once.
        connect_seconds: how long a Service may take to accept.
    """
    gateway = _Gateway(cluster, make_socket, cache_seconds, connect_seconds)
    app = web.Application()
    app.cleanup_ctx.append(gateway.lifetime)
    app.router.add_route("*", "/{path:.*}", gateway.handle)
    return app


class _Gateway:
    def __init__(
        self,
        cluster: Cluster,
        make_socket: Callable[[], socket.socket],
        cache_seconds: float,
        connect_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._make_socket = make_socket
        self._cache_seconds = cache_seconds
        self._connect_seconds = connect_seconds
        self._known: tuple[Objects, Objects] | None = None
        self._read_at = 0.0
        self._reading = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(
            limit=0, force_close=True, socket_factory=lambda _address: self._make_socket()
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds)
        # What a Service sends is passed on as it is: cookies, compression and redirects are the client's.
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        yield
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            found = await self._find(request)
        except KubeError as error:
            return _say(503, f"The cluster cannot be asked for its Ingresses now: {error}")
        if isinstance(found, Unroutable):
            return _say(found.status, found.reason)
        # The raw path, so that %2F and the like reach the Service as they were sent.
        url = URL(f"http://{found.address}:{found.port}{request.raw_path}", encoded=True)
        try:
            if _is_websocket(request):
                return await self._websocket(request, url)
            return await self._http(request, url)
        except aiohttp.WSServerHandshakeError as error:
            status = error.status if error.status >= 400 else 502
            return _say(status, f"The Service {found.service} refuses the WebSocket: {error.message}.")
        except (aiohttp.ClientError, OSError, NosanaError) as error:
            where = f"{found.address}:{found.port}"
            return _say(502, f"The Service {found.service} ({where}) does not answer: {error}.")

    async def _find(self, request: web.Request) -> Backend | Unroutable:
        host = _without_port(request.host)
        found = route(*await self._objects(fresh=False), host, request.path)
        if isinstance(found, Unroutable):
            found = route(*await self._objects(fresh=True), host, request.path)
        return found

    async def _objects(self, *, fresh: bool) -> tuple[Objects, Objects]:
        asked_at = time.monotonic()
        async with self._reading:
            oldest = asked_at if fresh else asked_at - self._cache_seconds
            if self._known is None or self._read_at < oldest:
                started = time.monotonic()
                self._known = (await self._cluster.list("Ingress"), await self._cluster.list("Service"))
                self._read_at = started
            return self._known

    async def _http(self, request: web.Request, url: URL) -> web.StreamResponse:
        assert self._session is not None
        headers = _forwarded(request)
        if request.can_read_body and hdrs.CONTENT_ENCODING in headers:
            # The server has unpacked the body already, so its length is another one.
            del headers[hdrs.CONTENT_ENCODING]
            headers.pop(hdrs.CONTENT_LENGTH, None)
        async with self._session.request(
            request.method,
            url,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE),
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
            )
            await response.prepare(request)
            # From here on an error can only cut the connection: the status has been sent.
            try:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientError:
                if request.transport is not None:
                    request.transport.abort()
                return response
            await response.write_eof()
            return response

    async def _websocket(self, request: web.Request, url: URL) -> web.StreamResponse:
        assert self._session is not None
        wanted = [
            name.strip()
            for name in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",")
            if name.strip()
        ]
        headers = _forwarded(request)
        for name in _HANDSHAKE:
            if name in headers:
                del headers[name]
        async with self._session.ws_connect(
            url, headers=headers, protocols=wanted, max_msg_size=0, autoping=False
        ) as inside:
            outside = web.WebSocketResponse(
                protocols=[inside.protocol] if inside.protocol else (), max_msg_size=0, autoping=False
            )
            await outside.prepare(request)
            pumps = {
                asyncio.create_task(_pump(outside, inside)),
                asyncio.create_task(_pump(inside, outside)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            await inside.close(code=_sendable(outside.close_code))
            await outside.close(code=_sendable(inside.close_code))
            return outside


_Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: _Socket, target: _Socket) -> None:
    """Pass on messages until one side closes or goes away."""
    with contextlib.suppress(ConnectionError):
        while True:
            message = await source.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                await target.ping(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                await target.pong(message.data)
            else:
                return


def _sendable(code: int | None) -> int:
    """A close code for the other side; those that only describe a lost connection may not be sent."""
    if code is None or code == 1005:
        return aiohttp.WSCloseCode.OK
    return aiohttp.WSCloseCode.GOING_AWAY if code in (1006, 1015) else code


def _is_websocket(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_GET
        and "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower()
        and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
    )


def _forwarded(request: web.Request) -> CIMultiDict[str]:
    """The request's headers for the Service: Host as the client sent it, and who asked."""
    headers = _end_to_end(request.headers)
    headers[hdrs.HOST] = request.host
    if request.remote:
        before = headers.get(hdrs.X_FORWARDED_FOR)
        headers[hdrs.X_FORWARDED_FOR] = f"{before}, {request.remote}" if before else request.remote
    headers[hdrs.X_FORWARDED_HOST] = request.host
    headers[hdrs.X_FORWARDED_PROTO] = request.scheme
    return headers


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    copied = CIMultiDict(headers)
    named = {name.strip().lower() for name in copied.get(hdrs.CONNECTION, "").split(",")}
    for name in (_HOP_BY_HOP | named) - {""}:
        if name in copied:
            del copied[name]
    return copied


def _without_port(host: str) -> str:
    return host.rsplit(":", 1)[0] if not host.endswith("]") else host


def _say(status: int, sentence: str) -> web.Response:
    return web.Response(status=status, text=sentence + "\n")
