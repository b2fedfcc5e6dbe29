"""Pure: what was found out → what the doctor says. Each row breaks one thing of a cluster that is well."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from nosana_operator.api.placement import NodeSettings
from nosana_operator.chain.endpoint_report import GENESIS
from nosana_operator.doctor.checks import examine
from nosana_operator.doctor.facts import NO_API_SERVER, ClusterFacts, Facts, PinFacts, Unknown
from nosana_operator.doctor.finding import Finding, Level, exit_code
from nosana_operator.doctor.rights import Right, needed_rights
from nosana_operator.runtime.settings import parse_settings
from support.healthy_cluster import (
    ACCOUNT,
    CLUSTER,
    ENDPOINT,
    HEALTHY,
    KEY,
    MARKET,
    NAME,
    NETWORK,
    NFT,
    SETTINGS,
    STATE,
    WALLET,
    crd_bodies,
    dns_service,
    named,
    node,
    server,
    storage_class,
    with_account,
    with_cluster,
    with_market,
    with_network,
    with_network_named,
    with_settings,
    with_spec,
    with_state,
    with_wallet,
)

SILENT = Unknown("it gave no answer in 6 s")
NO = Unknown("forbidden", refused=True)
OK, WARNING, FAILURE, UNKNOWN = Level.OK, Level.WARNING, Level.FAILURE, Level.UNKNOWN


def crd_that(**changed: Any) -> dict[str, Any]:
    """Both CRDs as they are in the cluster, that of NosanaMarkets changed."""
    bodies = copy.deepcopy(dict(crd_bodies()))
    body = bodies["nosanamarkets.nosana.io"]
    version = body["spec"]["versions"][0]
    if "drop" in changed:
        del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][changed["drop"]]
    if "add" in changed:
        fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        fields[changed["add"]] = {"type": "string"}
    if "served" in changed:
        version["served"] = changed["served"]
    if "stored" in changed:
        body["status"]["storedVersions"] = changed["stored"]
    return bodies


def without_enum_value() -> dict[str, Any]:
    bodies = copy.deepcopy(dict(crd_bodies()))
    schema = bodies["nosanamarkets.nosana.io"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["onNoCapacity"]["enum"].remove("Wait")
    return bodies


def lacking(*names: str) -> dict[Right, Any]:
    rights = needed_rights((), ("nosana-system", "nosana-operator"))
    return {right: right.name not in names for right in rights}


def two_markets() -> Facts:
    other = dataclasses.replace(MARKET, name="second")
    return dataclasses.replace(HEALTHY, markets=(MARKET, other))


def endpoints(*reports: Any) -> Facts:
    return with_network(endpoints=reports)


BROKEN: dict[str, tuple[Facts, str, Level, str]] = {
    # what: facts, check, level, words of message or remedy
    "settings: not readable": (
        dataclasses.replace(HEALTHY, settings_problem="Settings: networks.x.rpc: this key is needed."),
        "settings",
        FAILURE,
        "networks.x.rpc",
    ),
    "settings: markets, but no network": (
        with_settings("fetch: {image: a}"),
        "settings",
        FAILURE,
        "no network",
    ),
    "settings: no fetch image": (
        with_settings(SETTINGS.replace("fetch: {image: registry.example.com/nosana-fetch:1}", "")),
        "settings",
        WARNING,
        "fetch.image",
    ),
    "api: silent": (
        dataclasses.replace(HEALTHY, cluster=ClusterFacts(SILENT), markets=NO_API_SERVER),
        "kubernetes.api",
        FAILURE,
        "no answer",
    ),
    "api: slow": (with_cluster(server=server(seconds=2.5)), "kubernetes.api", WARNING, "2.5 s"),
    "version: too old": (with_cluster(server=server(30)), "kubernetes.version", FAILURE, "1.31 or newer"),
    "version: newer than known": (
        with_cluster(server=server(38)),
        "kubernetes.version",
        WARNING,
        "newer than 1.37",
    ),
    "clock: API server ahead": (
        with_cluster(server=server(offset=90.0)),
        "kubernetes.clock",
        WARNING,
        "90 s ahead",
    ),
    "clock: API server behind": (
        with_cluster(server=server(offset=-9.0)),
        "kubernetes.clock",
        WARNING,
        "9 s behind",
    ),
    "clock: not told": (
        with_cluster(server=server(offset=None)),
        "kubernetes.clock",
        UNKNOWN,
        "has no date",
    ),
    "crds: missing": (
        with_cluster(crds=dict.fromkeys(crd_bodies())),
        "kubernetes.crds",
        FAILURE,
        "kubectl apply --server-side",
    ),
    "crds: older": (
        with_cluster(crds=crd_that(drop="paused")),
        "kubernetes.crds",
        FAILURE,
        "lacks spec.paused",
    ),
    "crds: a choice less": (
        with_cluster(crds=without_enum_value()),
        "kubernetes.crds",
        FAILURE,
        "spec.onNoCapacity=Wait",
    ),
    "crds: newer": (
        with_cluster(crds=crd_that(add="novel")),
        "kubernetes.crds",
        WARNING,
        "also has spec.novel",
    ),
    "crds: not served": (
        with_cluster(crds=crd_that(served=False)),
        "kubernetes.crds",
        FAILURE,
        "does not serve",
    ),
    "crds: stored as another version": (
        with_cluster(crds=crd_that(stored=["v1alpha0", "v1alpha1"])),
        "kubernetes.crds",
        WARNING,
        "v1alpha0",
    ),
    "crds: not ours to read": (
        with_cluster(crds=dict.fromkeys(crd_bodies(), NO)),
        "kubernetes.crds",
        UNKNOWN,
        "is served",
    ),
    "crds: not ours to read, and not served": (
        with_cluster(crds=dict.fromkeys(crd_bodies(), NO), served=False),
        "kubernetes.crds",
        FAILURE,
        "is not served",
    ),
    "rights: two verbs of one resource": (
        with_cluster(rights=lacking("pods/log", "endpointslices.discovery.k8s.io")),
        "kubernetes.rights",
        FAILURE,
        "create, patch, delete endpointslices.discovery.k8s.io in all namespaces",
    ),
    "rights: the Lease": (
        with_cluster(rights=lacking("leases.coordination.k8s.io")),
        "kubernetes.rights",
        FAILURE,
        "in namespace nosana-system",
    ),
    "rights: no answer": (
        with_cluster(rights=dict.fromkeys(CLUSTER.rights, SILENT)),
        "kubernetes.rights",
        UNKNOWN,
        "no answer",
    ),
    "storage: no default": (
        with_cluster(storage_classes=(storage_class(default=False),)),
        "kubernetes.storage",
        WARNING,
        "no default StorageClass",
    ),
    "storage: the named one is not there": (
        with_settings(SETTINGS + "volumes: {storageClass: fast}"),
        "kubernetes.storage",
        FAILURE,
        "'fast'",
    ),
    "storage: disks of one node, wanted on many": (
        dataclasses.replace(
            with_settings(SETTINGS + "volumes: {accessMode: ReadWriteMany}"),
            cluster=dataclasses.replace(
                CLUSTER, storage_classes=(storage_class(provisioner="ebs.csi.aws.com"),)
            ),
        ),
        "kubernetes.storage",
        WARNING,
        "ReadWriteMany",
    ),
    "dns: an unknown link-local resolver": (
        with_cluster(nameservers=("169.254.77.10",)),
        "kubernetes.dns",
        FAILURE,
        "nameserver 169.254.77.10",
    ),
    "dns: pods listen on another port": (
        with_cluster(dns_services=(dns_service(port=1053),)),
        "kubernetes.dns",
        FAILURE,
        "on port 1053",
    ),
    "dns: pods in a namespace that was left out": (
        dataclasses.replace(
            HEALTHY, settings=parse_settings(SETTINGS + "isolation: {dns: {namespaces: [openshift-dns]}}")
        ),
        "kubernetes.dns",
        FAILURE,
        "in namespace kube-system",
    ),
    "dns: outside the cluster": (
        with_cluster(nameservers=SILENT),
        "kubernetes.dns",
        UNKNOWN,
        "resolv.conf cannot be read",
    ),
    "dns: the Service cannot be read": (
        with_cluster(dns_services=NO),
        "kubernetes.dns",
        UNKNOWN,
        "forbidden",
    ),
    "ingress: the named class is not there": (
        with_cluster(ingress_classes=(named("traefik"),)),
        "kubernetes.ingress",
        FAILURE,
        "traefik",
    ),
    "ingress: no class": (
        with_spec(exposure={"domain": "jobs.example.com"}),
        "kubernetes.ingress",
        WARNING,
        "none is the default",
    ),
    "ingress: no domain": (
        dataclasses.replace(with_settings(SETTINGS.replace("domain: jobs.example.com, ", "")), markets=()),
        "kubernetes.ingress",
        WARNING,
        "exposure.domain",
    ),
    "ingress: not ours to list": (
        with_cluster(ingress_classes=NO),
        "kubernetes.ingress",
        UNKNOWN,
        "cannot be listed",
    ),
    "gpus: none": (
        dataclasses.replace(with_cluster(nodes=(node(gpus=0),)), markets=()),
        "gpus",
        WARNING,
        "device plugin",
    ),
    "gpus: not labelled": (
        with_cluster(nodes=({**node(), "metadata": {"name": "bare", "labels": NodeSettings().labels}},)),
        "gpus",
        WARNING,
        "bare",
    ),
    "gpus: another resource name": (
        with_spec(gpu={"resourceName": "amd.com/gpu"}),
        "market.gpus",
        FAILURE,
        "no node has room",
    ),
    "gpus: another product": (
        with_spec(gpu={"product": "NVIDIA-A100"}),
        "market.gpus",
        FAILURE,
        "gpu-1 is not labelled nvidia.com/gpu.product=NVIDIA-A100",
    ),
    "gpus: more for a job than a node has": (
        with_spec(gpu={"count": 4}),
        "market.gpus",
        FAILURE,
        "has no room",
    ),
    "gpus: none offered": (with_spec(slots={"reserve": 2}), "market.gpus", WARNING, "offers none"),
    "rpc: one of two silent": (
        endpoints(ENDPOINT, SILENT),
        "network.rpc",
        WARNING,
        "rpc[1] (two.example.com)",
    ),
    "rpc: all silent": (endpoints(SILENT, SILENT), "network.rpc", FAILURE, "rpc[0] (one.example.com)"),
    "rpc: refused, with the key in the words": (
        endpoints(Unknown("key secret-key-of-ours is over its limit", refused=True), ENDPOINT),
        "network.rpc",
        WARNING,
        "key … is over its limit",
    ),
    "rpc: one lags": (
        endpoints(ENDPOINT, dataclasses.replace(ENDPOINT, slot=900)),
        "network.rpc",
        WARNING,
        "100 slots behind",
    ),
    "rpc: slow": (
        endpoints(ENDPOINT, dataclasses.replace(ENDPOINT, latency=1.8)),
        "network.rpc",
        WARNING,
        "1.8 s",
    ),
    "rpc: no getProgramAccounts": (
        endpoints(*(dataclasses.replace(ENDPOINT, lists_accounts=False),) * 2),
        "network.program-accounts",
        WARNING,
        "no endpoint offers",
    ),
    "rpc: of another cluster than the name says": (
        with_network_named("mainnet"),
        "network.cluster",
        FAILURE,
        "rpc[0] is devnet",
    ),
    "rpc: of two clusters": (
        with_network_named(
            "mine", endpoints=(ENDPOINT, dataclasses.replace(ENDPOINT, genesis=GENESIS["testnet"]))
        ),
        "network.cluster",
        FAILURE,
        "different Solana clusters",
    ),
    "rpc: the mint is of another cluster": (
        endpoints(ENDPOINT, dataclasses.replace(ENDPOINT, has_mint=False)),
        "network.cluster",
        FAILURE,
        "nosMint",
    ),
    "rpc: no genesis told": (
        endpoints(*(dataclasses.replace(ENDPOINT, genesis=None),) * 2),
        "network.cluster",
        UNKNOWN,
        "no endpoint reports",
    ),
    "ws: all mute": (with_network(sockets=(SILENT, SILENT)), "network.websocket", WARNING, "polling"),
    "ws: one mute": (
        with_network(sockets=(0.2, SILENT)),
        "network.websocket",
        WARNING,
        "ws[1] (two.example.com)",
    ),
    "chain clock": (with_network(clock_offset=-120.0), "network.clock", WARNING, "120 s behind"),
    "chain clock not read": (
        with_network(clock_offset=SILENT),
        "network.clock",
        UNKNOWN,
        "could not be read",
    ),
    "gateways: silent": (
        with_network(gateways=(SILENT,)),
        "network.ipfs-gateways",
        FAILURE,
        "gateway.example.com",
    ),
    "gateways: none": (
        with_network(
            settings=NETWORK.settings.model_copy(
                update={"ipfs": NETWORK.settings.ipfs.model_copy(update={"gateways": ()})}
            ),
            gateways=(),
        ),
        "network.ipfs-gateways",
        FAILURE,
        "is empty",
    ),
    "pin: none": (with_network(pins=()), "network.pin", FAILURE, "is empty"),
    "pin: credentials refused": (
        with_network(pins=(PinFacts("https://pin.example.com", Unknown("HTTP 401", refused=True)),)),
        "network.pin",
        FAILURE,
        "tokenFile",
    ),
    "pin: silent": (
        with_network(pins=(PinFacts("https://pin.example.com", SILENT),)),
        "network.pin",
        FAILURE,
        "no usable answer",
    ),
    "market: not ours to list": (
        dataclasses.replace(HEALTHY, markets=NO),
        "market",
        UNKNOWN,
        "cannot be listed",
    ),
    "market: spec of another version": (
        with_market(spec=Unknown("NosanaMarket spec.novel: there is no such field", refused=True)),
        "market",
        FAILURE,
        "spec.novel",
    ),
    "market: network not in the settings": (with_spec(network="mainnet"), "market", FAILURE, "(devnet)"),
    "market: not an address": (with_spec(address="nonsense"), "market", FAILURE, "base58"),
    "market: not on chain": (with_market(account=None), "market", FAILURE, "there is no market"),
    "market: a node refuses": (with_market(account=NO), "market", UNKNOWN, "could not be read"),
    "market: chain silent": (with_market(account=SILENT), "market", UNKNOWN, "could not be read"),
    "market: pays nothing": (with_account(price=0), "market", WARNING, "pays nothing"),
    "market: pays too little": (
        with_spec(minPrice=2_000),
        "market",
        WARNING,
        "less than spec.minPrice (0.002)",
    ),
    "market: paused": (with_spec(paused=True), "market", WARNING, "spec.paused is set"),
    "market: drained": (with_spec(drain={}), "market", WARNING, "spec.drain is set"),
    "market: queue nearly full": (
        with_account(queue_type="Node", queue=(NFT,) * 260),
        "market",
        WARNING,
        "hosts in its queue: 260",
    ),
    "market: jobs beside the keys": (
        with_spec(jobNamespace="nosana-system"),
        "market.namespace",
        FAILURE,
        "another namespace",
    ),
    "market: jobs where the operator does not look": (
        with_settings(SETTINGS + "watchNamespaces: [nosana-system]"),
        "market.namespace",
        FAILURE,
        "watchNamespaces",
    ),
    "market: no such namespace": (
        with_cluster(namespaces={"nosana-jobs": None}),
        "market.namespace",
        FAILURE,
        "kubectl create namespace nosana-jobs",
    ),
    "market: namespace for rootless pods": (
        with_cluster(
            namespaces={
                "nosana-jobs": named(
                    "nosana-jobs", labels={"pod-security.kubernetes.io/enforce": "restricted"}
                )
            }
        ),
        "market.namespace",
        FAILURE,
        "restricted",
    ),
    "wallet: no Secret": (
        with_wallet(address=Unknown("Secret nosana-system/host-key does not exist", refused=True)),
        "wallet",
        FAILURE,
        "does not exist",
    ),
    "wallet: not ours to read": (with_wallet(address=SILENT), "wallet", UNKNOWN, "no answer"),
    "wallet: no SOL": (with_state(lamports=1_000), "wallet", FAILURE, "0.000001 SOL"),
    "wallet: no stake account": (with_state(stake_xnos=None), "wallet", FAILURE, "no stake account"),
    "wallet: stake too low": (with_state(stake_xnos=1), "wallet", FAILURE, "requires 10"),
    "wallet: no NOS account": (with_state(nos_account_exists=False), "wallet", WARNING, "first `work`"),
    "wallet: not read": (with_wallet(state=SILENT), "wallet", UNKNOWN, "could not be read"),
    "wallet: no access key": (with_account(node_access_key=NFT), "wallet", FAILURE, f"collection {NFT}"),
    "wallet: access keys not read": (
        dataclasses.replace(
            HEALTHY,
            markets=(
                dataclasses.replace(
                    MARKET,
                    account=dataclasses.replace(ACCOUNT, node_access_key=NFT),
                    wallets=(dataclasses.replace(WALLET, access_keys=SILENT),),
                ),
            ),
        ),
        "wallet",
        UNKNOWN,
        "access key could not be read",
    ),
    "wallet: the same key twice in a market": (
        two_markets(),
        "wallet",
        FAILURE,
        f"{NAME} host-key/id.json already uses the key",
    ),
}


def bad(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.OK]


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    found = bad(examine(HEALTHY))
    # The one thing that nobody can be asked.
    assert [(finding.check, finding.level) for finding in found] == [
        ("kubernetes.network-policies", Level.UNKNOWN)
    ]
    assert exit_code(examine(HEALTHY)) == 0


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_is_found(what: str) -> None:
    facts, check, level, words = BROKEN[what]
    found = [finding for finding in bad(examine(facts)) if finding.check == check]
    assert [f for f in found if f.level is level and words in f"{f.message} {f.remedy}"], found
    # One thing was broken: nothing else is worse for it than what was broken itself.
    assert exit_code(examine(facts)) == int(level is Level.FAILURE), bad(examine(facts))


@pytest.mark.parametrize("what", BROKEN)
def test_each_finding_reads_as_a_sentence_and_has_a_remedy(what: str) -> None:
    for finding in examine(BROKEN[what][0]):
        assert not finding.message.endswith(".")
        assert "\n" not in finding.message + finding.remedy
        if finding.level in (Level.WARNING, Level.FAILURE):
            assert finding.remedy


def test_no_url_is_shown_beyond_its_host() -> None:
    every = [str(finding) for facts, *_ in BROKEN.values() for finding in examine(facts)]
    assert any("one.example.com" in text for text in every)
    assert not [text for text in every if "secret-key" in text]


def test_an_access_key_that_is_there_is_no_finding() -> None:
    market = dataclasses.replace(
        MARKET,
        account=dataclasses.replace(ACCOUNT, node_access_key=NFT),
        wallets=(dataclasses.replace(WALLET, access_keys=frozenset({NFT})),),
    )
    assert exit_code(examine(dataclasses.replace(HEALTHY, markets=(market,)))) == 0


def test_the_wallets_line_tells_what_it_has() -> None:
    (said,) = [f.message for f in examine(HEALTHY) if f.check == "wallet"]
    assert said == f"{KEY} has 0.1000 SOL, 20 xNOS staked, 5 NOS"
    assert STATE.stake_xnos == 20_000_000


def test_every_check_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "troubleshooting.md").read_text()
    section = page.split("## What the doctor checks\n", 1)[1].split("\n## ", 1)[0]
    checks = {finding.check for facts, *_ in BROKEN.values() for finding in examine(facts)}
    assert set(re.findall(r"^\| `([\w.-]+)` \|", section, flags=re.M)) == checks
