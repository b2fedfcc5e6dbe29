"""A real Kubernetes cluster on this machine: control plane, nodes, DNS, in a network namespace of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from nosana_sandbox.cluster import cgroups, config, teardown
from nosana_sandbox.cluster import layout as at
from nosana_sandbox.cluster.build import Report, ensure_programs
from nosana_sandbox.cluster.errors import ClusterError, KubectlError, StartError
from nosana_sandbox.cluster.expose import expose_in_cluster
from nosana_sandbox.cluster.kubectl import Kubectl
from nosana_sandbox.cluster.layout import Layout, Node
from nosana_sandbox.cluster.machine import Machine, prepare, refuse_unless_capable
from nosana_sandbox.cluster.pki import Authority, Identity
from nosana_sandbox.cluster.processes import SEARCH_PATH, ProcessTable, boot_id
from nosana_sandbox.images.archive import Image, write_archive
from nosana_sandbox.images.rootfs import PATH, base_layer
from nosana_sandbox.images.stand_ins import CATALOGUE, StandIn, stand_ins_for

API_TIMEOUT: Final = 60.0
"""Seconds for etcd and the API server; 3 are usual, a machine busy with a build takes many times as long."""
NODE_TIMEOUT: Final = 90.0

State = Literal["absent", "running", "broken"]


@dataclass(frozen=True)
class ClusterStatus:
    """What there is of a cluster.

    `broken`: some of it is left, but it does not work (a program ended, the machine was restarted, a start was
    cut off); `missing` names the programs that should run and do not. `up` clears that away and starts anew.
    """

    state: State
    gpus: int = 0
    nodes: int = 0
    kubeconfig: Path | None = None
    inside_kubeconfig: Path | None = None
    namespace: Path | None = None
    missing: tuple[str, ...] = field(default=())


class LocalCluster:
    """One sandbox's cluster. Methods block; a second process that calls `up` or `down` waits for the first."""

    def __init__(self, state: Path, name: str, gpus: int, nodes: int, report: Report) -> None:
        """`state` is the sandbox's folder: the cluster keeps to `cluster/` below it.

        `gpus` are shared out over `nodes`. Raises `ClusterError` when one of them cannot work.
        """
        self.layout: Final = Layout(state, name, gpus, nodes)
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
        """Tell what there is, without changing anything."""
        folder = self.layout.folder
        if not self.layout.record.exists():
            # The logs of a start that failed are all that may be left of it.
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

        Running already: returns at once. Left broken by a crash: cleared away first. Raises `ClusterError` and
        its kinds; what had been started is then gone again and the programs' logs are kept in `cluster/logs`.
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
                _Start(self.layout, machine, programs, self._processes(), self._report).run()
            except BaseException as error:
                keep = isinstance(error, ClusterError)
                teardown.take_down(self.layout, self._processes(), keep_logs=keep)
                raise
            return self.status()

    def down(self) -> None:
        """Take everything of the cluster off this machine, whatever state it is in. Nothing there is fine."""
        refuse_unless_capable()
        with self._locked():
            teardown.take_down(self.layout, self._processes())
        self.layout.lock.unlink(missing_ok=True)

    def load_images(self, stand_ins: Iterable[StandIn]) -> None:
        """Put stand-in images into every node, under their full names; one that is there is replaced."""
        machine = prepare(self._report)
        base = base_layer(machine.busybox)
        _load(self.layout, [stand_in.build(base) for stand_in in stand_ins], "images")

    def ensure_images(self, definitions: Iterable[Mapping[str, Any]]) -> None:
        """Put a stand-in for every image that these job definitions name into every node."""
        if stand_ins := stand_ins_for(definitions):
            self.load_images(stand_ins)

    def expose(self, namespace: str, name: str, port: int, target_port: int) -> None:
        """Make Service `name` lead to `target_port` of a program that listens inside the cluster's namespace."""
        expose_in_cluster(self.kubeconfig, namespace, name, port, target_port, self.layout.nodes[0].address)

    def spawn(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a program inside the cluster's network namespace that lives until `stop` or `down`.

        It outlives this process, gets only `environment` and a search path, and logs into `cluster/logs/NAME.log`.
        """
        self._processes().spawn(name, _inside(self.namespace, command), environment=environment)

    def stop(self, name: str) -> None:
        """End a program that `spawn` started."""
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
                f"sandbox {self.layout.name!r} runs with {status.gpus} GPUs on {status.nodes} nodes, not with "
                f"{self.layout.gpus} on {self.layout.node_count}; take it down first, or leave it as it is"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.layout.lock.parent.mkdir(parents=True, exist_ok=True)
        with self.layout.lock.open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


class _Start:
    """One start of a cluster on a machine that holds nothing of it."""

    def __init__(
        self, layout: Layout, machine: Machine, programs: Path, processes: ProcessTable, report: Report
    ) -> None:
        self._layout = layout
        self._machine = machine
        self._programs = programs
        self._processes = processes
        self._report = report
        self._names: list[str] = []

    def run(self) -> None:
        began = time.monotonic()
        layout = self._layout
        self._report(
            f"starting Kubernetes: {layout.node_count} node{'s' * (layout.node_count > 1)}, {layout.gpus} GPUs"
        )
        layout.logs.mkdir(parents=True)
        for group in (layout.system_cgroup, *(node.cgroup for node in layout.nodes)):
            cgroups.make(group)
        _make_network(layout)
        self._authority = Authority(layout.pki)
        with ThreadPoolExecutor() as pool:
            # Containers and control plane do not need each other until the kubelets run.
            images = pool.submit(self._prepare_nodes)
            self._start_control_plane()
            images.result()
        self._start_nodes()
        self._wait_for_nodes()
        self._write_record()
        self._report(f"Kubernetes is ready after {time.monotonic() - began:.1f} s")

    def _start_control_plane(self) -> None:
        layout, authority = self._layout, self._authority
        ca = authority.identity
        names = (
            "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc",
            f"DNS:kubernetes.default.svc.{at.CLUSTER_DOMAIN}", "DNS:localhost",
            "IP:127.0.0.1", f"IP:{at.API_SERVICE_IP}", *(f"IP:{node.address}" for node in layout.nodes),
        )  # fmt: skip
        serving = authority.issue("apiserver", "kube-apiserver", alternatives=names)
        to_kubelets = authority.issue("apiserver-kubelet", "kube-apiserver", "system:masters")
        accounts = authority.key_pair("service-accounts")
        self._spawn("etcd", config.etcd(layout))
        self._spawn(
            "kube-apiserver", config.apiserver(layout, ca.certificate, serving, to_kubelets, accounts)
        )
        self._admin_kubeconfigs()
        clients = {
            name: self._client(name, f"system:{name}")
            for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns")
        }
        self._wait("the API server", self._api_is_ready, API_TIMEOUT)
        self._spawn(
            "kube-controller-manager",
            config.controller_manager(clients["kube-controller-manager"], ca, accounts),
        )
        self._spawn("kube-scheduler", config.scheduler(clients["kube-scheduler"]))
        corefile = _write(layout.folder / "Corefile", config.corefile(clients["coredns"]))
        self._kubectl().apply(config.bootstrap_objects(layout))
        self._spawn("coredns", [f"-conf={corefile}"])
        proxy = config.proxy(layout, clients["kube-proxy"], masquerade_all=not self._machine.bridge_filter)
        self._spawn("kube-proxy", proxy)

    def _admin_kubeconfigs(self) -> None:
        """Write both ways in for the admin, and open the one from this machine."""
        layout = self._layout
        admin = self._authority.issue("admin", "sandbox-admin", "system:masters")
        authority = self._authority.identity.certificate
        inside = f"https://{layout.nodes[0].address}:{at.API_PORT}"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._server = f"https://127.0.0.1:{listener.getsockname()[1]}"
            module = ["-m", "nosana_sandbox.cluster.forward", str(layout.namespace), layout.nodes[0].address]
            # Runs outside: its one socket inside is made per client.
            self._processes.spawn(
                "api-forwarder",
                [sys.executable, "-P", *module, str(at.API_PORT)],
                stdin=listener.fileno(),
            )
            self._names.append("api-forwarder")
        for file, server in ((layout.kubeconfig, self._server), (layout.inside_kubeconfig, inside)):
            _write(file, config.kubeconfig(server, authority, admin, "admin"))

    def _prepare_nodes(self) -> None:
        """Start each node's containerd and load the images."""
        for node in self._layout.nodes:
            (node.folder / "cni").mkdir(parents=True)
            _write(node.folder / "cni" / "10-sandbox.conflist", config.cni(self._layout, node))
            toml = _write(node.folder / "containerd.toml", config.containerd(node, self._machine.cni))
            self._spawn(f"containerd-{node.index}", ["--config", str(toml)], program="containerd")
        base = base_layer(self._machine.busybox)
        pause = Image(config.PAUSE_IMAGE, (base,), ("sleep", str(2**31 - 1)), environment={"PATH": PATH})
        images = [pause, *(stand_in.build(base) for stand_in in CATALOGUE)]
        for node in self._layout.nodes:
            self._wait(f"containerd of {node.name}", node.containerd_socket.exists, NODE_TIMEOUT)
        _load(self._layout, images, "catalogue")

    def _start_nodes(self) -> None:
        resolv = _write(self._layout.folder / "resolv.conf", "")
        authority = self._authority.identity.certificate
        for node in self._layout.nodes:
            name = f"kubelet-{node.index}"
            identity = self._authority.issue(
                name, f"system:node:{node.name}", "system:nodes", (f"IP:{node.address}",)
            )
            kubeconfig = self._write_client(name, identity)
            file = _write(node.folder / "kubelet.json", config.kubelet(node, authority, identity, resolv))
            self._spawn(name, config.kubelet_command(node, file, kubeconfig), program="kubelet")

    def _wait_for_nodes(self) -> None:
        kubectl, names = self._kubectl(), [f"node/{node.name}" for node in self._layout.nodes]
        patience = f"--timeout={NODE_TIMEOUT:.0f}s"
        try:
            for node in self._layout.nodes:
                # One at a time: of several, kubectl gives up at the first that is not there yet.
                kubectl.run("wait", "--for=create", f"node/{node.name}", patience, timeout=NODE_TIMEOUT + 10)
                if node.gpus:
                    patch = json.dumps(config.gpu_patch(node.gpus))
                    kubectl.run(
                        "patch", "node", node.name, "--subresource=status", "--type=merge", "--patch", patch
                    )
            kubectl.run("wait", "--for=condition=Ready", *names, patience, timeout=NODE_TIMEOUT + 10)
            # A pod made before its namespace has this account is refused.
            kubectl.run("wait", "--for=create", "serviceaccount/default", patience, timeout=NODE_TIMEOUT + 10)
        except KubectlError as error:
            raise StartError(f"{error}; see {self._layout.logs}\n{self._what_ended()}") from error
        self._wait("CoreDNS", self._dns_is_ready, NODE_TIMEOUT)

    def _write_record(self) -> None:
        record = {
            "boot": boot_id(),
            "gpus": self._layout.gpus,
            "nodes": self._layout.node_count,
            "server": self._server,
            "programs": self._names,
        }
        fresh = _write(self._layout.record.with_suffix(".new"), json.dumps(record, indent=1) + "\n")
        fresh.rename(self._layout.record)

    def _spawn(self, name: str, arguments: Sequence[str], *, program: str | None = None) -> None:
        built = self._programs / (program or name)
        command = [str(built) if built.exists() else (program or name), *arguments]
        self._processes.spawn(name, _inside(self._layout.namespace, command))
        self._names.append(name)

    def _client(self, name: str, user: str) -> Path:
        return self._write_client(name, self._authority.issue(name, user))

    def _write_client(self, name: str, identity: Identity) -> Path:
        server = f"https://{self._layout.nodes[0].address}:{at.API_PORT}"
        text = config.kubeconfig(server, self._authority.identity.certificate, identity, name)
        return _write(self._layout.pki / f"{name}.kubeconfig", text)

    def _kubectl(self) -> Kubectl:
        return Kubectl(self._programs / "kubectl", self._layout.kubeconfig)

    def _api_is_ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self._authority.identity.certificate))
        return _answers(f"{self._server}/readyz", context)

    def _dns_is_ready(self) -> bool:
        probe = f"http://127.0.0.1:{at.DNS_READY_PORT}/ready"
        done = subprocess.run(
            _inside(self._layout.namespace, ["busybox", "wget", "-q", "-O", "/dev/null", probe]),
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def _wait(self, what: str, condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if ended := self._what_ended():
                raise StartError(f"{what} did not become ready; see {self._layout.logs}\n{ended}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{what} did not become ready within {timeout:.0f} s; is the machine very busy? See "
                    f"{self._layout.logs}"
                )
            time.sleep(0.05)

    def _what_ended(self) -> str:
        """Return the last words of programs that should run and do not."""
        ended = [name for name in list(self._names) if not self._processes.alive(name)]
        return "\n".join(f"{name} ended, saying:\n{self._processes.tail(name)}" for name in ended)


def _make_network(layout: Layout) -> None:
    """Make the network namespace with a bridge for each node."""
    name = layout.slug
    _run("ip", "netns", "add", name)
    inside = ("ip", "-n", name)
    _run(*inside, "link", "set", "lo", "up")
    for node in layout.nodes:
        _run(*inside, "link", "add", node.bridge, "type", "bridge")
        _run(*inside, "address", "add", f"{node.address}/24", "dev", node.bridge)
        _run(*inside, "link", "set", node.bridge, "up")
    # Nothing lies behind it, but without a default route a connection from here to a Service's address fails
    # before the packet filter could turn it to a pod.
    _run(*inside, "route", "add", "default", "dev", layout.nodes[0].bridge)
    _run(*_inside(layout.namespace, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))


def _load(layout: Layout, images: Sequence[Image], name: str) -> None:
    """Import the images into every node's containerd."""
    archive = layout.folder / f"{name}.oci.tar"
    write_archive(images, platform.machine(), archive)

    def into(node: Node) -> None:
        # --all-platforms: the archive has one, and choosing would mean guessing what containerd calls it.
        _run(
            "ctr", "--address", str(node.containerd_socket), "--namespace", "k8s.io",
            "images", "import", "--all-platforms", str(archive),
        )  # fmt: skip

    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(into, layout.nodes))
    finally:
        archive.unlink(missing_ok=True)


def _inside(namespace: Path, command: Sequence[str]) -> list[str]:
    # nsenter and not `ip netns exec`: that one mounts a fresh /sys, in which the control groups are missing.
    return ["nsenter", f"--net={namespace}", "--", *command]


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=SEARCH_PATH) or command[0]
    done = subprocess.run((program, *command[1:]), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _answers(url: str, context: ssl.SSLContext) -> bool:
    handlers = (urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    with contextlib.suppress(OSError, urllib.error.HTTPError), opener.open(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def _write(file: Path, text: str) -> Path:
    # Kubeconfigs hold keys.
    file.touch(mode=0o600)
    file.write_text(text)
    return file
