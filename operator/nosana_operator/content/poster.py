"""Requests to an endpoint of a poster: fetching their job definition, delivering their result.

(docs/protocol/node.md#confidential-jobs)

A poster is a stranger, and the operator requests their URL from inside the cluster's network. That invites server-side
request forgery, so every request follows these rules:

- The scheme is https.
- The host name is resolved once. All of its addresses have to be public and outside the cluster, and the connection
  goes to these addresses, even if the name resolves to others by then (DNS rebinding):

      resolve poster.example ──► 1.1.1.1 ──► public? ──► connect to 1.1.1.1
                                 10.0.0.7 ─► private ──► EndpointForbidden, no connection

- Redirects are not followed, and no proxy is used.
- Response size and time are limited.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from nosana_operator.content.errors import (
    ContentTooLarge,
    EndpointFailed,
    EndpointForbidden,
    EndpointUnreachable,
)
from nosana_operator.content.fetch import DEFAULT_SIZE_LIMIT
from nosana_operator.content.http import BodyTooLarge, read_body

MAX_URL: Final = 2048
_RESPONSE_LIMIT: Final = 64 * 1024
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_BUSY: Final = (408, 425, 429)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → addresses as text. Raises OSError."""


@dataclass(frozen=True, slots=True)
class PosterTimeouts:
    """Seconds for the DNS lookup, for a whole GET, and for a whole POST (results have megabytes)."""

    connect: float = 5.0
    get: float = 10.0
    post: float = 30.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """The host's addresses from the system's resolver."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_forbidden(address: Address, ranges: Sequence[Network]) -> bool:
    """Whether the address is not public, or is in one of the ranges.

    An IPv6 address that embeds an IPv4 address (mapped, 6to4, Teredo, NAT64) is judged by the embedded address.
    """
    embedded = _embedded_ipv4(address)
    if embedded is not None:
        return is_forbidden(embedded, ranges)
    public = address.is_global and not (address.is_multicast or address.is_reserved)
    return not public or any(address in network for network in ranges if network.version == address.version)


def _embedded_ipv4(address: Address) -> ipaddress.IPv4Address | None:
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class PosterClient:
    """Sends requests to posters' endpoints.

    Args:
        ranges: the cluster's own address ranges (CIDRs), forbidden besides all addresses that are not public.
        allow_insecure: allow http and any address. For a sandbox, where posters run on the same machine.
        timeouts: see `PosterTimeouts`.
        resolver: resolves host names.
        tls: the context for https; None: the system's certificate authorities.
    """

    def __init__(
        self,
        ranges: Callable[[], Iterable[str]],
        *,
        allow_insecure: bool = False,
        timeouts: PosterTimeouts | None = None,
        resolver: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._ranges = ranges
        self._allow_insecure = allow_insecure
        self._timeouts = timeouts or PosterTimeouts()
        self._resolve = resolver
        self._tls = tls

    async def get(self, url: str, *, authorization: str) -> bytes:
        """The response's body, at most 1 MiB, of any content type.

        Raises:
            EndpointForbidden: the endpoint may not be requested (final).
            EndpointUnreachable: no response, or the endpoint is busy; whether the request arrived is unknown.
            EndpointFailed: the status is not 2xx.
            ContentTooLarge: the body has more than 1 MiB (final).
        """
        return await self._request("GET", url, authorization, None, self._timeouts.get)

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        """Send a JSON document. Raises the errors of `get`, except ContentTooLarge."""
        await self._request("POST", url, authorization, body, self._timeouts.post)

    async def _request(
        self, method: str, endpoint: str, authorization: str, body: bytes | None, seconds: float
    ) -> bytes:
        url = self._parse(endpoint)
        host = url.host or ""
        headers = {"Authorization": authorization, "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        limit = DEFAULT_SIZE_LIMIT if body is None else _RESPONSE_LIMIT
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses(host, url.port or 443)
                connector = aiohttp.TCPConnector(
                    resolver=_FixedResolver(addresses),
                    use_dns_cache=False,
                    force_close=True,
                    ssl=True if self._tls is None else self._tls,
                )
                async with (
                    aiohttp.ClientSession(
                        connector=connector,
                        trust_env=False,
                        auto_decompress=False,
                        cookie_jar=aiohttp.DummyCookieJar(),
                    ) as session,
                    session.request(
                        method,
                        url,
                        headers=headers,
                        data=io.BytesIO(body) if body is not None else None,
                        allow_redirects=False,
                    ) as response,
                ):
                    _check_status(host, response.status)
                    return await read_body(response, limit)
        except BodyTooLarge as error:
            if body is not None:
                # The endpoint accepted the result; the body of its response does not matter.
                return b""
            raise ContentTooLarge(
                f"{host} sends more than {limit // 1024} KiB; make the definition smaller."
            ) from error
        except TimeoutError as error:
            raise EndpointUnreachable(
                f"{host} did not respond in {seconds:g} s; the request is retried."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = (
                "its certificate is not trusted"
                if isinstance(error, aiohttp.ClientSSLError)
                else "no connection"
            )
            raise EndpointUnreachable(
                f"{host} cannot be reached ({reason}); the request is retried."
            ) from error

    def _parse(self, endpoint: str) -> URL:
        """The endpoint's URL. Raises EndpointForbidden."""
        schemes = ("https", "http") if self._allow_insecure else ("https",)
        if len(endpoint) > MAX_URL:
            raise EndpointForbidden(f"The endpoint is longer than {MAX_URL} characters; shorten it.")
        try:
            url = URL(endpoint)
            port = url.port
        except ValueError:
            raise EndpointForbidden("The endpoint is not a URL; use one that begins with https://.") from None
        if url.scheme not in schemes or not url.host or not port:
            raise EndpointForbidden(
                "The endpoint is refused: it has to begin with https:// and contain a host name."
            )
        if url.user is not None or url.password is not None:
            raise EndpointForbidden(
                "The endpoint contains a user name or password; remove it, because requests are signed."
            )
        return url

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """The host's addresses, none of them forbidden. Raises EndpointForbidden or EndpointUnreachable."""
        try:
            resolved: Sequence[str] = [str(ipaddress.ip_address(host))]
        except ValueError:
            try:
                async with asyncio.timeout(self._timeouts.connect):
                    resolved = await self._resolve(host, port)
            except (OSError, UnicodeError, TimeoutError) as error:
                raise EndpointUnreachable(
                    f"{host} does not resolve in DNS; the lookup is retried."
                ) from error
        addresses = [ipaddress.ip_address(text) for text in resolved]
        ranges = [ipaddress.ip_network(text) for text in self._ranges()]
        if not self._allow_insecure and any(is_forbidden(address, ranges) for address in addresses):
            raise EndpointForbidden(
                f"{host} is refused: it has an address that is not on the public internet; use a public host."
            )
        return addresses


class _FixedResolver(AbstractResolver):
    """Returns the addresses that were checked, even if the name resolves to others by now."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Do nothing: it holds no resource."""


def _check_status(host: str, status: int) -> None:
    if 200 <= status < 300:
        return
    if status in _BUSY or status >= 500:
        raise EndpointUnreachable(f"{host} responded with HTTP {status}; the request is retried.")
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    raise EndpointFailed(f"{host} responded with HTTP {status}{hint}.", status=status)
