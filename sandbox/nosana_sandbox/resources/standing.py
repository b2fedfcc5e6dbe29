"""The stand-in servers of one sandbox: a process in the cluster's network namespace, reached through Services.

`POST /definitions` at `CONTROL_PORT` fills them with the resources of job definitions.
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

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster.errors import StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.layout import SANDBOX_NAMESPACE
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.images.debian import fetch_image, fetch_image_key
from nosana_sandbox.resources.bucket import Bucket, bucket_app
from nosana_sandbox.resources.catalogue import referenced_resources, stock
from nosana_sandbox.resources.hub import Hub, hub_app
from nosana_sandbox.resources.ollama_registry import Registry, registry_app

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
"""Public buckets in Nosana's own examples and templates."""


def mirrors() -> dict[str, str]:
    """The value of `fetch.mirrors` in the operator's settings."""

    def url(name: str) -> str:
        return f"http://{name}.{SANDBOX_NAMESPACE}:{_SERVICES[name]}"

    return {
        **dict.fromkeys(_BUCKETS, url("bucket")),
        "https://huggingface.co": url("hub"),
        "https://registry.ollama.ai": url("ollama"),
    }


def ensure_resources(cluster: LocalCluster, definitions: Sequence[Mapping[str, Any]], report: Report) -> None:
    """Provide the fetch image and the stand-in servers for the resources of these definitions.

    Does nothing when they have no resources. Raises ClusterError, ImageError.
    """
    if not any(True for _ in referenced_resources(definitions)):
        return
    loaded, key = cluster.layout.folder / "fetch-image", fetch_image_key()
    if not loaded.exists() or loaded.read_text() != key:
        cluster.provide_images([fetch_image(report)])
        loaded.write_text(key)
    servers = StandInResources(cluster)
    servers.start()
    servers.stock(definitions)


class StandInResources:
    """The stand-in servers of one running cluster."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster

    def start(self) -> None:
        """Start the servers unless they are running, and create their Services. Raises StartError."""
        if self._cluster.pid(_PROGRAM) is None:
            self._cluster.spawn(_PROGRAM, [sys.executable, "-m", "nosana_sandbox.resources.standing"])
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._cluster.pid(_PROGRAM) is None or time.monotonic() > deadline:
                raise StartError(f"the stand-in servers did not start; see {_PROGRAM}.log of the cluster")
            time.sleep(0.05)
        for name, port in _SERVICES.items():
            self._cluster.expose(SANDBOX_NAMESPACE, name, port, port)

    def stock(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Fill the servers with the resources of these definitions. Raises StartError."""
        status = self._request("POST", "/definitions", json.dumps(definitions))
        if status != http.client.NO_CONTENT:
            raise StartError(f"the stand-in servers responded with HTTP {status}")

    def _is_ready(self) -> bool:
        try:
            return self._request("GET", "/", None) == http.client.OK
        except OSError:
            return False

    def _request(self, method: str, path: str, body: str | None) -> int:
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
    """Run the servers until SIGTERM or SIGINT."""
    bucket, hub, registry = Bucket(anything=True), Hub(), Registry()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def add_definitions(request: web.Request) -> web.Response:
        stock(await request.json(), bucket, hub, registry)
        return web.Response(status=204)

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    control = web.Application(client_max_size=64 << 20)
    control.router.add_post("/definitions", add_definitions)
    control.router.add_get("/", ready)
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
