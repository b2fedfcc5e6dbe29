"""The interface of a cluster to the rest of the sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

State = Literal["absent", "running", "broken"]


@dataclass(frozen=True)
class ClusterStatus:
    """What there is of a cluster.

    `broken`: some of it is left, but it does not work (a program ended, the machine was restarted, a start
    was cut off, the API does not answer); `missing` names the programs that should run and do not.
    `namespace` and `inside_kubeconfig` are those of a local cluster.
    """

    state: State
    gpus: int = 0
    nodes: int = 0
    kubeconfig: Path | None = None
    inside_kubeconfig: Path | None = None
    namespace: Path | None = None
    missing: tuple[str, ...] = ()


class Cluster(Protocol):
    """A cluster for the sandbox: one that it creates (`LocalCluster`) or the user's (`CurrentCluster`)."""

    def up(self) -> ClusterStatus:
        """Start it, if it does not run. Raises `ClusterError`."""

    def down(self) -> None:
        """Remove what `up` created and what has the sandbox's label. Nothing there is no error."""

    def status(self) -> ClusterStatus:
        """The cluster's status; changes nothing."""

    def ensure_images(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Make the images that these job definitions (as parsed from JSON) name available to its nodes."""
