"""Checks that gateways and pin services respond and accept our credentials, without storing anything."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import aiohttp

from nosana_operator.content.cid import cid_of
from nosana_operator.content.errors import ContentUnreachable, PinRefused, PinUnavailable

_SECONDS: Final = 10.0
_EMPTY_FILE: Final = cid_of(b"")
"""Every node has the empty file, or knows without a search that it does not."""


async def check_gateway(url: str, session: aiohttp.ClientSession) -> float:
    """Request the empty file from a gateway; returns the seconds until it responded, with the file or a 404.

    Raises:
        ContentUnreachable: no response, or a server error.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session.get(f"{url.rstrip('/')}/ipfs/{_EMPTY_FILE}", max_redirects=5) as response,
        ):
            status = response.status
    except TimeoutError:
        raise ContentUnreachable(f"no response in {_SECONDS:g} s", seconds=_SECONDS) from None
    except (aiohttp.ClientError, OSError) as error:
        raise ContentUnreachable(type(error).__name__, seconds=loop.time() - started) from None
    if status not in (200, 404, 410):
        raise ContentUnreachable(f"HTTP {status}", seconds=loop.time() - started)
    return loop.time() - started


async def check_pin_service(
    kind: Literal["kubo", "pinata"], url: str, token: str | None, session: aiohttp.ClientSession
) -> None:
    """Check that a pin service accepts our credentials.

    Args:
        kind: which API the service speaks.
        url: the base URL, as in the settings.
        token: pinata: the JWT; kubo: the whole `Authorization` header, or None. Secret.
        session: the caller's HTTP session; not closed here.

    Raises:
        PinUnavailable: no response, or one that does not depend on the credentials.
        PinRefused: the service refuses the credentials.
    """
    base = url.rstrip("/")
    if kind == "pinata":
        method, path, headers = "GET", "/data/testAuthentication", {"Authorization": f"Bearer {token}"}
    else:
        method, path, headers = "POST", "/api/v0/version", {"Authorization": token} if token else {}
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session.request(method, base + path, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except TimeoutError:
        raise PinUnavailable(f"no response in {_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: the token is not a valid header value. The error's text has the token.
        raise PinUnavailable(type(error).__name__) from None
    if status in (401, 403):
        raise PinRefused(f"HTTP {status}")
    if status != 200:
        raise PinUnavailable(f"HTTP {status}")
