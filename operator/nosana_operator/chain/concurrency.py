"""Concurrent requests, limited in number."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

AT_ONCE: Final = 8


async def gather_limited(requests: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run at most eight at a time, wait for all, then raise the first error: the other answers are kept."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(request: Coroutine[Any, Any, None]) -> None:
        async with limit:
            await request

    waiting = list(requests)
    try:
        answers = await asyncio.gather(*(one(request) for request in waiting), return_exceptions=True)
    finally:
        # A request that was cancelled before it started would never be awaited; closing a finished one is harmless.
        for request in waiting:
            request.close()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
