"""HTTP requests to gateways and pin services: redirects, and response bodies of limited size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

_MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class BodyTooLarge(Exception):
    """The body is larger than the limit. Not raised outside this package."""


class RedirectFailed(Exception):
    """A redirect cannot be followed; `str()` is the reason, without any URL. Not raised outside this package."""


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The response's body.

    Raises:
        BodyTooLarge: it has more than `limit` bytes.
    """
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > limit:
            raise BodyTooLarge
    return bytes(data)


@asynccontextmanager
async def get(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a GET and follow redirects: gateways redirect to https and to a subdomain for each CID.

    Credentials in the URL go to its own origin only.

    Raises:
        RedirectFailed: a redirect leads nowhere; without this, the error would blame the gateway's own host.
        aiohttp.ClientError, OSError: the connection failed.
    """
    target = URL(url)
    for redirects in range(_MAX_REDIRECTS + 1):
        try:
            response = await session.get(target, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorDNSError:
            if redirects == 0:
                raise
            raise RedirectFailed(_unresolved(target)) from None
        async with response:
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is None:
                yield response
                return
        target = redirected(target, location)
    raise RedirectFailed(f"it redirects more than {_MAX_REDIRECTS} times")


def error_reason(error: Exception) -> str:
    """Why a request failed, in a few words and without its URL, which may contain a key."""
    return str(error) if isinstance(error, RedirectFailed) else type(error).__name__


def redirected(source: URL, location: str) -> URL:
    """The URL that a Location header refers to. Raises RedirectFailed when it is not followed."""
    try:
        target = source.join(URL(location))
        same_origin = target.origin() == source.origin()
    except ValueError:
        raise RedirectFailed("it redirects to an invalid URL") from None
    if target.scheme not in ("http", "https"):
        raise RedirectFailed("it redirects to another protocol than http and https")
    if source.scheme == "https" and target.scheme == "http":
        raise RedirectFailed("it redirects from https to http")
    return target.with_user(source.user).with_password(source.password) if same_origin else target


def _unresolved(target: URL) -> str:
    if (target.host or "").endswith(".localhost"):
        return (
            "it redirects to a subdomain of localhost, which does not resolve; use 127.0.0.1 in its URL "
            "in place of localhost"
        )
    return "it redirects to a host name that does not resolve"
