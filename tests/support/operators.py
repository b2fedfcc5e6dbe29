"""The operator as a process of its own, without a chain: private jobs in one namespace."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from nosana_operator.api import crds
from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl


def install(kubectl: Kubectl, namespace: str) -> None:
    """CRDs and the namespace; safe to repeat."""
    kubectl.apply(crds())
    kubectl.run("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}])


class Operator:
    """`nosana-operator run` without networks: private jobs only. `folder` gets its settings and its log."""

    def __init__(self, cluster: LocalCluster, folder: Path, namespace: str) -> None:
        settings = folder / "settings.yaml"
        settings.write_text("metrics: {address: 127.0.0.1, port: 0}\n")
        self._command = [sys.executable, "-m", "nosana_operator", "run", "--settings", str(settings)]
        self._command += ["--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace]
        self._log = folder / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it looks for work at once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, if it runs; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code, self._process = self._process.wait(30), None
        return code
