"""Checks that gateways and pin services respond and accept our credentials, without storing anything."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

import aiohttp

from nosana_operator.content.cid import cid_of
from nosana_operator.content.errors import ContentUnreachable, PinRefused, PinUnavailable
from nosana_operator.content.fetch import RAW_BLOCK, UNSUPPORTED_FORM
from nosana_operator.content.http import RedirectFailed, error_reason, get

_SECONDS: Final = 10.0
_EMPTY_BLOCK: Final = "bafkqaaa"
"""The identity CID of no bytes: a node serves it without a search, and the gateway specification probes with it."""
_EMPTY_FILE: Final = cid_of(b"")
"""Nearly every node has the empty file."""


async def check_gateway(url: str, session: aiohttp.ClientSession) -> float:
    """Request no bytes from a gateway; returns the seconds until it responded.

    A gateway is usable if it serves single blocks or whole files.

    Raises:
        ContentUnreachable: no response, or a server error.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    base = f"{url.rstrip('/')}/ipfs"
    try:
        async with asyncio.timeout(_SECONDS):
            status = await _status(session, f"{base}/{_EMPTY_BLOCK}?format=raw", RAW_BLOCK)
            if status in UNSUPPORTED_FORM:
                status = await _status(session, f"{base}/{_EMPTY_FILE}", "*/*")
    except TimeoutError:
        raise ContentUnreachable(f"no response in {_SECONDS:g} s", seconds=_SECONDS) from None
    except (aiohttp.ClientError, OSError, RedirectFailed) as error:
        raise ContentUnreachable(error_reason(error), seconds=loop.time() - started) from None
    if status not in (200, 404, 410):
        raise ContentUnreachable(f"HTTP {status}", seconds=loop.time() - started)
    return loop.time() - started


async def _status(session: aiohttp.ClientSession, url: str, accept: str) -> int:
    async with get(session, url, {"Accept": accept}) as response:
        return response.status


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
        await _check(session, "GET", f"{base}/data/testAuthentication", f"Bearer {token}")
        return
    await _check(session, "POST", f"{base}/api/v0/version", token)
    # A node answers `version` whatever the token; a pin has to be confirmed with `pin/ls`.
    await _check(
        session, "POST", f"{base}/api/v0/pin/ls?type=recursive&arg={_EMPTY_FILE}", token, unpinned=500
    )


async def _check(
    session: aiohttp.ClientSession, method: str, url: str, authorization: str | None, unpinned: int = 200
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session.request(method, url, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except TimeoutError:
        raise PinUnavailable(f"no response in {_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: the token is not a valid header value. The error's text has the token.
        raise PinUnavailable(type(error).__name__) from None
    if status in (401, 403):
        raise PinRefused(f"HTTP {status}")
    if status not in (200, unpinned):
        raise PinUnavailable(f"HTTP {status}")
