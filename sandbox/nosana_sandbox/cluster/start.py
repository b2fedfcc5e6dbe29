"""Starting a cluster: what runs, in which order, and when it is ready."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from nosana_sandbox.cache import Report
from nosana_sandbox.cluster import cgroups, config, image_registry, tunables
from nosana_sandbox.cluster import layout as at
from nosana_sandbox.cluster.build import ensure_stand_in
from nosana_sandbox.cluster.errors import KubectlError, StartError
from nosana_sandbox.cluster.forward import socket_in_namespace
from nosana_sandbox.cluster.inside import inside, make_network
from nosana_sandbox.cluster.kubectl import Kubectl
from nosana_sandbox.cluster.layout import Layout
from nosana_sandbox.cluster.loading import load, provide
from nosana_sandbox.cluster.machine import Machine
from nosana_sandbox.cluster.pki import Authority, Identity
from nosana_sandbox.cluster.processes import ProcessTable, boot_id
from nosana_sandbox.images.archive import Image
from nosana_sandbox.images.rootfs import PATH, base_layer
from nosana_sandbox.images.stand_ins import CATALOGUE

API_TIMEOUT: Final = 60.0
"""Seconds for etcd and the API server. 3 are usual; a busy machine takes many times as long."""
NODE_TIMEOUT: Final = 90.0


class Start:
    """Starts a cluster on a machine without any remains of it."""

    def __init__(
        self, layout: Layout, machine: Machine, programs: Path, processes: ProcessTable, report: Report
    ) -> None:
        """`programs`: the folder of the built programs."""
        self._layout = layout
        self._machine = machine
        self._programs = programs
        self._processes = processes
        self._report = report
        self._names: list[str] = []

    def run(self) -> None:
        """Return once the nodes are ready, DNS answers and pods can be made. Raises `StartError`."""
        began = time.monotonic()
        layout = self._layout
        self._report(f"starting Kubernetes; nodes: {layout.node_count}, GPUs: {layout.gpus}")
        layout.logs.mkdir(parents=True)
        tunables.remember(layout.slug)
        for group in (layout.system_cgroup, *(node.cgroup for node in layout.nodes)):
            cgroups.make(group)
        make_network(layout)
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
        _write(layout.audit_policy, config.audit_policy())
        self._spawn("etcd", config.etcd(layout))
        self._spawn(
            "kube-apiserver", config.apiserver(layout, ca.certificate, serving, to_kubelets, accounts)
        )
        self._admin_kubeconfigs()
        clients = {
            name: self._client(name, f"system:{name}")
            for name in ("kube-controller-manager", "kube-scheduler", "coredns")
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

    def _admin_kubeconfigs(self) -> None:
        """Write the admin's kubeconfigs, and forward a port of this machine to the API server."""
        layout = self._layout
        admin = self._authority.issue("admin", "sandbox-admin", "system:masters")
        authority = self._authority.identity.certificate
        inside = f"https://{layout.nodes[0].address}:{at.API_PORT}"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._server = f"https://127.0.0.1:{listener.getsockname()[1]}"
            module = ["-m", "nosana_sandbox.cluster.forward", str(layout.namespace), layout.nodes[0].address]
            # It runs outside the namespace, and creates a socket inside for each client.
            self._processes.spawn(
                "api-forwarder",
                [sys.executable, "-P", *module, str(at.API_PORT)],
                stdin=listener.fileno(),
            )
            self._names.append("api-forwarder")
        for file, server in ((layout.kubeconfig, self._server), (layout.inside_kubeconfig, inside)):
            _write(file, config.kubeconfig(server, authority, admin, "admin"))

    def _prepare_nodes(self) -> None:
        """Start the registries and each node's containerd, and make the images available."""
        for name, file in image_registry.configuration(self._layout).items():
            self._spawn(name, ["serve", str(file)], program="docker-registry")
        for node in self._layout.nodes:
            (node.folder / "cni").mkdir(parents=True)
            _write(node.folder / "cni" / "10-sandbox.conflist", config.cni(self._layout, node))
            toml = _write(
                node.folder / "containerd.toml",
                config.containerd(node, self._machine.cni, self._layout.mirrors),
            )
            self._spawn(f"containerd-{node.index}", ["--config", str(toml)], program="containerd")
        base = base_layer(self._machine.busybox, ensure_stand_in(self._report))
        pause = Image(config.PAUSE_IMAGE, (base,), ("sleep", str(2**31 - 1)), environment={"PATH": PATH})
        for node in self._layout.nodes:
            self._wait(f"containerd of {node.name}", node.containerd_socket.exists, NODE_TIMEOUT)
        load(self._layout, [pause])
        self._wait("the registry", lambda: image_registry.answers(self._layout), NODE_TIMEOUT)
        provide(self._layout, (stand_in.build(base) for stand_in in CATALOGUE))

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
            self._spawn(name, config.kubelet_command(self._layout, node, file, kubeconfig), program="kubelet")

    def _wait_for_nodes(self) -> None:
        kubectl, names = self._kubectl(), [f"node/{node.name}" for node in self._layout.nodes]
        time_limit = f"--timeout={NODE_TIMEOUT:.0f}s"
        try:
            for node in self._layout.nodes:
                # One at a time: given several, kubectl gives up at the first that does not exist yet.
                kubectl.run(
                    "wait", "--for=create", f"node/{node.name}", time_limit, timeout=NODE_TIMEOUT + 10
                )
                if node.gpus:
                    patch = json.dumps(config.gpu_patch(node.gpus))
                    kubectl.run(
                        "patch", "node", node.name, "--subresource=status", "--type=merge", "--patch", patch
                    )
            self._start_proxy()
            kubectl.run("wait", "--for=condition=Ready", *names, time_limit, timeout=NODE_TIMEOUT + 10)
            # Pods are refused until their namespace has this account.
            kubectl.run(
                "wait", "--for=create", "serviceaccount/default", time_limit, timeout=NODE_TIMEOUT + 10
            )
        except KubectlError as error:
            raise StartError(f"{error}; see {self._layout.logs}\n{self._what_ended()}") from error
        self._wait("CoreDNS", self._dns_is_ready, NODE_TIMEOUT)
        self._wait("kube-proxy", self._services_answer, NODE_TIMEOUT)

    def _start_proxy(self) -> None:
        """Start it when the node that it serves exists: else it looks again only every second."""
        masquerade_all = not self._machine.bridge_filter
        kubeconfig = self._client("kube-proxy", "system:kube-proxy")
        self._spawn("kube-proxy", config.proxy(self._layout, kubeconfig, masquerade_all=masquerade_all))

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
        self._processes.spawn(name, inside(self._layout.namespace, command))
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
            inside(self._layout.namespace, ["busybox", "wget", "-q", "-O", "/dev/null", probe]),
            capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0

    def _services_answer(self) -> bool:
        with socket_in_namespace(self._layout.namespace) as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((at.API_SERVICE_IP, 443)) == 0

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
        """The last log lines of programs that should run and do not."""
        ended = [name for name in list(self._names) if not self._processes.alive(name)]
        return "\n".join(f"{name} ended, saying:\n{self._processes.tail(name)}" for name in ended)


def _answers(url: str, context: ssl.SSLContext) -> bool:
    handlers = (urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    with contextlib.suppress(OSError, urllib.error.HTTPError), opener.open(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def _write(file: Path, text: str) -> Path:
    # Kubeconfigs contain keys.
    file.touch(mode=0o600)
    file.write_text(text)
    return file
