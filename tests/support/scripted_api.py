"""An HTTP server that answers from a script and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """One answer; `cut` closes the connection instead."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def status_answer(code: int, reason: str = "", message: str = "no", **headers: str) -> Answer:
    """As the API server says no."""
    return Answer(code, {"kind": "Status", "reason": reason, "message": message, "code": code}, headers)


class ScriptedApi:
    """Gives `answers` in order, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.url = ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.asked.append(
            Asked(
                request.method,
                request.rel_url.raw_path,
                dict(request.query),
                dict(request.headers),
                json.loads(raw) if raw else None,
            )
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.cut:
            assert request.transport is not None
            request.transport.abort()
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        return web.Response(status=answer.status, body=body, headers=answer.headers)


@asynccontextmanager
async def scripted(*answers: Answer) -> AsyncIterator[ScriptedApi]:
    """A running `ScriptedApi`."""
    api = ScriptedApi(*answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api._handle)
    server = TestServer(app)
    await server.start_server()
    api.url = str(server.make_url("/"))
    try:
        yield api
    finally:
        await server.close()
