"""The sandbox's host: the operator of this checkout, started beside the cluster, and what it is given.

It does what an admin does on a real cluster: CRDs, the wallet's Secret, a settings file, a NosanaMarket.
`nosana_sandbox.helm` does the same by the chart, and the operator runs in the cluster then.
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
from nosana_sandbox.world.state import Endpoints

NETWORK: Final = "localnet"
DOMAIN: Final = "nosana.localhost"
"""Exposed ports get hosts below it; every name below localhost is this machine."""
WALLET_SECRET: Final = "host-key"
MARKET_NAME: Final = "sandbox"
METRICS_PORT: Final = 8080
"""Inside the cluster's network namespace."""

_PROGRAM: Final = "operator"
_READY_SECONDS: Final = 60.0


class HostSetup:
    """What an admin of one sandbox gives to the operator, wherever it runs."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.kubectl = Kubectl(find_kubectl(), running.kubeconfig)

    def settings(self, reached: Endpoints | None) -> dict[str, Any]:
        """The operator's settings: the sandbox's chain and IPFS as network `localnet`.

        `reached` says where they are for the operator. Raises StartError when they are nowhere.
        """
        if reached is None:
            raise StartError(
                "chain and IPFS do not answer inside the cluster; take the sandbox down and up again"
            )
        world = self._running.world
        return {
            "clusterName": "sandbox",
            "log": {"format": "json", "level": "info"},
            "election": {"namespace": NAMESPACES["system"]},
            "exposure": {"domain": DOMAIN},
            "fetch": {"image": FETCH_IMAGE, "mirrors": mirrors()},
            "networks": {
                NETWORK: {
                    "rpc": [reached.rpc],
                    "ws": [reached.ws],
                    "program": world.program,
                    "nosMint": world.mint,
                    "ipfs": {"gateways": [reached.ipfs], "pin": [{"type": "kubo", "url": reached.ipfs}]},
                    # Posters of confidential jobs are on this machine too.
                    "allowInsecureLogistics": True,
                }
            },
        }

    def wallet_secret(self, keypair: str | None = None, name: str = WALLET_SECRET) -> dict[str, Any]:
        """A Secret with a key file as Solana tools write it; without `keypair` that of the sandbox's host."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACES["system"]},
            "stringData": {"id.json": keypair or Path(self._running.world.host.keypair).read_text()},
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


class SandboxHost(HostSetup):
    """The operator of one sandbox that is up, as a process beside the cluster.

    Several, each with another `replica`, are like the replicas of a Deployment: one leads, the others stand by.
    """

    def __init__(self, sandbox: Sandbox, running: Running, *, replica: int = 0) -> None:
        """Raises ClusterError when the sandbox's cluster is not one of this machine's own."""
        super().__init__(running)
        self._cluster: LocalCluster = sandbox.local_cluster()
        self._program = f"{_PROGRAM}-{replica}" if replica else _PROGRAM
        self._port = METRICS_PORT + 100 * replica
        self._settings = self._cluster.layout.folder / f"{self._program}.yaml"

    @property
    def log(self) -> Path:
        """The operator's log."""
        return self._cluster.layout.logs / f"{self._program}.log"

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
        self.kubectl.apply([self.wallet_secret()])
        own = {"metrics": {"address": "127.0.0.1", "port": self._port}}
        chosen = self.settings(self._running.world.inside) | own | settings
        self._settings.write_text(yaml.safe_dump(chosen, sort_keys=False))

    def bring_up(self) -> None:
        """Installed and running. Safe to repeat."""
        self.install()
        if self.pid() is None:
            self.start()

    def offer(self, *, slots: int | None = 2) -> None:
        """The sandbox's market, by kubectl."""
        self.kubectl.apply([self.market(slots=slots)])

    def ended(self) -> str | None:
        """Why the operator does not run, or None when it does."""
        return f"the operator has ended; see {self.log}" if self.pid() is None else None

    def follow_log(self) -> str:
        """The command that shows the operator's logs."""
        return f"tail -f {self.log}"

    def start(self) -> None:
        """Start the operator and wait until it is ready. Raises StartError with its last log lines."""
        command = [sys.executable, "-m", "nosana_operator", "run", "--settings", str(self._settings)]
        # One identity: after a restart it need not wait for the Lease of the killed process.
        command += [
            "--kubeconfig",
            str(self._cluster.inside_kubeconfig),
            "--identity",
            f"sandbox-{self._program}",
        ]
        environment = {"PYTHONUNBUFFERED": "1", "HOME": os.environ.get("HOME", "/")}
        self._cluster.spawn(self._program, command, environment)
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
        return self._cluster.pid(self._program)

    def stop(self) -> None:
        """SIGTERM, as an upgrade does; chain and pods stay as they are."""
        self._cluster.stop(self._program)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        while self.pid() is not None:
            time.sleep(0.01)

    def ready(self) -> bool:
        """Whether /readyz answers 200."""
        try:
            return self._get("/readyz")[0] == http.client.OK
        except OSError:
            return False

    def leads(self) -> bool:
        """Whether it is the leader."""
        try:
            return "nosana_operator_leader 1.0" in self.metrics()
        except OSError:
            return False

    def metrics(self) -> str:
        """The metrics as Prometheus scrapes them."""
        return self._get("/metrics")[1]

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        connection.sock = socket_in_namespace(self._cluster.namespace)
        try:
            connection.sock.settimeout(5)
            connection.sock.connect(("127.0.0.1", self._port))
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
