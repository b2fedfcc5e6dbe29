"""Configuration files and command lines of the cluster's programs. Pure: text and lists from a layout.

What is set and why: docs/sandbox.md#how-the-cluster-is-made; the reason for each unusual setting stands beside it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cluster import layout as at
from nosana_sandbox.cluster.layout import Layout, Node
from nosana_sandbox.cluster.pki import Identity

PAUSE_IMAGE: Final = "sandbox.invalid/pause:1"
"""The pause image, which holds a pod's network namespace; built by `nosana_sandbox.images`, never pulled."""

GPU_PRODUCT: Final = "NVIDIA-GeForce-RTX-4090"
GPU_MEMORY_MIB: Final = 24564


def kubeconfig(server: str, authority: Path, identity: Identity, user: str) -> str:
    """A kubeconfig with embedded certificates, so that it can be copied."""
    name = "nosana-sandbox"
    return _json(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": server, "certificate-authority-data": _data(authority)}}
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _data(identity.certificate),
                        "client-key-data": _data(identity.key),
                    },
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        }
    )


def containerd(node: Node, cni: Path, mirrors: Path) -> str:
    """`config.toml` of one node's containerd; `mirrors` holds a folder for each registry."""
    base = node.folder / "containerd"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{base / "root"}"
state = "{base / "run"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{node.containerd_socket}"
[debug]
  level = "warn"
