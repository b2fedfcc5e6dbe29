"""Policies that isolate ops from the rest of the cluster and protect them from eviction. Pure.

The NetworkPolicies and the PodDisruptionBudget exist once per namespace, for the pods of all jobs, before the
first pod. A job whose ops run at the same time gets one further NetworkPolicy, by which they reach each other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

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
_NODE_LOCAL_DNS: Final = ("169.254.20.10/32", "fd00::10/128")
_DNS_PORTS: Final = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
_ALL_OF_THEM: Final = 2**31 - 1


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
    trusted_runtime_class: str | None = None
    """The RuntimeClass of ops with `trusted_execution_env` (confidential virtual machines, for example). Unset:
    definitions that ask for it are refused."""


def node_ranges(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses of the nodes and their pod ranges, as far as the Node objects contain them."""
    found = set()
    for node in nodes:
        found |= set((node.get("spec") or {}).get("podCIDRs") or ())
        for entry in (node.get("status") or {}).get("addresses") or ():
            if entry.get("type") in ("InternalIP", "ExternalIP"):
                address = ipaddress.ip_address(entry["address"])
                found.add(f"{address}/{address.max_prefixlen}")
    return sorted(found)


def build_namespace_policies(namespace: str, isolation: Isolation, nodes: Sequence[str]) -> list[Body]:
    """The policies for all jobs' pods in a namespace; `nodes` are the ranges of `node_ranges`."""
    egress = [
        {
            "to": [
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
                *({"ipBlock": {"cidr": cidr}} for cidr in _NODE_LOCAL_DNS),
            ],
            "ports": list(_DNS_PORTS),
        },
        {"to": list(_internet_peers((*isolation.blocked, *nodes)))},
    ]
    sources: list[Body] = [{"ipBlock": {"cidr": cidr}} for cidr in isolation.gateway_cidrs]
    sources += [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in isolation.gateway_namespaces
    ]
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
