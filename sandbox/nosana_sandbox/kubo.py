"""Kubo, the reference IPFS node, as a child process with a repository of its own and no peers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cluster.errors import StartError

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_NO_NETWORK: Final[Mapping[str, Any]] = {
    "Addresses": {"API": "/ip4/127.0.0.1/tcp/0", "Gateway": "/ip4/127.0.0.1/tcp/0", "Swarm": []},
    "AutoConf": {"Enabled": False},
    "AutoTLS": {"Enabled": False},
    "Bootstrap": [],
    "Discovery": {"MDNS": {"Enabled": False}},
    "DNS": {"Resolvers": {}},
    "Ipns": {"DelegatedPublishers": []},
    "Routing": {"Type": "none", "DelegatedRouters": []},
    "Version": {"SwarmCheckEnabled": False},
}


@dataclass(frozen=True, slots=True)
class KuboNode:
    """The base URLs of a running node, both on loopback."""

    api: str
    gateway: str


@contextlib.contextmanager
def kubo_node(
    program: Path, folder: Path, config: Mapping[str, Any] | None = None, *, offline: bool = True
) -> Iterator[KuboNode]:
    """Run a node and yield its addresses.

    Args:
        program: `ensure_kubo`'s.
        folder: empty; receives repository and log.
        config: sections of Kubo's configuration, merged key by key over the defaults.
        offline: content that the node does not have is missing at once (404). Otherwise the node searches for it,
            in vain because it has no peers, until its time-out.

    Raises:
        StartError: it did not become ready.
    """
    repository, log = folder / "repository", folder / "log"
    environment = {**os.environ, "IPFS_PATH": str(repository), "IPFS_TELEMETRY": "off", "HOME": str(folder)}
    command = [str(program), "init", "--empty-repo", "--profile=test"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"`ipfs init` failed: {done.stderr.strip()[-500:]}")
    file = repository / "config"
    document = json.loads(file.read_text())
    for section, values in (*_NO_NETWORK.items(), *(config or {}).items()):
        document[section] = {**document.get(section, {}), **values} if isinstance(values, Mapping) else values
    file.write_text(json.dumps(document))
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [str(program), "daemon", *(["--offline"] if offline else [])],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_ready(daemon, log)
        yield KuboNode(_http_url(repository / "api"), (repository / "gateway").read_text().strip())
    finally:
        daemon.terminate()
        try:
            daemon.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _await_ready(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b"Daemon is ready" not in log.read_bytes():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise StartError(f"Kubo did not start: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)


def _http_url(file: Path) -> str:
    """The URL of a multiaddress `/ip4/ADDRESS/tcp/PORT`."""
    _, _, host, _, port = file.read_text().strip().split("/")
    return f"http://{host}:{port}"
