"""The stand-in servers of one sandbox: a process in the cluster's network namespace, reached by Service name.

`POST /definitions` at `CONTROL_PORT` stocks them with what job definitions want.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from nosana_sandbox.cluster.build import Report
from nosana_sandbox.cluster.errors import StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.images.debian import fetch_image, fetch_image_key
from nosana_sandbox.resources.bucket import Bucket, bucket_app
from nosana_sandbox.resources.catalogue import stock, wanted
from nosana_sandbox.resources.hub import Hub, hub_app
from nosana_sandbox.resources.registry import Registry, registry_app
from nosana_sandbox.world.state import SANDBOX_NAMESPACE

BUCKET_PORT: Final = 9101
HUB_PORT: Final = 9102
REGISTRY_PORT: Final = 9103
CONTROL_PORT: Final = 9104
_SERVICES: Final = {"bucket": BUCKET_PORT, "hub": HUB_PORT, "ollama": REGISTRY_PORT}
_PROGRAM: Final = "resources"
_START_SECONDS: Final = 30.0

_BUCKETS: Final = (
    "https://models.nosana.io",
    "https://pub-5bc58981af9f42659ff8ada57bfea92c.r2.dev",
    "https://nosana.mypinata.cloud",
    "https://ai.r2.cloudflarestorage.com",
)
"""Public places that Nosana's own examples and templates name."""


def mirrors() -> dict[str, str]:
    """For `fetch.mirrors` of the operator's settings."""

    def url(name: str) -> str:
        return f"http://{name}.{SANDBOX_NAMESPACE}:{_SERVICES[name]}"

    return {
        **dict.fromkeys(_BUCKETS, url("bucket")),
        "https://huggingface.co": url("hub"),
        "https://registry.ollama.ai": url("ollama"),
    }


def ensure_resources(cluster: LocalCluster, definitions: Sequence[Mapping[str, Any]], report: Report) -> None:
    """What the resources of these definitions need: the image that fetches them, and where they are.

    Fine, and quick, when they have none. Raises ClusterError.
    """
    if not any(True for _ in wanted(definitions)):
        return
    loaded, key = cluster.layout.folder / "fetch-image", fetch_image_key()
    if not loaded.exists() or loaded.read_text() != key:
        cluster.provide_images([fetch_image(report)])
        loaded.write_text(key)
    servers = StandInResources(cluster)
    servers.start()
    servers.stock(definitions)


class StandInResources:
    """The stand-in servers beside one cluster that is up."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def start(self) -> None:
        """Start them, unless they run, and make their Services. Raises StartError."""
        if self._cluster.pid(_PROGRAM) is None:
            self._cluster.spawn(_PROGRAM, [sys.executable, "-m", "nosana_sandbox.resources.standing"])
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._cluster.pid(_PROGRAM) is None or time.monotonic() > deadline:
                raise StartError(f"the stand-in servers did not start; see {_PROGRAM}.log of the cluster")
            time.sleep(0.05)
        for name, port in _SERVICES.items():
            self._cluster.expose(SANDBOX_NAMESPACE, name, port, port)

    def stock(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Make everything that these definitions want to have fetched. Raises StartError."""
        status = self._ask("POST", "/definitions", json.dumps(definitions))
        if status != http.client.NO_CONTENT:
            raise StartError(f"the stand-in servers answered {status}")

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/", None) == http.client.OK
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: str | None) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", CONTROL_PORT, timeout=10)
        connection.sock = socket_in_namespace(self._cluster.namespace)
        try:
            connection.sock.settimeout(10)
            connection.sock.connect(("127.0.0.1", CONTROL_PORT))
            connection.request(method, path, body)
            return connection.getresponse().status
        finally:
            connection.close()


async def _serve() -> None:
    """Be the servers until SIGTERM or SIGINT."""
    bucket, hub, registry = Bucket(anything=True), Hub(), Registry()
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)

    async def take(request: web.Request) -> web.Response:
        stock(await request.json(), bucket, hub, registry)
        return web.Response(status=204)

    async def alive(_: web.Request) -> web.Response:
        return web.Response()

    control = web.Application(client_max_size=64 << 20)
    control.router.add_post("/definitions", take)
    control.router.add_get("/", alive)
    runners = []
    for app, address, port in (
        (bucket_app(bucket), "0.0.0.0", BUCKET_PORT),
        (hub_app(hub), "0.0.0.0", HUB_PORT),
        (registry_app(registry), "0.0.0.0", REGISTRY_PORT),
        (control, "127.0.0.1", CONTROL_PORT),
    ):
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, address, port).start()
    await stop.wait()
    for runner in runners:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
