"""Requests to the cluster's API by its own kubectl: a few per start need no client library."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cache import cache_folder
from nosana_sandbox.cluster.build import cache_key
from nosana_sandbox.cluster.errors import KubectlError
from nosana_sandbox.cluster.processes import SEARCH_PATH

FIELD_MANAGER: Final = "nosana-sandbox"


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster; `kubeconfig` None: the user's current one."""

    program: Path
    kubeconfig: Path | None

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run kubectl and return its output. Raises `KubectlError` with its error."""
        chosen = ("--kubeconfig", str(self.kubeconfig)) if self.kubeconfig else ()
        command = (str(self.program), *chosen, *arguments)
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"`kubectl {' '.join(arguments)}` did not end within {timeout:g} s; is the API server alive?"
            ) from error
        if done.returncode != 0:
            raise KubectlError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return the object or list that `kubectl get ARGUMENTS` gives."""
        return json.loads(self.run("get", *arguments, "-o", "json"))

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Apply the objects on the server's side, in one request each."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run(
            "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-",
            stdin=json.dumps(items),
        )  # fmt: skip


def find_kubectl() -> Path:
    """Return the kubectl that was built for the sandbox, else the one on the path. Raises `KubectlError`."""
    built = cache_folder() / cache_key() / "bin" / "kubectl"
    if built.is_file():
        return built
    installed = shutil.which("kubectl") or shutil.which("kubectl", path=SEARCH_PATH)
    if installed is None:
        raise KubectlError(
            "no kubectl was found; install it, or bring a local sandbox up once, which builds it"
        )
    return Path(installed)
