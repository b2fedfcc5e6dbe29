"""Reading an HTTP answer without letting the other side choose how much memory that takes."""

from __future__ import annotations

import aiohttp


class BodyTooLarge(Exception):
    """The other side sent more bytes than were to be accepted. Internal to this room."""


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, at most `limit` bytes.

    Raises:
        BodyTooLarge: there is more.
    """
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > limit:
            raise BodyTooLarge
    return bytes(data)
