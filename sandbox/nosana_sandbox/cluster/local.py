"""A real Kubernetes cluster on this machine: control plane, nodes and DNS, in its own network namespace."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster import cgroups, teardown
from nosana_sandbox.cluster.build import ensure_programs, ensure_stand_in
from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.cluster.expose import expose_in_cluster
from nosana_sandbox.cluster.inside import inside
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.cluster.loading import provide
from nosana_sandbox.cluster.machine import prepare, refuse_unless_capable
from nosana_sandbox.cluster.processes import ProcessTable, boot_id
from nosana_sandbox.cluster.start import Start
from nosana_sandbox.cluster.status import ClusterStatus
from nosana_sandbox.images.archive import Image
from nosana_sandbox.images.rootfs import base_layer
from nosana_sandbox.images.stand_ins import StandIn, stand_ins_for


class LocalCluster:
    """One sandbox's cluster. Methods block; a second caller of `up` or `down` waits for the first."""

    def __init__(
        self,
        state: Path,
        name: str,
        gpus: int,
        nodes: int,
        report: Report,
        *,
        feature_gates: Sequence[str] = (),
    ) -> None:
        """`state` is the sandbox's folder: the cluster keeps to `cluster/` below it.

        `gpus` are shared out over `nodes`; `feature_gates` are switched on. Raises `ClusterError` when one of
        them cannot work.
        """
        self.layout: Final = Layout(state, name, gpus, nodes, tuple(feature_gates))
        self._report = report

    @property
    def kubeconfig(self) -> Path:
        """Admin's kubeconfig for this machine (the API server by way of a port on 127.0.0.1)."""
        return self.layout.kubeconfig

    @property
    def inside_kubeconfig(self) -> Path:
        """Admin's kubeconfig for programs inside the cluster's network namespace."""
        return self.layout.inside_kubeconfig

    @property
    def namespace(self) -> Path:
        """The network namespace's file, for `listen_in_namespace` and `connect_in_namespace`."""
        return self.layout.namespace

    def status(self) -> ClusterStatus:
        """The cluster's status; changes nothing."""
        folder = self.layout.folder
        if not self.layout.record.exists():
            # A start that failed may have left nothing but its logs.
            leftover = folder.exists() and any(entry != self.layout.logs for entry in folder.iterdir())
            return ClusterStatus("broken" if leftover or self.layout.namespace.exists() else "absent")
        record = json.loads(self.layout.record.read_text())
        running = self._processes().known()
        missing = tuple(name for name in record["programs"] if not running.get(name, False))
        works = not missing and record["boot"] == boot_id() and self.layout.namespace.exists()
        return ClusterStatus(
            "running" if works else "broken",
            gpus=record["gpus"],
            nodes=record["nodes"],
            kubeconfig=self.kubeconfig,
            inside_kubeconfig=self.inside_kubeconfig,
            namespace=self.namespace,
            missing=missing,
        )

    def up(self) -> ClusterStatus:
        """Bring the cluster up: returns once its nodes are ready, DNS answers and pods can be made.

        Running already: returns at once. Left broken by a crash: cleared away first. Raises `ClusterError`;
        what had been started is then gone again, and the programs' logs are kept in `cluster/logs`.
        """
        refuse_unless_capable()
        with self._locked():
            status = self.status()
            if status.state == "running":
                self._refuse_other_shape(status)
                return status
            if status.state == "broken":
                self._report("clearing away what a cluster that crashed has left")
            machine = prepare(self._report)
            programs = ensure_programs(self._report)
            teardown.take_down(self.layout, self._processes())
            try:
                Start(self.layout, machine, programs, self._processes(), self._report).run()
            except BaseException as error:
                keep = isinstance(error, ClusterError)
                teardown.take_down(self.layout, self._processes(), keep_logs=keep)
                raise
            return self.status()

    def down(self) -> None:
        """Remove the cluster from this machine, whatever state it is in. None is no error."""
        refuse_unless_capable()
        with self._locked():
            teardown.take_down(self.layout, self._processes())

    def load_images(self, stand_ins: Iterable[StandIn]) -> None:
        """Make stand-in images available under their full names, replacing existing ones."""
        machine = prepare(self._report)
        base = base_layer(machine.busybox, ensure_stand_in(self._report))
        self.provide_images(stand_in.build(base) for stand_in in stand_ins)

    def provide_images(self, images: Iterable[Image]) -> None:
        """Make images available to the nodes under their full names, replacing existing ones."""
        provide(self.layout, images)

    def ensure_images(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Make a stand-in available for every image that these job definitions name.

        Where a definition logs in to pull an image, nobody gets it without that login.
        """
        if stand_ins := stand_ins_for(definitions):
            self.load_images(stand_ins)

    def expose(self, namespace: str, name: str, port: int, target_port: int) -> None:
        """Make Service `name` lead to `target_port` of a program that listens inside the namespace."""
        expose_in_cluster(self.kubeconfig, namespace, name, port, target_port, self.layout.nodes[0].address)

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a program inside the cluster's network namespace that lives until `stop` or `down`.

        It outlives this process, gets only `environment` and a search path, and logs into
        `cluster/logs/NAME.log`.
        """
        self._processes().spawn(name, inside(self.namespace, command), environment=environment)

    def stop(self, name: str) -> None:
        """Stop a program that `spawn` started."""
        self._processes().stop(name)

    def pid(self, name: str) -> int | None:
        """Return the process number of one of the cluster's programs or of one that `spawn` started."""
        return self._processes().pid(name)

    def _processes(self) -> ProcessTable:
        membership = cgroups.membership(self.layout.system_cgroup)
        return ProcessTable(self.layout.folder / "processes.json", self.layout.logs, membership)

    def _refuse_other_shape(self, status: ClusterStatus) -> None:
        if (status.gpus, status.nodes) != (self.layout.gpus, self.layout.node_count):
            raise ClusterError(
                f"sandbox {self.layout.name!r} runs with {status.gpus} GPUs on {status.nodes} nodes, not "
                f"with {self.layout.gpus} on {self.layout.node_count}; take it down first, or leave it"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.layout.lock.parent.mkdir(parents=True, exist_ok=True)
        # The file stays: otherwise a process that waits for its lock would hold a file that no other process opens.
        with self.layout.lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
