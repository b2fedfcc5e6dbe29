"""Content over HTTP as object stores give it: ranges, ETags, and trouble on request."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK: Final = 64 << 10


@dataclass(slots=True)
class Trouble:
    """What goes wrong, by a part of the path; each is used up by being met."""

    cut: dict[str, list[int]] = field(default_factory=dict)
    """The connection breaks after so many bytes of the answer."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """This is answered in place of the content."""
    damaged: dict[str, int] = field(default_factory=dict)
    """So many times the first byte is another one."""

    def next_cut(self, path: str) -> int | None:
        """After how many bytes this answer breaks off."""
        return _next(self.cut, path)

    def next_status(self, path: str) -> int | None:
        """What is answered instead."""
        return _next(self.status, path)

    def next_damage(self, path: str) -> bool:
        """Whether this answer is damaged."""
        for part, left in self.damaged.items():
            if part in path and left > 0:
                self.damaged[part] = left - 1
                return True
        return False


def _next(table: dict[str, list[int]], path: str) -> int | None:
    for part, values in table.items():
        if part in path and values:
            return values.pop(0)
    return None


@dataclass(frozen=True, slots=True)
class Served:
    """One request that was answered."""

    path: str
    start: int
    authorized: bool


async def serve(
    request: web.Request,
    content: bytes,
    *,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
    trouble: Trouble | None = None,
    log: list[Served] | None = None,
) -> web.StreamResponse:
    """Answer with the content, or with the part that a Range header asks for (If-Range heeded)."""
    trouble = trouble or Trouble()
    status = trouble.next_status(request.path)
    if status is not None:
        return web.Response(status=status, headers={"Retry-After": "0"} if status == 429 else None)
    etag = etag or f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
    told = {"ETag": etag, "Accept-Ranges": "bytes", **(headers or {})}
    start, end = 0, len(content)
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked and request.headers.get("If-Range", etag) == etag:
        start = int(asked[1])
        end = min(end, int(asked[2]) + 1) if asked[2] else end
        if start >= len(content):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        told["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    if log is not None:
        log.append(Served(request.path, start, "Authorization" in request.headers))
    part = content[start:end]
    if trouble.next_damage(request.path):
        part = bytes([part[0] ^ 0xFF]) + part[1:]
    cut = trouble.next_cut(request.path)
    response = web.StreamResponse(status=206 if "Content-Range" in told else 200, headers=told)
    response.content_length = len(part)
    await response.prepare(request)
    for at in range(0, len(part) if cut is None else min(cut, len(part)), _CHUNK):
        await response.write(part[at : at + _CHUNK] if cut is None else part[at : min(at + _CHUNK, cut)])
    if cut is not None and request.transport is not None:
        request.transport.close()
    return response
