"""Policies that isolate ops from the rest of the cluster and protect them from eviction. Pure.

The NetworkPolicies and the PodDisruptionBudget exist once per namespace, for the pods of all jobs, before the
first pod. A job whose ops run at the same time gets one further NetworkPolicy, by which they reach each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from nosana_operator.api import LABEL_JOB_UID
from nosana_operator.settings_group import Cidr, SettingsGroup
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, make_job_metadata

LABEL_EXPOSED: Final = "nosana.io/exposed"
"""The label of pods whose op exposes ports."""
DEFAULT_BLOCKED: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)
"""Private, link-local (including cloud metadata), carrier-grade, loopback, multicast and reserved ranges."""
_NAME: Final = "nosana-jobs"
_PODS: Final = {"app.kubernetes.io/name": "nosana-job", "app.kubernetes.io/managed-by": "nosana-operator"}
CLUSTER_DNS_SERVICES: Final = (
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("kube-system", "rke2-coredns-rke2-coredns"),
    ("openshift-dns", "dns-default"),
)
"""(namespace, name) of the Service of the cluster's DNS: kubeadm and the clouds, kubespray, RKE2, OpenShift."""
_ALL_OF_THEM: Final = 2**31 - 1


class Dns(SettingsGroup):
    """Where ops may resolve names. The operator adds what it can read itself: the ClusterIPs of the cluster's DNS
    Service, and the nodes' own addresses, where resolvers with hostNetwork listen."""

    namespaces: tuple[str, ...] = ("kube-system", "openshift-dns")
    """Namespaces of the cluster's DNS pods. The default covers Kubernetes' own and OpenShift's."""
    cidrs: tuple[Cidr, ...] = (
        "169.254.20.10/32",
        "169.254.25.10/32",
        "169.254.10.10/31",
        "169.254.169.254/32",
        "fd00::10/128",
    )
    """Addresses of resolvers outside pods. The default covers NodeLocal DNSCache (also as kubespray sets it up),
    AKS' LocalDNS, and GKE's Cloud DNS, whose address serves cloud metadata too, but on a port that stays closed."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field(default=(53, 5353), min_length=1)
    """Ports of the resolvers, for UDP and TCP. OpenShift's DNS pods listen on 5353."""


class Isolation(SettingsGroup):
    """What ops may reach, and who may reach them, as far as the cluster's network enforces NetworkPolicies."""

    blocked: tuple[Cidr, ...] = DEFAULT_BLOCKED
    """Ranges that ops do not reach, besides the addresses of nodes and their pods. Add the ranges of Services where
    those are public addresses. The default is every range that is not public."""
    gateway_cidrs: tuple[Cidr, ...] = ()
    """The ranges from which exposed ports are reached: the Ingress controller, and the operator for health checks."""
    gateway_namespaces: tuple[str, ...] = ()
    """The same by namespace. With neither, exposed ports are open to everything that reaches pods, because nobody
    said where the gateway is."""
    dns: Dns = Dns()
    trusted_runtime_class: str | None = None
    """The RuntimeClass of ops with `trusted_execution_env` (confidential virtual machines, for example). Unset:
    definitions that ask for it are refused."""


def node_ranges(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses of the nodes and their pod ranges, as far as the Node objects contain them."""
    nodes = tuple(nodes)
    pod_ranges = (cidr for node in nodes for cidr in (node.get("spec") or {}).get("podCIDRs") or ())
    return sorted({*pod_ranges, *_node_addresses(nodes)})


def _node_addresses(nodes: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for node in nodes:
        for entry in (node.get("status") or {}).get("addresses") or ():
            if entry.get("type") in ("InternalIP", "ExternalIP"):
                yield _single(entry["address"])


def _single(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    return f"{parsed}/{parsed.max_prefixlen}"


def resolver_ranges(
    dns: Dns, nodes: Iterable[Mapping[str, Any]], services: Iterable[Mapping[str, Any]]
) -> list[str]:
    """The ranges in which ops reach resolvers on the ports of `dns`; `services` are the cluster's DNS Services."""
    cluster_ips = (
        _single(address)
        for service in services
        for address in service["spec"].get("clusterIPs") or ()
        if address != "None"
    )
    return sorted({*dns.cidrs, *cluster_ips, *_node_addresses(nodes)})


def build_namespace_policies(
    namespace: str, isolation: Isolation, nodes: Sequence[Body], dns_services: Sequence[Body]
) -> list[Body]:
    """The policies for all jobs' pods in a namespace, in a cluster with these Nodes and DNS Services."""
    dns = isolation.dns
    resolvers = [
        *_namespace_peers(dns.namespaces),
        *_range_peers(resolver_ranges(dns, nodes, dns_services)),
    ]
    ports = [{"protocol": protocol, "port": port} for port in dns.ports for protocol in ("UDP", "TCP")]
    egress = [
        {"to": resolvers, "ports": ports},
        {"to": list(_internet_peers((*isolation.blocked, *node_ranges(nodes))))},
    ]
    sources = [*_range_peers(isolation.gateway_cidrs), *_namespace_peers(isolation.gateway_namespaces)]
    return [
        _make_policy(
            _metadata(namespace, _NAME),
            _PODS,
            {"policyTypes": ["Ingress", "Egress"], "egress": egress},
        ),
        _make_policy(
            _metadata(namespace, f"{_NAME}-exposed"),
            {**_PODS, LABEL_EXPOSED: "true"},
            {"policyTypes": ["Ingress"], "ingress": [{"from": sources} if sources else {}]},
        ),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(namespace, _NAME),
            # An op cannot be moved. Pods without a controller count only against an absolute number.
            "spec": {"minAvailable": _ALL_OF_THEM, "selector": {"matchLabels": dict(_PODS)}},
        },
    ]


def build_job_policies(ctx: JobContext) -> list[Body]:
    """The policy by which the ops of a job reach each other; none when its ops run one after the other."""
    if all(ctx.runs_beside(index) < 2 for index in range(len(ctx.definition.ops))):
        return []
    own = {LABEL_JOB_UID: ctx.uid}
    peers = [{"podSelector": {"matchLabels": own}}]
    rules = {"policyTypes": ["Ingress", "Egress"], "ingress": [{"from": peers}], "egress": [{"to": peers}]}
    return [_make_policy(make_job_metadata(ctx, f"{ctx.name}-ops"), own, rules)]


def _namespace_peers(names: Iterable[str]) -> Iterator[Body]:
    for name in names:
        yield {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _range_peers(cidrs: Iterable[str]) -> Iterator[Body]:
    for cidr in cidrs:
        yield {"ipBlock": {"cidr": cidr}}


def _internet_peers(blocked: Iterable[str]) -> Iterator[Body]:
    ranges = [ipaddress.ip_network(cidr) for cidr in blocked]
    old = ipaddress.collapse_addresses(r for r in ranges if isinstance(r, ipaddress.IPv4Network))
    new = ipaddress.collapse_addresses(r for r in ranges if isinstance(r, ipaddress.IPv6Network))
    for everything, excepted in (("0.0.0.0/0", [str(r) for r in old]), ("::/0", [str(r) for r in new])):
        yield {"ipBlock": {"cidr": everything, **({"except": excepted} if excepted else {})}}


def _make_policy(metadata: Body, pods: Mapping[str, str], rules: Body) -> Body:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {"matchLabels": dict(pods)}, **rules},
    }


def _metadata(namespace: str, name: str) -> Body:
    return {
        "name": name,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "nosana-operator"},
    }
