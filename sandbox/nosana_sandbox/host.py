"""The sandbox's host: the operator of this checkout, started beside the cluster, and what it is given.

It does what an admin does on a real cluster: CRDs, the wallet's Secret, a settings file, a NosanaMarket.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from nosana_operator.api import API_VERSION, MARKET_KIND, crds
from nosana_sandbox.cluster.errors import StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.images.debian import FETCH_IMAGE
from nosana_sandbox.resources.standing import mirrors
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox

NETWORK: Final = "localnet"
DOMAIN: Final = "nosana.localhost"
"""Exposed ports get hosts below it; every name below localhost is this machine."""
WALLET_SECRET: Final = "host-key"
MARKET_NAME: Final = "sandbox"
METRICS_PORT: Final = 8080
"""Inside the cluster's network namespace."""

_PROGRAM: Final = "operator"
_READY_SECONDS: Final = 60.0


class SandboxHost:
    """The operator of one sandbox that is up."""

    def __init__(self, sandbox: Sandbox, running: Running) -> None:
        """Raises ClusterError when the sandbox's cluster is not one of this machine's own."""
        self._cluster: LocalCluster = sandbox.local_cluster()
        self._running = running
        self._settings = self._cluster.layout.folder / "operator.yaml"
        self.kubectl = Kubectl(find_kubectl(), running.kubeconfig)

    @property
    def log(self) -> Path:
        """What the operator says."""
        return self._cluster.layout.logs / f"{_PROGRAM}.log"

    def install(self, **settings: Any) -> None:
        """CRDs, the wallet's Secret and the settings file; safe to repeat. `settings` overrides parts of it."""
        self.kubectl.apply(crds())
        self.kubectl.run(
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            *(c["metadata"]["name"] for c in crds()),
        )
        self.kubectl.apply([self.wallet_secret(Path(self._running.world.host.keypair).read_text())])
        self._settings.write_text(yaml.safe_dump(self.settings() | settings, sort_keys=False))

    def settings(self) -> dict[str, Any]:
        """The operator's settings: the sandbox's chain and IPFS as network `localnet`."""
        world = self._running.world
        inside = world.inside
        if inside is None:
            raise StartError(
                "chain and IPFS do not answer inside the cluster; take the sandbox down and up again"
            )
        return {
            "clusterName": "sandbox",
            "metrics": {"address": "127.0.0.1", "port": METRICS_PORT},
            "log": {"format": "json", "level": "info"},
            "exposure": {"domain": DOMAIN},
            "fetch": {"image": FETCH_IMAGE, "mirrors": mirrors()},
            "networks": {
                NETWORK: {
                    "rpc": [inside.rpc],
                    "ws": [inside.ws],
                    "program": world.program,
                    "nosMint": world.mint,
                    "ipfs": {"gateways": [inside.ipfs], "pin": [{"type": "kubo", "url": inside.ipfs}]},
                }
            },
        }

    def wallet_secret(self, keypair: str, name: str = WALLET_SECRET) -> dict[str, Any]:
        """A Secret with a key file as Solana tools write it."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACES["system"]},
            "stringData": {"id.json": keypair},
        }

    def market(self, *, slots: int | None = 2, **spec: Any) -> dict[str, Any]:
        """The NosanaMarket of the sandbox's market; `slots` None offers all GPUs. `spec` overrides fields."""
        return {
            "apiVersion": API_VERSION,
            "kind": MARKET_KIND,
            "metadata": {"name": MARKET_NAME, "namespace": NAMESPACES["system"]},
            "spec": {
                "address": self._running.world.market,
                "network": NETWORK,
                "jobNamespace": NAMESPACES["jobs"],
                "wallets": [{"secretRef": {"name": WALLET_SECRET}}],
                "gpu": {"count": 1},
                "slots": {} if slots is None else {"max": slots},
                "exposure": {"domain": DOMAIN},
                **spec,
            },
        }

    def start(self) -> None:
        """Start the operator and wait until it is ready. Raises StartError with its last words."""
        command = [sys.executable, "-m", "nosana_operator", "run", "--settings", str(self._settings)]
        command += ["--kubeconfig", str(self._cluster.inside_kubeconfig)]
        self._cluster.spawn(_PROGRAM, command, {"PYTHONUNBUFFERED": "1", "HOME": os.environ.get("HOME", "/")})
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.pid() is None:
                raise StartError(f"the operator ended: {self._last_words()}")
            if self.ready():
                return
            time.sleep(0.1)
        raise StartError(f"the operator is not ready after {_READY_SECONDS:g} s: {self._last_words()}")

    def pid(self) -> int | None:
        """Its process number while it runs."""
        return self._cluster.pid(_PROGRAM)

    def stop(self) -> None:
        """SIGTERM, as an upgrade does; chain and pods stay as they are."""
        self._cluster.stop(_PROGRAM)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        while self.pid() is not None:
            time.sleep(0.01)

    def ready(self) -> bool:
        """Whether /readyz says yes."""
        try:
            return self._get("/readyz")[0] == http.client.OK
        except OSError:
            return False

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        return self._get("/metrics")[1]

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=5)
        connection.sock = socket_in_namespace(self._cluster.namespace)
        try:
            connection.sock.settimeout(5)
            connection.sock.connect(("127.0.0.1", METRICS_PORT))
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def _last_words(self) -> str:
        try:
            return " | ".join(self.log.read_text(errors="replace").splitlines()[-5:])
        except OSError:
            return "it said nothing"


def job_object(name: str, definition: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A private NosanaJob in the sandbox's job namespace."""
    return {
        "apiVersion": API_VERSION,
        "kind": "NosanaJob",
        "metadata": {"name": name, "namespace": NAMESPACES["jobs"]},
        "spec": {"definition": dict(definition), **spec},
    }
