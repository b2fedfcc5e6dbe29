"""A cluster with one market where nothing is wrong: what each test breaks one thing of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any

from nosana_operator.api import NosanaMarketSpec, crds
from nosana_operator.api.placement import NodeSettings
from nosana_operator.chain import Market, WalletState
from nosana_operator.chain.endpoint_report import GENESIS, EndpointReport
from nosana_operator.doctor.facts import (
    ClusterFacts,
    Facts,
    MarketFacts,
    NetworkFacts,
    PinFacts,
    WalletFacts,
)
from nosana_operator.doctor.rights import needed_rights
from nosana_operator.kube.server import ServerFacts, ServerVersion
from nosana_operator.runtime.settings import parse_settings

ADDRESS = "5MPY3xP3ufyYJzLWAAeBRHuYXgmLvXqe6rbZJAkJ7CTb"
KEY = "6SPdVeVRCYndtYVueo8RZ74vcc57jKjEQV3eiqbDviM7"
NFT = "BMbs5QK1CzZsgELyE9bieWY1G7YUCvSF11nxiDM7jmTs"
NAME = "nosana-system/mine"
SETTINGS = """
exposure: {domain: jobs.example.com, ingressClassName: nginx}
fetch: {image: registry.example.com/nosana-fetch:1}
networks:
  devnet:
    rpc: ["https://one.example.com/?api-key=secret-key-of-ours", "https://two.example.com"]
    ipfs:
      gateways: ["https://gateway.example.com"]
      pin: [{type: kubo, url: "https://pin.example.com"}]
"""


def node(name: str = "gpu-1", gpus: int = 2, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": NodeSettings().labels | {"nvidia.com/gpu.product": "NVIDIA-L4", **labels},
        },
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def named(name: str, **more: Any) -> dict[str, Any]:
    """An object with a name; `annotations` and `labels` go into its metadata."""
    meta = {key: more.pop(key) for key in ("annotations", "labels") if key in more}
    return {"metadata": {"name": name, **meta}, **more}


def storage_class(
    name: str = "standard", *, default: bool = True, provisioner: str = "nfs.example.com"
) -> Any:
    marks = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return named(name, annotations=marks, provisioner=provisioner)


def dns_service(namespace: str = "kube-system", name: str = "kube-dns", port: Any = 53) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "clusterIPs": ["10.96.0.10"],
            "selector": {"k8s-app": "kube-dns"},
            "ports": [{"port": 53, "targetPort": port}, {"port": 9153, "targetPort": 9153}],
        },
    }


@cache
def crd_bodies() -> Mapping[str, Any]:
    """Both CRDs as the API server gives them; copied before they are changed."""
    return {crd["metadata"]["name"]: {**crd, "status": {"storedVersions": ["v1alpha1"]}} for crd in crds()}


def server(minor: int = 35, **more: Any) -> ServerFacts:
    return ServerFacts(
        ServerVersion(1, minor, f"v1.{minor}.4"), more.pop("seconds", 0.02), more.pop("offset", 0.3)
    )


CLUSTER = ClusterFacts(
    server=server(),
    crds=crd_bodies(),
    served=True,
    rights=dict.fromkeys(needed_rights((), ("nosana-system", "nosana-operator")), True),
    nodes=(node(),),
    pods=(),
    storage_classes=(storage_class(),),
    ingress_classes=(named("nginx"),),
    dns_services=(dns_service(),),
    nameservers=("10.96.0.10",),
    namespaces={"nosana-jobs": named("nosana-jobs")},
)
ENDPOINT = EndpointReport(0.05, 1000, GENESIS["devnet"], True, True)
NETWORK = NetworkFacts(
    settings=parse_settings(SETTINGS).networks["devnet"],
    endpoints=(ENDPOINT, dataclasses.replace(ENDPOINT, slot=998)),
    sockets=(0.3, 0.4),
    gateways=(0.1,),
    pins=(PinFacts("https://pin.example.com", None),),
    clock_offset=1.5,
)
SPEC = NosanaMarketSpec.model_validate(
    {
        "address": ADDRESS,
        "network": "devnet",
        "jobNamespace": "nosana-jobs",
        "wallets": [{"secretRef": {"name": "host-key"}}],
        "exposure": {"domain": "jobs.example.com", "ingressClassName": "nginx"},
    }
)
ACCOUNT = Market(
    address=ADDRESS,
    authority=KEY,
    job_expiration=86_400,
    price=1_000,
    job_timeout=7_200,
    job_type=0,
    vault=NFT,
    node_access_key=None,
    xnos_minimum=10_000_000,
    queue_type="Job",
    queue=(NFT,),
)
STATE = WalletState(
    address=KEY,
    slot=1,
    lamports=100_000_000,
    nos_account=NFT,
    nos_account_exists=True,
    nos_balance=5_000_000,
    stake_xnos=20_000_000,
)
WALLET = WalletFacts("host-key/id.json", KEY, STATE, frozenset())
MARKET = MarketFacts("nosana-system", "mine", SPEC, ACCOUNT, (WALLET,))
HEALTHY = Facts(parse_settings(SETTINGS), None, CLUSTER, {"devnet": NETWORK}, (MARKET,))


def with_cluster(**changed: Any) -> Facts:
    return dataclasses.replace(HEALTHY, cluster=dataclasses.replace(CLUSTER, **changed))


def with_network(**changed: Any) -> Facts:
    return dataclasses.replace(HEALTHY, networks={"devnet": dataclasses.replace(NETWORK, **changed)})


def with_network_named(name: str, **changed: Any) -> Facts:
    return dataclasses.replace(HEALTHY, networks={name: dataclasses.replace(NETWORK, **changed)})


def with_settings(text: str) -> Facts:
    return dataclasses.replace(HEALTHY, settings=parse_settings(text))


def with_market(**changed: Any) -> Facts:
    return dataclasses.replace(HEALTHY, markets=(dataclasses.replace(MARKET, **changed),))


def with_spec(**changed: Any) -> Facts:
    spec: Mapping[str, Any] = SPEC.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    return with_market(spec=NosanaMarketSpec.model_validate({**spec, **changed}))


def with_account(**changed: Any) -> Facts:
    return with_market(account=dataclasses.replace(ACCOUNT, **changed))


def with_wallet(**changed: Any) -> Facts:
    return with_market(wallets=(dataclasses.replace(WALLET, **changed),))


def with_state(**changed: Any) -> Facts:
    return with_wallet(state=dataclasses.replace(STATE, **changed))
