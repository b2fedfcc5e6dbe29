"""HTTP and WebSocket requests to a pod's own address, each over its own connection."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from nosana_operator.health_probes.errors import ProbeError, ProbeRefused, ProbeUnavailable

CONNECT_SECONDS: Final = 2.0
"""As on Nosana's node (docs/protocol/node.md#health-checks)."""
_AT_ONCE: Final = 512
_LONGEST_MESSAGE: Final = 64 * 1024
_HANDSHAKE: Final = 101


class NetworkProber:
    """Probes ops. Needs a running event loop when it is created; the caller closes it."""

    def __init__(self) -> None:
        # Not the connector's own limit: waiting behind others' slow answers would count against this op's timeout.
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            headers={"User-Agent": "nosana-operator"},
        )

    async def close(self) -> None:
        """Abort the requests in flight."""
        await self._session.close()

    async def http(
        self,
        address: str,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> int:
        """The HTTP status of the op's response. Redirects are not followed, and the body is not read.

        Raises ProbeRefused, ProbeUnavailable.
        """
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            url = _url("http", address, port, path)
            async with (
                self._slots,
                self._session.request(
                    method, url, headers=headers, data=body, allow_redirects=False, timeout=limit
                ) as response,
            ):
                return response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error, port, seconds) from error

    async def websocket(self, address: str, port: int, *, listen: bool, seconds: float) -> str:
        """Do the WebSocket handshake; with `listen`, return the first message that the op then sends, else "".

        Raises ProbeRefused, ProbeUnavailable.
        """
        try:
            async with self._slots, asyncio.timeout(seconds):
                url = _url("ws", address, port, "/")
                async with self._session.ws_connect(url, max_msg_size=_LONGEST_MESSAGE) as connection:
                    return await _message(connection, port) if listen else ""
        except aiohttp.WSServerHandshakeError as error:
            raise ProbeRefused(
                f"port {port} answers a WebSocket handshake with {error.status} instead of {_HANDSHAKE}"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error, port, seconds) from error


async def _message(connection: aiohttp.ClientWebSocketResponse, port: int) -> str:
    message = await connection.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        return str(message.data)
    if message.type is aiohttp.WSMsgType.BINARY:
        return bytes(message.data).decode("utf-8", "replace")
    raise ProbeRefused(f"port {port} closes its WebSocket without sending a message")


def _url(scheme: str, address: str, port: int, path: str) -> URL:
    host = f"[{address}]" if ":" in address else address
    return URL(f"{scheme}://{host}:{port}{path if path.startswith('/') else f'/{path}'}")


def _failure(error: Exception, port: int, seconds: float) -> ProbeError:
    """The error, in words that leave out what the request held: headers and bodies may be secret."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ProbeUnavailable(f"no connection to port {port} within {CONNECT_SECONDS:g} s")
    if isinstance(error, TimeoutError):
        return ProbeRefused(f"port {port} accepts the connection, but gives no answer within {seconds:g} s")
    if isinstance(error, aiohttp.ClientConnectorError):
        if error.os_error.errno == errno.ECONNREFUSED:
            return ProbeRefused(f"nothing listens on port {port} yet, or only on the container's localhost")
        return ProbeUnavailable(f"port {port} cannot be reached: {error.os_error.strerror or 'no route'}")
    if isinstance(error, ValueError):
        return ProbeRefused(f"the request to port {port} cannot be sent; check its path and headers")
    return ProbeRefused(f"port {port} breaks the connection or does not speak HTTP")
