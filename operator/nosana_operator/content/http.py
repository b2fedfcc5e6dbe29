"""Reads HTTP response bodies with a limit, so that the server does not decide how much memory they take."""

from __future__ import annotations

import aiohttp


class BodyTooLarge(Exception):
    """The body is larger than the limit. Not raised outside this package."""


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
