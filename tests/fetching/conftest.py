"""The stand-in servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nosana_operator.backoff import Backoff
from nosana_sandbox.resources.bucket import Bucket, bucket_app
from nosana_sandbox.resources.hub import Hub, hub_app
from nosana_sandbox.resources.moto import moto_server
from nosana_sandbox.resources.ollama_registry import Registry, registry_app
from support.fetching import Fetch, Site


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    for room in ("transfer", "program"):
        monkeypatch.setattr(f"nosana_operator.fetching.{room}.BACKOFF", Backoff(0.01, 1))
    return Fetch(tmp_path, monkeypatch)


@pytest.fixture
async def hub(fetch: Fetch) -> AsyncIterator[Hub]:
    hub = Hub()
    async with TestServer(hub_app(hub)) as server:
        fetch.mirrors["https://huggingface.co"] = str(server.make_url("")).rstrip("/")
        yield hub


@pytest.fixture
async def registry(fetch: Fetch) -> AsyncIterator[Registry]:
    registry = Registry()
    async with TestServer(registry_app(registry)) as server:
        fetch.mirrors["https://registry.ollama.ai"] = str(server.make_url("")).rstrip("/")
        yield registry


@pytest.fixture
async def public_bucket(fetch: Fetch) -> AsyncIterator[Bucket]:
    """A bucket with its own host name, `https://models.test`."""
    bucket = Bucket()
    async with TestServer(bucket_app(bucket)) as server:
        fetch.mirrors["https://models.test"] = str(server.make_url("")).rstrip("/")
        yield bucket


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site, app = Site(), web.Application()
    app.router.add_get("/{path:.*}", site.get)
    async with TestServer(app) as server:
        site.url = str(server.make_url("")).rstrip("/")
        yield site


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("moto") / "moto.log") as url:
        yield url
