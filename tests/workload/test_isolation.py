from __future__ import annotations

import ipaddress
from typing import Any

import kubernetes_validate
import pytest

from nosana_operator.workload import Isolation, build_namespace_policies, build_op_objects
from nosana_operator.workload.isolation import LABEL_EXPOSED
from support.workload import context, op

NODE = {
    "spec": {"podCIDRs": ["10.244.1.0/24", "2001:db8:1::/64"]},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "203.0.113.7"},
            {"type": "Hostname", "address": "node-1"},
            {"type": "ExternalIP", "address": "2001:db8::7"},
        ]
    },
}


SERVICE = {
    "metadata": {"namespace": "kube-system", "name": "kube-dns"},
    "spec": {"clusterIPs": ["10.96.0.10", "fd12:96::a"]},
}


def policies(**settings: Any) -> dict[tuple[str, str], dict[str, Any]]:
    bodies = build_namespace_policies("jobs", Isolation(**settings), [NODE], [SERVICE])
    return {(body["kind"], body["metadata"]["name"]): body for body in bodies}


def reaches(address: str) -> bool:
    """Whether an op gets there, by the policy alone; any port."""
    spec = policies()["NetworkPolicy", "nosana-jobs"]["spec"]
    found = ipaddress.ip_address(address)
    for rule in spec["egress"]:
        if "ports" in rule:
            continue
        for peer in rule["to"]:
            block = peer["ipBlock"]
            if found in ipaddress.ip_network(block["cidr"]):
                return all(found not in ipaddress.ip_network(cidr) for cidr in block.get("except", ()))
    return False


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("10.96.0.1", False),
        ("10.244.1.9", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.3.4", False),
        ("203.0.113.7", False),
        ("203.0.113.8", True),
        ("2001:db8::7", False),
        ("2001:db8:1::5", False),
        ("fd12::1", False),
        ("fe80::1", False),
    ],
)
def test_an_op_reaches_the_internet_and_nothing_of_the_cluster(address: str, reached: bool) -> None:
    assert reaches(address) is reached


def dns_rule(**settings: Any) -> dict[str, Any]:
    [rule] = [
        r for r in policies(**settings)["NetworkPolicy", "nosana-jobs"]["spec"]["egress"] if "ports" in r
    ]
    return rule


def resolves_at(address: str, **settings: Any) -> bool:
    """Whether an op reaches a resolver there, as a range and not as a pod."""
    cidrs = [peer["ipBlock"]["cidr"] for peer in dns_rule(**settings)["to"] if "ipBlock" in peer]
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(cidr) for cidr in cidrs)


def test_dns_is_reached_on_its_ports_only() -> None:
    assert dns_rule()["ports"] == [
        {"protocol": "UDP", "port": 53},
        {"protocol": "TCP", "port": 53},
        {"protocol": "UDP", "port": 5353},
        {"protocol": "TCP", "port": 5353},
    ]


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        ("169.254.20.10", True),  # NodeLocal DNSCache
        ("fd00::10", True),
        ("169.254.25.10", True),  # NodeLocal DNSCache as kubespray configures it
        ("10.96.0.10", True),  # the Service, where the node's cache answers at its address (iptables mode)
        ("fd12:96::a", True),
        ("203.0.113.7", True),  # a resolver with hostNetwork on a node
        ("2001:db8::7", True),
        ("169.254.10.11", True),  # AKS
        ("10.96.0.1", False),
        ("10.244.1.9", False),
        ("169.254.1.1", False),
        ("192.168.1.1", False),
    ],
)
def test_the_resolvers_of_all_common_clusters_are_reached(address: str, reached: bool) -> None:
    assert resolves_at(address) is reached


def test_dns_pods_are_reached_in_kubernetes_and_openshifts_namespace() -> None:
    names = [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for peer in dns_rule()["to"]
        if "namespaceSelector" in peer
    ]
    assert names == ["kube-system", "openshift-dns"]


def test_the_settings_replace_the_known_resolvers() -> None:
    dns = {"namespaces": ["dns"], "cidrs": ["10.9.9.9/32"], "ports": [1053]}
    assert resolves_at("10.9.9.9", dns=dns)
    assert not resolves_at("169.254.20.10", dns=dns)
    assert {port["port"] for port in dns_rule(dns=dns)["ports"]} == {1053}
    assert "openshift-dns" not in str(dns_rule(dns=dns))


def test_a_headless_dns_service_adds_no_range() -> None:
    headless = {"spec": {"clusterIPs": ["None"]}}
    assert build_namespace_policies("jobs", Isolation(), [NODE], [headless])


def test_nobody_reaches_an_op_but_its_gateway_the_exposed_ones() -> None:
    closed = policies()["NetworkPolicy", "nosana-jobs"]["spec"]
    assert "Ingress" in closed["policyTypes"]
    assert "ingress" not in closed, "a type without rules lets nobody in"
    exposed = policies(gateway_namespaces=("ingress",), gateway_cidrs=("10.1.0.0/16",))
    spec = exposed["NetworkPolicy", "nosana-jobs-exposed"]["spec"]
    assert spec["podSelector"]["matchLabels"][LABEL_EXPOSED] == "true"
    assert spec["ingress"] == [
        {
            "from": [
                {"ipBlock": {"cidr": "10.1.0.0/16"}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}},
            ]
        }
    ]
    assert policies()["NetworkPolicy", "nosana-jobs-exposed"]["spec"]["ingress"] == [{}]


def test_the_policies_hold_for_every_pod_and_only_exposed_ones_are_open() -> None:
    ctx = context(op("a", expose=80), op("b"))
    for index, is_exposed in ((0, True), (1, False)):
        labels = build_op_objects(ctx, index)[-1]["metadata"]["labels"]
        for (_, name), body in policies().items():
            selector = body["spec"].get("podSelector") or body["spec"]["selector"]
            matches = selector["matchLabels"].items() <= labels.items()
            assert matches is (is_exposed or not name.endswith("exposed"))


def test_ops_of_one_job_reach_each_other() -> None:
    policy = build_op_objects(context(op("a", group="g"), op("b", group="g")), 0)[0]
    assert policy["kind"] == "NetworkPolicy"
    own = policy["spec"]["podSelector"]["matchLabels"]
    assert policy["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": own}}]}]
    assert policy["spec"]["egress"] == [{"to": [{"podSelector": {"matchLabels": own}}]}]
    for alone in (context(op("a")), context(op("a"), op("b"))):
        assert [body["kind"] for body in build_op_objects(alone, 0)] == ["Pod"]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_the_policies_are_valid_kubernetes(version: str) -> None:
    for body in policies(gateway_namespaces=("ingress",)).values():
        kubernetes_validate.validate(body, version, strict=True)
