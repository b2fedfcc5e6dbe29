"""A whole sandbox: a cluster and the world beside it, started and stopped together."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster.current import CurrentCluster
from nosana_sandbox.cluster.expose import ensure_namespace
from nosana_sandbox.cluster.kubectl import Kubectl, find_kubectl
from nosana_sandbox.cluster.layout import JOB_NAMESPACE, SANDBOX_NAMESPACE, SYSTEM_NAMESPACE
from nosana_sandbox.cluster.local import LocalCluster
from nosana_sandbox.cluster.status import Cluster
from nosana_sandbox.resources.standing import ensure_resources
from nosana_sandbox.world.errors import NotRunning, WorldError
from nosana_sandbox.world.process import WorldProcess
from nosana_sandbox.world.state import World, state_folder

DEFAULT_GPUS: Final = 4
DEFAULT_NODES: Final = 2
NAMESPACES: Final = {"system": SYSTEM_NAMESPACE, "jobs": JOB_NAMESPACE, "sandbox": SANDBOX_NAMESPACE}
"""The demo's Kubernetes namespaces by purpose."""

ClusterKind = Literal["local", "current"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The options of `up`, which `down` needs again."""

    name: str
    cluster: ClusterKind = "local"
    gpus: int = DEFAULT_GPUS
    nodes: int = DEFAULT_NODES


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that is up. `inside_kubeconfig` is for programs in the cluster's network namespace."""

    world: World
    kubeconfig: Path
    inside_kubeconfig: Path | None

    def to_json(self) -> dict[str, Any]:
        """What `--output json` prints."""
        world = self.world
        return {
            "kubeconfig": str(self.kubeconfig),
            "rpc": world.rpc,
            "ws": world.ws,
            "ipfs": world.ipfs,
            "gateway": world.gateway,
            "program": world.program,
            "mint": world.mint,
            "market": world.market,
            "host": asdict(world.host),
            "poster": asdict(world.poster),
            "namespaces": NAMESPACES,
        }


class Sandbox:
    """The sandbox `name`. Methods block; `up` and `down` of two processes wait for each other."""

    def __init__(self, name: str, report: Report, state: Path | None = None) -> None:
        """`report` is called with each long step; `state`: the folder, by default the one derived from the name."""
        self.name: Final = name
        self.state: Final = state or state_folder(name)
        self._report = report
        self._process = WorldProcess(self.state)
        self._shape_file = self.state / "sandbox.json"

    def up(self, shape: Shape) -> Running:
        """Start the parts that do not run. Raises ClusterError or WorldError."""
        with self._locked():
            self._refuse_another(shape)
            self.state.mkdir(parents=True, exist_ok=True)
            self._shape_file.write_text(json.dumps(asdict(shape)))
            status = self._cluster(shape).up()
            if status.kubeconfig is None:
                raise WorldError(
                    "the cluster gave no kubeconfig although it is up; take the sandbox down first"
                )
            self._make_namespaces(status.kubeconfig)
            self._report("starting chain, IPFS and gateway")
            world = self._process.start(namespace=status.namespace, kubeconfig=status.kubeconfig)
            return Running(world, status.kubeconfig, status.inside_kubeconfig)

    def down(self) -> None:
        """Remove everything, whatever state it is in. Nothing there is no error."""
        with self._locked():
            self._process.remove()
            self._cluster(self._shape() or Shape(self.name)).down()
            self._shape_file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self.state.rmdir()

    def status(self) -> Running:
        """The running sandbox. Raises NotRunning with the missing parts when some do not run."""
        shape = self._shape()
        if shape is None:
            raise NotRunning(
                f"no sandbox {self.name!r} is up; start it with `nosana-sandbox up --name {self.name}`"
            )
        status = self._cluster(shape).status()
        world = self._process.running()
        if status.state != "running" or status.kubeconfig is None:
            missing = f" (not running: {', '.join(status.missing)})" if status.missing else ""
            raise NotRunning(
                f"the sandbox's cluster is {status.state}{missing}; `nosana-sandbox up` mends it"
            )
        if world is None:
            raise NotRunning("the sandbox's chain and IPFS do not run; `nosana-sandbox up` starts new ones")
        return Running(world, status.kubeconfig, status.inside_kubeconfig)

    def world(self) -> World:
        """The running world alone. Raises NotRunning."""
        world = self._process.running()
        if world is None:
            raise NotRunning(
                f"no sandbox {self.name!r} is up; start it with `nosana-sandbox up --name {self.name}`"
            )
        return world

    def ensure_images(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Make the images and resources that these definitions name available; fine without a cluster."""
        shape, wanted = self._shape(), list(definitions)
        if shape is None:
            return
        cluster = self._cluster(shape)
        cluster.ensure_images(wanted)
        if isinstance(cluster, LocalCluster):
            ensure_resources(cluster, wanted, self._report)

    def local_cluster(self) -> LocalCluster:
        """The cluster on this machine. Raises NotRunning, or WorldError when it is somebody else's."""
        shape = self._shape()
        if shape is None:
            raise NotRunning(
                f"no sandbox {self.name!r} is up; start it with `nosana-sandbox up --name {self.name}`"
            )
        cluster = self._cluster(shape)
        if not isinstance(cluster, LocalCluster):
            raise WorldError(
                f"the sandbox {self.name!r} uses the cluster that kubeconfig points at; this needs its own"
            )
        return cluster

    def _cluster(self, shape: Shape) -> Cluster:
        if shape.cluster == "current":
            return CurrentCluster(self.state, self._report)
        return LocalCluster(self.state, self.name, shape.gpus, shape.nodes, self._report)

    def _shape(self) -> Shape | None:
        try:
            return Shape(**json.loads(self._shape_file.read_text()))
        except (FileNotFoundError, ValueError):
            return None

    def _refuse_another(self, shape: Shape) -> None:
        there = self._shape()
        if there is None:
            return
        if there.name != shape.name:
            raise WorldError(
                f"{self.state} holds the sandbox {there.name!r}; take that one down or set another folder in "
                "NOSANA_SANDBOX_STATE"
            )
        if there.cluster != shape.cluster and self._cluster(there).status().state != "absent":
            raise WorldError(
                f"the sandbox {self.name!r} is up with --cluster {there.cluster}; take it down first"
            )

    def _make_namespaces(self, kubeconfig: Path) -> None:
        kubectl = Kubectl(find_kubectl(), kubeconfig)
        for name in NAMESPACES.values():
            ensure_namespace(kubectl, name)

    @property
    def _lock_file(self) -> Path:
        return (
            Path("/run/lock") / f"nosana-sandbox-{hashlib.sha256(str(self.state).encode()).hexdigest()[:12]}"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
