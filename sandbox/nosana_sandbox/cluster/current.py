"""The cluster that the user's kubeconfig points at, used as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster.errors import KubectlError
from nosana_sandbox.cluster.expose import MADE_BY
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import GPU_RESOURCE
from nosana_sandbox.cluster.status import ClusterStatus

REACH_TIMEOUT: Final = 10.0
DELETE_TIMEOUT: Final = 300.0


class CurrentCluster:
    """The user's own cluster. Its images and GPUs are left alone."""

    def __init__(self, state: Path, report: Report) -> None:
        """`state` is the sandbox's folder; it gets a copy of the kubeconfig with only the current context."""
        self._kubeconfig = state / "cluster" / "kubeconfig"
        self._report = report

    def up(self) -> ClusterStatus:
        """Check that the cluster can be reached, and store its kubeconfig. Raises `KubectlError`."""
        kubectl = Kubectl(find_kubectl(), None)
        flat = kubectl.run("config", "view", "--raw", "--minify", "--flatten")
        server = kubectl.run("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
        try:
            kubectl.run("get", "--raw", "/readyz", f"--request-timeout={REACH_TIMEOUT:.0f}s")
        except KubectlError as error:
            raise KubectlError(
                f"the current cluster {server} cannot be used: {error}; see `kubectl config "
                "current-context`, or use --cluster local"
            ) from error
        self._kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(flat)
        status = self.status()
        self._report(
            f"using the cluster at {server}: {status.nodes} nodes, {status.gpus} GPUs; its GPUs and images "
            "are taken as they are"
        )
        return status

    def down(self) -> None:
        """Delete the namespaces that carry the sandbox's label, and the copy of the kubeconfig."""
        if not self._kubeconfig.exists():
            return
        kubectl = Kubectl(find_kubectl(), self._kubeconfig)
        label = ",".join(f"{key}={value}" for key, value in MADE_BY.items())
        kubectl.run(
            "delete", "namespace", f"--selector={label}", "--ignore-not-found", timeout=DELETE_TIMEOUT
        )
        self._kubeconfig.unlink()
        self._kubeconfig.parent.rmdir()

    def status(self) -> ClusterStatus:
        """The cluster's nodes and GPUs; `broken` when it does not answer."""
        if not self._kubeconfig.exists():
            return ClusterStatus("absent")
        try:
            nodes = Kubectl(find_kubectl(), self._kubeconfig).get(
                "nodes", f"--request-timeout={REACH_TIMEOUT:.0f}s"
            )["items"]
        except KubectlError:
            return ClusterStatus("broken", kubeconfig=self._kubeconfig)
        gpus = sum(int(node["status"].get("allocatable", {}).get(GPU_RESOURCE, 0)) for node in nodes)
        return ClusterStatus("running", gpus=gpus, nodes=len(nodes), kubeconfig=self._kubeconfig)

    def ensure_images(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Do nothing: the cluster pulls the real images itself."""
        self._report("images are the cluster's own business: it pulls the real ones that the jobs name")
