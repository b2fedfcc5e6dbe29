"""Serves content over HTTP as object stores do, with ranges and ETags, and injects faults."""

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
class Faults:
    """Faults by a part of the path. Each applies to one response."""

    cut: dict[str, list[int]] = field(default_factory=dict)
    """The connection breaks after this many bytes of the response."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """The status replaces the content."""
    damaged: dict[str, int] = field(default_factory=dict)
    """The first byte is changed, this many times."""

    def next_cut(self, path: str) -> int | None:
        """The number of bytes after which this response breaks off; None: it does not."""
        return _next(self.cut, path)

    def next_status(self, path: str) -> int | None:
        """The status that replaces this response; None: no fault."""
        return _next(self.status, path)

    def next_damage(self, path: str) -> bool:
        """Whether this response is damaged."""
        for part, times in self.damaged.items():
            if part in path and times > 0:
                self.damaged[part] = times - 1
                return True
        return False


def _next(table: dict[str, list[int]], path: str) -> int | None:
    for part, values in table.items():
        if part in path and values:
            return values.pop(0)
    return None


@dataclass(frozen=True, slots=True)
class Served:
    """One request that got a response."""

    path: str
    start: int
    authorized: bool


async def serve(
    request: web.Request,
    content: bytes,
    *,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
    faults: Faults | None = None,
    log: list[Served] | None = None,
) -> web.StreamResponse:
    """Respond with the content, or with the range of the Range header if If-Range allows it."""
    faults = faults or Faults()
    status = faults.next_status(request.path)
    if status is not None:
        return web.Response(status=status, headers={"Retry-After": "0"} if status == 429 else None)
    etag = etag or f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
    response_headers = {"ETag": etag, "Accept-Ranges": "bytes", **(headers or {})}
    start, end = 0, len(content)
    requested = _RANGE.fullmatch(request.headers.get("Range", ""))
    if requested and request.headers.get("If-Range", etag) == etag:
        start = int(requested[1])
        end = min(end, int(requested[2]) + 1) if requested[2] else end
        if start >= len(content):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        response_headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
    if log is not None:
        log.append(Served(request.path, start, "Authorization" in request.headers))
    part = content[start:end]
    if faults.next_damage(request.path):
        part = bytes([part[0] ^ 0xFF]) + part[1:]
    cut = faults.next_cut(request.path)
    response = web.StreamResponse(
        status=206 if "Content-Range" in response_headers else 200, headers=response_headers
    )
    response.content_length = len(part)
    await response.prepare(request)
    for at in range(0, len(part) if cut is None else min(cut, len(part)), _CHUNK):
        await response.write(part[at : at + _CHUNK] if cut is None else part[at : min(at + _CHUNK, cut)])
    if cut is not None and request.transport is not None:
        request.transport.close()
    return response
