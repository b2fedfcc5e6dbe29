"""Names, addresses and paths of one sandbox cluster, all derived from its state folder, name and shape.

Nothing here touches the machine: taking a cluster down needs only what can be derived again after a crash.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from nosana_sandbox.cluster.errors import ClusterError

API_PORT: Final = 6443
"""The API server's port inside the namespace, on every address of it."""
ETCD_PORT: Final = 2379
DNS_PORT: Final = 1053
"""CoreDNS inside the namespace; pods reach it as 10.96.0.10:53."""
DNS_READY_PORT: Final = 8181
REGISTRY_PORT: Final = 5000
"""The public registry, on the namespace's loopback."""
PRIVATE_REGISTRY_PORT: Final = 5500
"""The registry that requires a login."""

POD_RANGE: Final = "10.88.0.0/16"
SERVICE_RANGE: Final = "10.96.0.0/16"
API_SERVICE_IP: Final = "10.96.0.1"
DNS_SERVICE_IP: Final = "10.96.0.10"
CLUSTER_DOMAIN: Final = "cluster.local"

SANDBOX_NAMESPACE: Final = "nosana-sandbox"
"""Kubernetes namespace of the sandbox's own Services: chain, IPFS, resources."""
SYSTEM_NAMESPACE: Final = "nosana-system"
"""Kubernetes namespace of the operator, the NosanaMarket and the wallet Secrets."""
JOB_NAMESPACE: Final = "nosana-jobs"
"""Kubernetes namespace of the market's NosanaJobs."""

GPU_RESOURCE: Final = "nvidia.com/gpu"
MOST_NODES: Final = 16
"""Each node is a containerd and a kubelet of about 130 MiB; more than this is a mistake on one machine."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?")
_LONGEST_STATE: Final = 50
"""Characters: the longest Unix socket below the state folder has to stay under the kernel's 108."""


@dataclass(frozen=True)
class Node:
    """One node: `index` counts from 1, `gpus` is its share of the cluster's."""

    index: int
    gpus: int
    folder: Path
    cgroup: str

    @property
    def name(self) -> str:
        """Name of the Node object."""
        return f"node-{self.index}"

    @property
    def address(self) -> str:
        """The node's InternalIP: its bridge inside the namespace."""
        return f"10.88.{self.index}.1"

    @property
    def subnet(self) -> str:
        """The address range of the node's pods."""
        return f"10.88.{self.index}.0/24"

    @property
    def bridge(self) -> str:
        """The bridge's name inside the namespace."""
        return f"cni{self.index}"

    @property
    def containerd_socket(self) -> Path:
        """The socket of this node's containerd."""
        return self.folder / "containerd.sock"


@dataclass(frozen=True)
class Layout:
    """One cluster. Raises `ClusterError` when the name, the folder or the shape cannot work."""

    state: Path
    name: str
    gpus: int
    node_count: int
    feature_gates: tuple[str, ...] = ()
    """Feature gates enabled in the API server and the kubelets beyond Kubernetes' defaults."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"the sandbox's name {self.name!r} cannot be used; take at most 31 lower-case letters, "
                "digits and dashes, with a letter or digit at both ends"
            )
        if len(str(self.state)) > _LONGEST_STATE or not self.state.is_absolute():
            raise ClusterError(
                f"the state folder {self.state} cannot be used; take an absolute path of at most "
                f"{_LONGEST_STATE} characters, because Unix sockets live below it"
            )
        if not 1 <= self.node_count <= MOST_NODES:
            raise ClusterError(f"a sandbox cluster has 1 to {MOST_NODES} nodes, not {self.node_count}")
        if self.gpus < 0:
            raise ClusterError(f"a sandbox cluster has 0 or more GPUs, not {self.gpus}")

    @cached_property
    def slug(self) -> str:
        """Names the network namespace, the cgroups and the lock; unique for name and folder together."""
        return f"nosana-{self.name}-{hashlib.sha256(str(self.state).encode()).hexdigest()[:6]}"

    @property
    def folder(self) -> Path:
        """All files of the cluster; `down` deletes it."""
        return self.state / "cluster"

    @property
    def logs(self) -> Path:
        """One file per program."""
        return self.folder / "logs"

    @property
    def audit_policy(self) -> Path:
        """The API server's audit policy."""
        return self.folder / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        """The audit log: one JSON object per line."""
        return self.logs / "audit.log"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def namespace(self) -> Path:
        """The network namespace's file, as `ip netns` keeps it."""
        return Path("/run/netns") / self.slug

    @property
    def mirrors(self) -> Path:
        """containerd's mirrors: they redirect each registry to the sandbox's own."""
        return self.folder / "mirrors"

    @property
    def logins(self) -> Path:
        """The logins of the private registry, in the format of `htpasswd`."""
        return self.folder / "registry-logins"

    @property
    def lock(self) -> Path:
        """The lock held while the cluster starts or stops."""
        return Path("/run/lock") / f"{self.slug}.lock"

    @property
    def record(self) -> Path:
        """Written last by `up`: the cluster was complete once."""
        return self.folder / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig on this machine."""
        return self.folder / "kubeconfig"

    @property
    def inside_kubeconfig(self) -> Path:
        """The admin's kubeconfig for programs inside the namespace."""
        return self.folder / "kubeconfig-inside"

    @property
    def system_cgroup(self) -> str:
        """The control group of the control plane, the kubelets, containerd and its shims."""
        return f"{self.slug}/system"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, with the GPUs spread evenly."""
        return tuple(
            Node(index, gpus, self.folder / f"node{index}", f"{self.slug}/node{index}")
            for index, gpus in enumerate(spread(self.gpus, self.node_count), start=1)
        )


def spread(gpus: int, nodes: int) -> tuple[int, ...]:
    """Distribute `gpus` over `nodes`; the first nodes get the remainder.

    >>> spread(5, 2)
    (3, 2)
    """
    each, left = divmod(gpus, nodes)
    return tuple(each + (1 if index < left else 0) for index in range(nodes))
