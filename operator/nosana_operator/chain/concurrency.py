"""Several requests at the same time, but not all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

AT_ONCE: Final = 8


async def gather_limited(requests: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run at most eight at a time, wait for all, then raise the first problem: the others' answers count."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(request: Coroutine[Any, Any, None]) -> None:
        async with limit:
            await request

    waiting = list(requests)
    try:
        answers = await asyncio.gather(*(one(request) for request in waiting), return_exceptions=True)
    finally:
        # Cancelled before its turn came, a request would be left never awaited; a done one minds not.
        for request in waiting:
            request.close()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