[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE the score that the kubelet asks for cannot be set, and runc would give up.
  restrict_oom_score_adj = true
  # Pods' namespaces lie below the state folder: all mounts of the cluster are found there.
  netns_mounts_under_state_dir = true
  stream_server_port = "0"
[{cri}.registry]
  config_path = "{mirrors}"
[{cri}.cni]
  bin_dir = "{cni}"
  conf_dir = "{node.folder / "cni"}"
[{cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
  # Else runc keeps its records in a folder that all containerds of the machine share.
  Root = "{base / "runc"}"
"""


def registry(folder: Path, port: int, logins: Path | None) -> str:
    """Configuration of a registry that keeps its images in `folder`; with `logins` it requires a login."""
    auth = {"auth": {"htpasswd": {"realm": "sandbox", "path": str(logins)}}} if logins else {}
    return _json(
        {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(folder)},
                "cache": {"blobdescriptor": "inmemory"},
                # Otherwise it scans for abandoned uploads on a schedule.
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": f"127.0.0.1:{port}", "secret": "of one process alone"},
            **auth,
        }
    )


def mirrored(registry_name: str) -> str:
    """Return the first part of the repositories that stand for those of `registry_name`."""
    return registry_name.replace(":", "-").lower()


def mirror(registry_name: str, *, private: bool) -> str:
    """`hosts.toml` that sends containerd to the sandbox's registry instead of `registry_name`.

    One folder per registry name, since the same path on two registries is two images. With `private` the
    registry behind a login is asked last: its refusal is what a pull without credentials is told.
    """
    first = _mirror_url(at.REGISTRY_PORT, registry_name)
    last = _mirror_url(at.PRIVATE_REGISTRY_PORT, registry_name) if private else first
    # Without a `host` containerd 1.6 does not read the file, and asks the real registry.
    return f"""\
server = "{last}"
override_path = true
[host."{first}"]
  capabilities = ["pull", "resolve"]
  override_path = true
"""


def _mirror_url(port: int, registry_name: str) -> str:
    return f"http://127.0.0.1:{port}/v2/{mirrored(registry_name)}"


def cni(layout: Layout, node: Node) -> str:
    """The pods' network of one node: a bridge, addresses from the node's range.

    No masquerading: nothing is routed out of the namespace, and pods see each other's own addresses.
    """
    return _json(
        {
            "cniVersion": "1.0.0",
            "name": f"{layout.slug}-{node.name}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": node.bridge,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(node.folder / "ipam"),
                        "ranges": [[{"subnet": node.subnet, "gateway": node.address}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
    )


def kubelet(node: Node, authority: Path, serving: Identity, resolv: Path) -> str:
    """KubeletConfiguration of one node."""
    return _json(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node.address,
            "healthzBindAddress": node.address,
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{node.cgroup}",
            # Some machines still have version 1 of control groups.
            "failCgroupV1": False,
            "failSwapOn": False,
            # Lowering the kubelet's own score needs a capability that a virtual machine may lack.
            "oomScoreAdj": 0,
            "clusterDNS": [at.DNS_SERVICE_IP],
            "clusterDomain": at.CLUSTER_DOMAIN,
            "resolvConf": str(resolv),
            "podLogsDir": str(node.folder / "pods"),
            "volumePluginDir": str(node.folder / "volume-plugins"),
            # Imported images cannot be pulled again: never collect images.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
            "serializeImagePulls": False,
            "registryPullQPS": 0,
            "eventRecordQPS": 0,
            "maxPods": 240,
            "makeIPTablesUtilChains": False,
            "logging": {"verbosity": 1},
        }
    )


def corefile(kubeconfig_file: Path) -> str:
    """CoreDNS for the cluster's names; other names do not exist, because the namespace has no way out."""
    zones = f"{at.CLUSTER_DOMAIN}:{at.DNS_PORT} in-addr.arpa:{at.DNS_PORT} ip6.arpa:{at.DNS_PORT}"
    return f"""\
{zones} {{
    errors
    ready 127.0.0.1:{at.DNS_READY_PORT}
    kubernetes {at.CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig_file}
        pods insecure
    }}
}}
.:{at.DNS_PORT} {{
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def etcd(layout: Layout) -> list[str]:
    """Command line after the program's name."""
    url, peers = f"http://127.0.0.1:{at.ETCD_PORT}", "http://127.0.0.1:2380"
    return [
        f"--data-dir={layout.folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        # The data does not outlive the cluster, so fsync is off.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def audit_policy() -> str:
    """The audit policy: metadata of requests by service accounts other than Kubernetes' own.

    Bodies are not. With it the rights of what runs in pods can be held against what they are used for.
    """
    return _json(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [
                {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
                {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            ],
        }
    )


def apiserver(
    layout: Layout, authority: Path, serving: Identity, to_kubelets: Identity, accounts: Identity
) -> list[str]:
    """Command line after the program's name."""
    return [
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        f"--advertise-address={layout.nodes[0].address}",
        "--bind-address=0.0.0.0",
        f"--secure-port={at.API_PORT}",
        f"--etcd-servers=http://127.0.0.1:{at.ETCD_PORT}",
        f"--service-cluster-ip-range={at.SERVICE_RANGE}",
        f"--client-ca-file={authority}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--kubelet-certificate-authority={authority}",
        f"--kubelet-client-certificate={to_kubelets.certificate}",
        f"--kubelet-client-key={to_kubelets.key}",
        # Node names are in no DNS: logs and exec go by address.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{at.CLUSTER_DOMAIN}",
        f"--service-account-key-file={accounts.certificate}",
        f"--service-account-signing-key-file={accounts.key}",
        # Controllers and the scheduler read from the API whose headers to trust; nobody has this name.
        f"--requestheader-client-ca-file={authority}",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        "--profiling=false",
        *_feature_gates(layout),
    ]


def controller_manager(kubeconfig_file: Path, authority: Identity, accounts: Identity) -> list[str]:
    """Command line after the program's name."""
    return [
        f"--kubeconfig={kubeconfig_file}",
        f"--authentication-kubeconfig={kubeconfig_file}",
        f"--authorization-kubeconfig={kubeconfig_file}",
        "--bind-address=127.0.0.1",
        f"--root-ca-file={authority.certificate}",
        f"--cluster-signing-cert-file={authority.certificate}",
        f"--cluster-signing-key-file={authority.key}",
        f"--service-account-private-key-file={accounts.key}",
        "--use-service-account-credentials",
        # Each controller fetches credentials at the start: under the default limits that alone takes 4 s.
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        "--leader-elect=false",
        "--profiling=false",
    ]


def scheduler(kubeconfig_file: Path) -> list[str]:
    """Command line after the program's name."""
    return [
        f"--kubeconfig={kubeconfig_file}",
        f"--authentication-kubeconfig={kubeconfig_file}",
        f"--authorization-kubeconfig={kubeconfig_file}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]


def proxy(layout: Layout, kubeconfig_file: Path, *, masquerade_all: bool) -> list[str]:
    """Command line after the program's name. One serves all nodes: they share the namespace.

    `masquerade_all` where bridged packets pass by the packet filter: a pod's answer to its neighbour on the
    same bridge would else go directly, with an address that the neighbour never called.
    """
    return [
        f"--kubeconfig={kubeconfig_file}",
        f"--hostname-override={layout.nodes[0].name}",
        "--proxy-mode=nftables",
        # The default gathers changes for a second, in which a new Service does not answer. Despite its name
        # the setting is nftables' too.
        "--iptables-min-sync-period=100ms",
        # The default is negative, which a virtual machine may refuse.
        "--oom-score-adj=0",
        f"--cluster-cidr={at.POD_RANGE}",
        # These limits are of the whole machine, so they stay as they are.
        "--conntrack-max-per-core=0",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        *(["--masquerade-all"] if masquerade_all else []),
    ]


def kubelet_command(layout: Layout, node: Node, config_file: Path, kubeconfig_file: Path) -> list[str]:
    """Command line after the program's name."""
    labels = ",".join(f"{key}={value}" for key, value in gpu_labels(node.gpus).items())
    return [
        f"--config={config_file}",
        f"--kubeconfig={kubeconfig_file}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.folder / 'kubelet'}",
        f"--cert-dir={node.folder / 'kubelet-certificates'}",
        *([f"--node-labels={labels}"] if labels else []),
        *_feature_gates(layout),
    ]


def _feature_gates(layout: Layout) -> list[str]:
    switched = ",".join(f"{gate}=true" for gate in layout.feature_gates)
    return [f"--feature-gates={switched}"] if switched else []


def gpu_labels(gpus: int) -> dict[str, str]:
    """The labels that GPU Feature Discovery sets on a node with that many GPUs; memory in MiB per GPU."""
    if not gpus:
        return {}
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.product": GPU_PRODUCT,
        "nvidia.com/gpu.memory": str(GPU_MEMORY_MIB),
        "nvidia.com/gpu.family": "ada-lovelace",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
    }


def gpu_patch(gpus: int) -> dict[str, Any]:
    """Merge patch of a node's status: the capacity that a device plugin would report."""
    amount = {at.GPU_RESOURCE: str(gpus)}
    return {"status": {"capacity": amount, "allocatable": amount}}


def bootstrap_objects(layout: Layout) -> list[Mapping[str, Any]]:
    """The API objects that DNS needs: its user's rights, and its Service."""
    role = "system:coredns"
    address = layout.nodes[0].address
    rights = [
        {
            "apiGroups": [""],
            "resources": ["endpoints", "services", "pods", "namespaces"],
            "verbs": ["list", "watch"],
        },
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role},
            "rules": rights,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": role}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
            },
            "spec": {
                "clusterIP": at.DNS_SERVICE_IP,
                "ports": [
                    {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": at.DNS_PORT},
                    {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": at.DNS_PORT},
                ],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": at.DNS_PORT},
                {"name": "dns-tcp", "protocol": "TCP", "port": at.DNS_PORT},
            ],
        },
    ]


def _data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _json(value: object) -> str:
    # Every one of these files is read as YAML, and JSON is YAML.
    return json.dumps(value, indent=2) + "\n"
