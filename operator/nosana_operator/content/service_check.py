"""Asking IPFS services whether they are there and take our credentials, without storing anything."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import aiohttp

from nosana_operator.content.cid import cid_of
from nosana_operator.content.errors import ContentUnreachable, PinRefused, PinUnavailable

_SECONDS: Final = 10.0
_EMPTY_FILE: Final = cid_of(b"")
"""Every node has it or knows at once that it has not."""


async def check_gateway(url: str, session: aiohttp.ClientSession) -> float:
    """Ask a gateway for a file that is everywhere; seconds until it answered (found or not).

    Raises ContentUnreachable: no answer, or an error of the server's.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session.get(f"{url.rstrip('/')}/ipfs/{_EMPTY_FILE}", max_redirects=5) as response,
        ):
            status = response.status
    except TimeoutError:
        raise ContentUnreachable(f"no answer in {_SECONDS:g} s", seconds=_SECONDS) from None
    except (aiohttp.ClientError, OSError) as error:
        raise ContentUnreachable(type(error).__name__, seconds=loop.time() - began) from None
    if status not in (200, 404, 410):
        raise ContentUnreachable(f"HTTP {status}", seconds=loop.time() - began)
    return loop.time() - began


async def check_pin_service(
    kind: Literal["kubo", "pinata"], url: str, token: str | None, session: aiohttp.ClientSession
) -> None:
    """Ask a pinning service whether it takes our credentials.

    Args:
        kind: whose API it has.
        url: as in the settings.
        token: pinata: the JWT; kubo: the whole `Authorization` header, or None. Secret.
        session: the caller's.

    Raises:
        PinUnavailable: no answer, or one that says nothing about the credentials.
        PinRefused: it does not take them.
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
        raise PinUnavailable(f"no answer in {_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: a token that no header can hold; its text would show it.
        raise PinUnavailable(type(error).__name__) from None
    if status in (401, 403):
        raise PinRefused(f"HTTP {status}")
    if status != 200:
        raise PinUnavailable(f"HTTP {status}")
