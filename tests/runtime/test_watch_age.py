"""How long a watch has been silent: whatever comes counts, bookmarks too, which nobody else sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.kube import CORE_KINDS, Credentials, ObjectCache
from nosana_operator.runtime.watching import ClusterView, Lister, Scope

BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n'


class Api:
    """Pods and nodes whose watches say what the test wants."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("refused"):
            return web.Response(status=403)
        response = web.StreamResponse()
        await response.prepare(request)
        while line := await self.lines.get():
            await response.write(line)
        return response


@pytest.fixture
async def api() -> Api:
    return Api()


@pytest.fixture
async def server(api: Api) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_get("/api/v1/pods", api.watch)
    app.router.add_get("/api/v1/nodes", api.watch)
    async with TestServer(app) as started:
        yield started  # type: ignore[misc]


@pytest.fixture
def view() -> ClusterView:
    kinds = (CORE_KINDS["Pod"], CORE_KINDS["Node"])
    return ClusterView(
        [Scope(kinds)],
        cache=ObjectCache(("Pod", "Node")),
        lister=cast(Lister, None),
        credentials=cast(Credentials, None),
        on_change=lambda change: None,
    )


async def test_a_bookmark_is_heard_and_passed_on(
    api: Api, server: TestServer, view: ClusterView, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(server.make_url("/"), middlewares=(view._note_request,)) as session:
        monkeypatch.setattr(loop, "time", lambda: now)
        assert view.silence == {}
        async with session.get("/api/v1/pods?watch=true") as response:
            assert view.silence == {"Pod": 0.0}
            chunks = response.content.iter_chunked(1024).__aiter__()
            now = 1060.0
            assert view.silence == {"Pod": 60.0}
            api.lines.put_nowait(BOOKMARK)
            assert await chunks.__anext__() == BOOKMARK
            assert view.silence == {"Pod": 0.0}
            now = 1065.0
            assert view.silence == {"Pod": 5.0}
            api.lines.put_nowait(b"")
            with pytest.raises(StopAsyncIteration):
                await chunks.__anext__()


async def test_neither_a_refusal_nor_a_listing_is_a_watch(
    server: TestServer, view: ClusterView, api: Api
) -> None:
    api.lines.put_nowait(b"")
    async with aiohttp.ClientSession(server.make_url("/"), middlewares=(view._note_request,)) as session:
        async with session.get("/api/v1/pods?watch=true&refused=1") as response:
            assert response.status == 403
        async with session.get("/api/v1/nodes") as response:
            await response.read()
    assert view.silence == {}


async def test_of_several_namespaces_the_most_silent_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    unused: Any = None
    view = ClusterView(
        [Scope((CORE_KINDS["Pod"],), ("a", "b"))],
        cache=ObjectCache(("Pod",)),
        lister=unused,
        credentials=unused,
        on_change=lambda change: None,
    )
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: 100.0)
    view._heard = {"/api/v1/namespaces/a/pods": 90.0, "/api/v1/namespaces/b/pods": 40.0}
    assert view.silence == {"Pod": 60.0}
