"""Requests to an endpoint that a poster named: fetching their definition, delivering their result.

(docs/protocol/node.md#confidential-jobs)

The poster is a stranger, and his URL is asked from inside our network. So: https only; the name is resolved
once, every address it has must be a public one outside the cluster, and the connection goes to just these
addresses, whatever the name resolves to by then; no redirect is followed, no proxy asked; size and time are
bounded.
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
_ANSWER_LIMIT: Final = 64 * 1024
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_BUSY: Final = (408, 425, 429)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) → its addresses as text. Raises OSError."""


@dataclass(frozen=True, slots=True)
class PosterTimeouts:
    """Seconds: to find and reach the endpoint, for a whole GET, for a whole POST (results have megabytes)."""

    connect: float = 5.0
    get: float = 10.0
    post: float = 30.0


async def resolve(host: str, port: int) -> Sequence[str]:
    """The host's addresses, as the machine's resolver has them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def forbidden(address: Address, ranges: Sequence[Network]) -> bool:
    """Whether it is not an address of the public internet, or within one of the ranges.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, Teredo, NAT64) counts as that one.
    """
    inner = _embedded(address)
    if inner is not None:
        return forbidden(inner, ranges)
    public = address.is_global and not (address.is_multicast or address.is_reserved)
    return not public or any(address in one for one in ranges if one.version == address.version)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


class PosterClient:
    """Asks posters' endpoints.

    Args:
        ranges: addresses that are never asked besides those that are not public: the cluster's own.
        allow_insecure: also http, and any address: for a sandbox, where posters are on the same machine.
        timeouts: see `PosterTimeouts`.
        resolver: how names are resolved.
        tls: for https; None: the machine's trusted authorities.
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
        """What the endpoint gives, at most 1 MiB, of any content type.

        Raises:
            EndpointForbidden: it is one that is never asked (final).
            EndpointUnreachable: no answer, or it is busy; whether it was reached is unknown.
            EndpointFailed: it answered with another status than 2xx.
            ContentTooLarge: more than 1 MiB (final).
        """
        return await self._ask("GET", url, authorization, None, self._timeouts.get)

    async def post(self, url: str, body: bytes, *, authorization: str) -> None:
        """Give it a JSON document. Raises as `get`, and never ContentTooLarge."""
        await self._ask("POST", url, authorization, body, self._timeouts.post)

    async def _ask(
        self, verb: str, text: str, authorization: str, body: bytes | None, seconds: float
    ) -> bytes:
        url = self._checked(text)
        name = url.host or ""
        headers = {"Authorization": authorization, "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        limit = DEFAULT_SIZE_LIMIT if body is None else _ANSWER_LIMIT
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses(name, url.port or 443)
                connector = aiohttp.TCPConnector(
                    resolver=_Resolved(addresses),
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
                        verb,
                        url,
                        headers=headers,
                        data=io.BytesIO(body) if body is not None else None,
                        allow_redirects=False,
                    ) as answer,
                ):
                    _check(name, answer.status)
                    return await read_body(answer, limit)
        except BodyTooLarge as error:
            if body is not None:
                # It has taken the result; what it says to that is nobody's business.
                return b""
            raise ContentTooLarge(
                f"{name} gives more than {limit // 1024} KiB; make the definition smaller."
            ) from error
        except TimeoutError as error:
            raise EndpointUnreachable(
                f"{name} did not answer in {seconds:g} s; it is asked again."
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            why = (
                "its certificate is not trusted"
                if isinstance(error, aiohttp.ClientSSLError)
                else "no connection"
            )
            raise EndpointUnreachable(f"{name} cannot be reached ({why}); it is asked again.") from error

    def _checked(self, text: str) -> URL:
        schemes = ("https", "http") if self._allow_insecure else ("https",)
        if len(text) > MAX_URL:
            raise EndpointForbidden(f"The endpoint is longer than {MAX_URL} characters; shorten it.")
        try:
            url = URL(text)
            port = url.port
        except ValueError:
            raise EndpointForbidden("The endpoint is no URL; give one that begins with https://.") from None
        if url.scheme not in schemes or not url.host or not port:
            raise EndpointForbidden(
                "The endpoint is not asked: it has to begin with https:// and name a host."
            )
        if url.user is not None or url.password is not None:
            raise EndpointForbidden(
                "The endpoint holds a user name or password; requests are signed, take it out."
            )
        return url

    async def _addresses(self, name: str, port: int) -> list[Address]:
        """The host's addresses, all of which may be asked."""
        try:
            found: Sequence[str] = [str(ipaddress.ip_address(name))]
        except ValueError:
            try:
                async with asyncio.timeout(self._timeouts.connect):
                    found = await self._resolve(name, port)
            except (OSError, UnicodeError, TimeoutError) as error:
                raise EndpointUnreachable(
                    f"{name} is not known to the DNS; it is looked up again."
                ) from error
        addresses = [ipaddress.ip_address(one) for one in found]
        ranges = [ipaddress.ip_network(one) for one in self._ranges()]
        if not self._allow_insecure and any(forbidden(one, ranges) for one in addresses):
            raise EndpointForbidden(
                f"{name} is not asked: it has an address that is not on the public internet; use one that is."
            )
        return addresses


class _Resolved(AbstractResolver):
    """Answers with the addresses that were checked; a name that has changed since changes nothing."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(one),
                port=port,
                family=socket.AF_INET if one.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _check(name: str, status: int) -> None:
    if 200 <= status < 300:
        return
    if status in _BUSY or status >= 500:
        raise EndpointUnreachable(f"{name} answered HTTP {status}; it is asked again.")
    said = f"HTTP {status}, and redirects are not followed" if 300 <= status < 400 else f"HTTP {status}"
    raise EndpointFailed(f"{name} answered {said}.", status=status)
