"""Starts and stops the world's process."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster.processes import ProcessTable
from nosana_sandbox.world.errors import NotRunning, WorldError
from nosana_sandbox.world.state import World, WorldFolder

_NAME: Final = "world"
_START_TIMEOUT: Final = 60.0
# The world belongs to no control group of a cluster: it may run without one.
_NO_CGROUP: Final = Path("/dev/null")
_PASSED_ON: Final = ("HOME", "NOSANA_SANDBOX_CACHE", "KUBECONFIG")


class WorldProcess:
    """The world of the sandbox in `state`, as a process that outlives the one that started it."""

    def __init__(self, state: Path) -> None:
        self._folder = WorldFolder(state)
        self._table = ProcessTable(self._folder.processes, self._folder.logs, _NO_CGROUP)

    def running(self) -> World | None:
        """The world if its process lives and answers, else None."""
        if not self._table.alive(_NAME):
            return None
        try:
            return self._folder.read()
        except NotRunning:
            return None

    def start(self, *, namespace: Path | None = None, kubeconfig: Path | None = None) -> World:
        """Start it and wait until it answers; one that runs beside the same cluster stays as it is.

        A world that runs beside another network namespace (the cluster was started anew) is ended first: its
        sockets are in a namespace that no one can reach. Raises WorldError with the end of its log.
        """
        world = self.running()
        if world is not None and world.namespace_inode == (namespace.stat().st_ino if namespace else None):
            return world
        self.stop()
        command = [sys.executable, "-m", "nosana_sandbox.world", "--state", str(self._folder.state)]
        if namespace is not None:
            command += ["--namespace", str(namespace)]
        if kubeconfig is not None:
            command += ["--kubeconfig", str(kubeconfig)]
        self._folder.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._table.spawn(_NAME, command, environment=environment)
        return self._wait()

    def stop(self) -> None:
        """Stop it; none is no error."""
        self._table.stop(_NAME)
        self._folder.record.unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self._folder.folder, ignore_errors=True)

    def _wait(self) -> World:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            world = self.running()
            if world is not None:
                return world
            if not self._table.alive(_NAME):
                said = self._table.tail(_NAME)
                raise WorldError(f"the sandbox's chain and IPFS ended while starting; their log says: {said}")
            time.sleep(0.05)
        self.stop()
        raise WorldError(
            f"the sandbox's chain and IPFS did not answer within {_START_TIMEOUT:g} s; "
            f"see {self._folder.logs / 'world.log'}"
        )
