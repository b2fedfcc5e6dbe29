"""Helm, and the operator of this checkout installed by its chart: it runs in a pod of the sandbox's cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster.build import ensure_helm
from nosana_sandbox.cluster.errors import ClusterError, KubectlError
from nosana_sandbox.host import MARKET_NAME, HostSetup
from nosana_sandbox.images.debian import operator_image
from nosana_sandbox.world.sandbox import NAMESPACES, Running, Sandbox

CHART: Final = Path(__file__).parents[2] / "charts" / "nosana-operator"
RELEASE: Final = "nosana-operator"
"""Also the name of the chart's Deployment, as the release's name holds the chart's."""
WAIT: Final = "180s"
"""For pods to become ready, hooks included; seconds are usual once the image is on the nodes."""

_GIVE_UP: Final = 240.0
_JOB_NAMESPACE_LABELS: Final = (
    "nosana.io/job-namespace=true",
    "pod-security.kubernetes.io/enforce=baseline",
)
"""What the chart gives to the job namespaces that it makes."""


class HelmError(ClusterError):
    """A Helm command failed."""


@dataclass(frozen=True)
class Helm:
    """Helm for one cluster and one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run Helm and return its output. Raises `HelmError` with its error."""
        command = (
            str(self.program), *arguments, "--namespace", self.namespace, "--kubeconfig", str(self.kubeconfig)
        )  # fmt: skip
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=_GIVE_UP, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise HelmError(
                f"`helm {' '.join(arguments)}` did not end within {_GIVE_UP:g} s; is the API server alive?"
            ) from error
        if done.returncode != 0:
            raise HelmError(f"`helm {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout

    def upgrade(self, release: str, values: Mapping[str, Any], *, chart: Path = CHART) -> None:
        """Install the release, or give it these values, and wait until its pods are ready."""
        # JSON is YAML.
        self.run(
            "upgrade", release, str(chart), "--install", "--wait", "--timeout", WAIT, "--values", "-",
            stdin=json.dumps(values),
        )  # fmt: skip

    def uninstall(self, release: str) -> None:
        """Uninstall the release; returns when its hooks are done and its objects are gone."""
        self.run("uninstall", release, "--wait", "--timeout", WAIT)


class ChartHost(HostSetup):
    """The operator of one sandbox that is up, by Helm in the cluster."""

    def __init__(self, sandbox: Sandbox, running: Running, report: Report) -> None:
        """`report` is called with each long step. Raises ClusterError when the cluster is not of this machine."""
        super().__init__(running)
        self._cluster = sandbox.local_cluster()
        self._report = report
        self.helm = Helm(ensure_helm(report), running.kubeconfig, NAMESPACES["system"])

    def values(self, **over: Any) -> dict[str, Any]:
        """The chart's values: the sandbox's image, settings and namespaces; `over` replaces whole keys."""
        repository, _, tag = self.provided_image().rpartition(":")
        return {
            "image": {"repository": repository, "tag": tag},
            "settings": self.settings(self._running.world.services),
            # The sandbox made it, so that it goes with the sandbox.
            "jobNamespaces": {"create": False, "names": [NAMESPACES["jobs"]]},
            **over,
        }

    def provided_image(self) -> str:
        """Name of the operator's image, which the nodes can pull."""
        image = operator_image(self._report)
        loaded = self._cluster.layout.folder / "operator-image"
        if not loaded.exists() or loaded.read_text() != image.name:
            self._cluster.provide_images([image])
            loaded.write_text(image.name)
        return image.name

    def bring_up(self, **over: Any) -> None:
        """The wallet's Secret, and the chart installed: the operator's pods are ready. Safe to repeat."""
        self.kubectl.apply([self.wallet_secret()])
        self.kubectl.run("label", "--overwrite", "namespace", NAMESPACES["jobs"], *_JOB_NAMESPACE_LABELS)
        self._report("installing the operator: helm upgrade --install")
        self.helm.upgrade(RELEASE, self.values(**over))

    def offer(self, *, slots: int | None = 2, **over: Any) -> None:
        """The sandbox's market among the chart's `markets`: the release with it. `over` as for `values`."""
        market = {"name": MARKET_NAME, "spec": self.market(slots=slots)["spec"]}
        self.helm.upgrade(RELEASE, self.values(markets=[market], **over))

    def ended(self) -> str | None:
        """Why the operator does not run, or None when it does."""
        try:
            deployment = self.kubectl.get("deployment", RELEASE, "-n", NAMESPACES["system"])
        except KubectlError as error:
            return str(error)
        if deployment.get("status", {}).get("availableReplicas", 0) > 0:
            return None
        return f"no pod of the operator is ready; see `{self.follow_log()}`"

    def last_words(self, lines: int) -> str:
        """The last log lines of the operator's pods."""
        try:
            return self.kubectl.run(
                "logs", "-n", NAMESPACES["system"], "-l", "app.kubernetes.io/component=operator", "--prefix",
                f"--tail={lines}",
            )  # fmt: skip
        except KubectlError as error:
            return str(error)

    def follow_log(self) -> str:
        """The command that shows the operator's logs."""
        kubectl = f"{self.kubectl.program} --kubeconfig {self._running.kubeconfig}"
        return f"{kubectl} -n {NAMESPACES['system']} logs -f deployment/{RELEASE}"
