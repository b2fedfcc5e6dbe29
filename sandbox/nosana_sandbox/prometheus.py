"""Prometheus and its promtool: Debian's programs in the cache, and a server beside a sandbox's operator.

The package is unpacked instead of installed: installed, it would begin to serve on this machine.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from nosana_sandbox.cache import Report, cache_folder
from nosana_sandbox.cluster.errors import ClusterError, StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.local import LocalCluster

PORT: Final = 9090
"""Inside the cluster's network namespace."""

_PACKAGE: Final = "prometheus"
_PROGRAMS: Final = ("prometheus", "promtool")
_NAME: Final = "prometheus"
_READY_SECONDS: Final = 60.0


class PrometheusError(ClusterError):
    """Prometheus cannot be installed, or refuses a query."""


def ensure_prometheus(report: Report) -> Path:
    """The folder that holds `prometheus` and `promtool`; fetched when neither machine nor cache has them.

    Safe under concurrent runs. Raises `PrometheusError`.
    """
    found = [shutil.which(program) for program in _PROGRAMS]
    if all(found) and found[0] is not None:
        return Path(found[0]).parent
    folder = cache_folder() / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / program).is_file() for program in _PROGRAMS):
            report("fetching Prometheus: Debian's package, about 20 MB, once")
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as work:
        # As root, apt would hand the download to a user who may not write here.
        download = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", _PACKAGE)
        if _run(download, work) is not None:
            # A fresh machine has no list of packages yet.
            _run(("apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", "update"), work)
            if (problem := _run(download, work)) is not None:
                raise PrometheusError(
                    f"Debian's package {_PACKAGE} cannot be fetched ({problem}); install `prometheus` and "
                    "`promtool` so that they are found on the path"
                )
        (package,) = Path(work).glob("*.deb")
        if (problem := _run(("dpkg-deb", "-x", str(package), "root"), work)) is not None:
            raise PrometheusError(f"Debian's package {_PACKAGE} cannot be unpacked: {problem}")
        for program in _PROGRAMS:
            (Path(work) / "root" / "usr" / "bin" / program).rename(folder / program)


def _run(command: Sequence[str], folder: str) -> str | None:
    """The error, or None."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return None if done.returncode == 0 else done.stderr.strip()[-400:] or f"exit {done.returncode}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer, with its value at the moment of the query."""

    labels: Mapping[str, str]
    value: float


class PrometheusServer:
    """A Prometheus inside a cluster's network namespace; it lives until `stop` or until the cluster ends."""

    def __init__(self, cluster: LocalCluster, programs: Path) -> None:
        self._cluster = cluster
        self._program = programs / "prometheus"
        self._folder = cluster.layout.folder / _NAME

    def start(self, target: str, *, rules: Path | None = None, interval: str = "1s") -> None:
        """Scrape `target` (host:port inside) every `interval`; returns once it is ready.

        Raises `StartError` with its last words.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "prometheus.yml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": interval, "evaluation_interval": interval},
                    "scrape_configs": [
                        {"job_name": "nosana-operator", "static_configs": [{"targets": [target]}]}
                    ],
                    "rule_files": [str(rules)] if rules is not None else [],
                }
            )
        )
        self._cluster.spawn(
            _NAME,
            [
                str(self._program),
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{PORT}",
            ],
        )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready():
            if self._cluster.pid(_NAME) is None or time.monotonic() > deadline:
                log = self._cluster.layout.logs / f"{_NAME}.log"
                last = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
                raise StartError(f"Prometheus does not start: {' | '.join(last) or 'it said nothing'}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it and remove its data."""
        self._cluster.stop(_NAME)
        shutil.rmtree(self._folder, ignore_errors=True)

    def query(self, expression: str) -> list[Sample]:
        """The expression's value now. Raises `PrometheusError` with Prometheus' words."""
        status, body = self._get("/api/v1/query?" + urlencode({"query": expression}))
        answer: Any = json.loads(body)
        if status != http.client.OK or answer["status"] != "success":
            raise PrometheusError(f"{expression}: {answer.get('error', status)}")
        data = answer["data"]
        series = (
            [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
        )
        return [Sample(one["metric"], float(one["value"][1])) for one in series]

    def _ready(self) -> bool:
        try:
            return self._get("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        connection.sock = socket_in_namespace(self._cluster.namespace)
        try:
            connection.sock.settimeout(10)
            connection.sock.connect(("127.0.0.1", PORT))
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
