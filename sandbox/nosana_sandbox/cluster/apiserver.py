"""A real Kubernetes API without a cluster: etcd and kube-apiserver on loopback, for contract tests.

Objects are stored, validated, defaulted, watched and refused as everywhere, but nothing acts on them: no
scheduler, no kubelet, no controllers. Needs no root. It ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import yaml

from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.cluster.pki import Authority

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0


class BareApiServer:
    """etcd and kube-apiserver on free ports of 127.0.0.1; `state` holds all their files.

    `programs` is the folder of the two programs (`build.ensure_programs`). Rights are Kubernetes' own (RBAC);
    `kubeconfig` signs in as an administrator. Use it as a context manager.
    """

    def __init__(self, state: Path, programs: Path) -> None:
        self._state = state
        self._programs = programs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: list[IO[bytes]] = []
        self._api_arguments: tuple[str, ...] = ()
        self._port = 0
        self._authority: Path | None = None
        self.token = secrets.token_urlsafe(16)
        """The administrator's bearer token."""

    @property
    def url(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for an administrator, namespace `default`."""
        return self._state / "kubeconfig"

    def __enter__(self) -> BareApiServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start both; returns when the API is ready. Raises ClusterError with the end of the log."""
        self._state.mkdir(parents=True, exist_ok=True)
        etcd, peer, self._port = _free_ports(3)
        authority = Authority(self._state / "pki")
        serving = authority.issue("serving", "kube-apiserver", alternatives=("IP:127.0.0.1", "DNS:localhost"))
        accounts = authority.key_pair("accounts")
        self._authority = authority.identity.certificate
        tokens = self._state / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n')
        self._etcd_arguments = (
            f"--data-dir={self._state / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        self._spawn("etcd", *self._etcd_arguments)
        self._api_arguments = (
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            "--service-cluster-ip-range=10.97.0.0/24",
            "--endpoint-reconciler-type=none",
            # This plugin requires a service account for each pod, and nothing here creates them.
            "--disable-admission-plugins=ServiceAccount",
        )
        self._spawn("kube-apiserver", *self._api_arguments)
        self._write_kubeconfig()
        self._wait_until_ready()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """The API server is killed while the block runs, and started again with all its objects after it."""
        self._kill("kube-apiserver")
        try:
            yield
        finally:
            self._spawn("kube-apiserver", *self._api_arguments)
            self._wait_until_ready()

    def back_up(self) -> None:
        """Copy etcd's data, with both programs stopped meanwhile; `restore` brings this state back."""
        with self.outage():
            self._kill("etcd")
            shutil.rmtree(self._backup, ignore_errors=True)
            shutil.copytree(self._state / "etcd", self._backup)
            self._spawn("etcd", *self._etcd_arguments)

    def restore(self) -> None:
        """Bring back the state of the last `back_up`, resource versions included."""
        with self.outage():
            self._kill("etcd")
            shutil.rmtree(self._state / "etcd")
            shutil.copytree(self._backup, self._state / "etcd")
            self._spawn("etcd", *self._etcd_arguments)

    @property
    def _backup(self) -> Path:
        return self._state / "etcd-backup"

    def _kill(self, program: str) -> None:
        process = self._running.pop(program)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop both; not running is no error."""
        for process in reversed(self._running.values()):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        for log in self._logs:
            log.close()
        self._logs.clear()

    def _spawn(self, program: str, *arguments: str) -> None:
        log = (self._state / f"{program}.log").open("wb")
        self._logs.append(log)
        # The kernel ends it when this process ends, for whatever reason.
        command: Sequence[str] = ("setpriv", "--pdeathsig", "KILL", str(self._programs / program), *arguments)
        self._running[program] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._state
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            ended = [process for process in self._running.values() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                what = "ended" if ended else f"was not ready after {START_SECONDS:.0f} s"
                log = (self._state / "kube-apiserver.log").read_text(errors="replace").splitlines()[-8:]
                raise ClusterError(f"the Kubernetes API server {what}; its log ends with:\n" + "\n".join(log))
            time.sleep(0.05)

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._authority))
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=context)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {self.token}"})
                return connection.getresponse().status == 200
            except OSError:
                return False

    def _write_kubeconfig(self) -> None:
        self.kubeconfig.touch(mode=0o600)
        cluster = {"server": self.url, "certificate-authority": str(self._authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bare",
            "clusters": [{"name": "bare", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "admin"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))


def _free_ports(count: int) -> list[int]:
    """Ports that were free just now; reserved together, so that they differ."""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in listening]
