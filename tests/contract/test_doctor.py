"""The doctor against a real API server, a chain and IPFS, with mistakes planted as people make them."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp.test_utils import TestServer
from solders.keypair import Keypair

from nosana_operator.api import API_VERSION, MARKET_KIND
from nosana_operator.api.placement import NodeSettings
from nosana_operator.doctor.checks import examine
from nosana_operator.doctor.facts import Unknown
from nosana_operator.doctor.finding import Finding, Level, exit_code
from nosana_operator.doctor.gather import gather
from nosana_operator.doctor.live import KINDS, LiveCluster, LiveWorld
from nosana_operator.doctor.ports import Cluster
from nosana_operator.kube import KubeClient, load_credentials
from nosana_operator.runtime.settings import parse_settings
from nosana_sandbox.chain import ChainClock, RunningChain, running_chain
from nosana_sandbox.cluster.apiserver import BareApiServer
from nosana_sandbox.ipfs import IpfsStore, ipfs_app
from nosana_sandbox.program.addresses import NOS_MINT
from nosana_sandbox.world.genesis import NOS, Founded, found, stake_accounts, wallet_accounts

pytestmark = pytest.mark.contract

PIN_TOKEN = "eyJ-the-right-token"
GPU = "doctor.example.com/gpu"
"""A resource that no other test's nodes have."""
CLOSED = "http://127.0.0.1:9"


@dataclasses.dataclass
class Place:
    """A cluster with one market in it, and everything that it is looked at with."""

    kube: KubeClient
    cluster: Cluster
    http: aiohttp.ClientSession
    founded: Founded
    chains: tuple[RunningChain, RunningChain]
    ipfs: IpfsStore
    namespace: str
    keys: Mapping[str, Keypair]
    settings: dict[str, Any]
    token_file: Any

    @property
    def network(self) -> dict[str, Any]:
        network: dict[str, Any] = self.settings["networks"]["localnet"]
        return network

    async def market(self, **spec: Any) -> None:
        """Make the NosanaMarket, or change it."""
        for body in await self.kube.list(MARKET_KIND, self.namespace):
            await self.kube.delete(MARKET_KIND, self.namespace, body["metadata"]["name"])
        spec = {
            "address": str(self.founded.market),
            "network": "localnet",
            "jobNamespace": f"{self.namespace}-jobs",
            "wallets": [{"secretRef": {"name": "host-key"}}],
            "gpu": {"resourceName": GPU},
            **spec,
        }
        meta = {"name": "mine", "namespace": self.namespace}
        body = {"apiVersion": API_VERSION, "kind": MARKET_KIND, "metadata": meta, "spec": spec}
        await self.kube.create(body)

    async def secret(self, name: str, content: bytes) -> None:
        meta = {"name": name, "namespace": self.namespace}
        data = {"id.json": base64.b64encode(content).decode()}
        await self.kube.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}, manager="tests"
        )

    async def wallet(self, which: str) -> None:
        """The market's one key is another."""
        await self.secret(which, json.dumps(list(bytes(self.keys[which]))).encode())
        await self.market(wallets=[{"secretRef": {"name": which}}])

    async def examined(self) -> tuple[Finding, ...]:
        settings = parse_settings(yaml.safe_dump(self.settings))
        return examine(await gather(settings, None, self.cluster, LiveWorld(self.http)))


@pytest.fixture
async def place(
    installed: KubeClient, apiserver: BareApiServer, namespace: str, tmp_path: Any
) -> AsyncIterator[Place]:
    keys = {name: Keypair() for name in ("poor", "idler", "low")}
    genesis = {
        **wallet_accounts(keys["poor"].pubkey(), sol=0, nos=0),
        **stake_accounts(keys["poor"].pubkey(), amount=10_000 * NOS),
        **wallet_accounts(keys["idler"].pubkey(), sol=1, nos=0),
        **wallet_accounts(keys["low"].pubkey(), sol=1, nos=0),
        **stake_accounts(keys["low"].pubkey(), amount=NOS),
    }
    founded = found(xnos_minimum=1_000 * NOS, genesis=genesis, clock=ChainClock())
    store = IpfsStore()
    server = TestServer(ipfs_app(store, token=PIN_TOKEN))
    await server.start_server(shutdown_timeout=0)
    token_file = tmp_path / "token"
    token_file.write_text(PIN_TOKEN)
    ipfs = str(server.make_url("/"))
    await installed.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{namespace}-jobs"}}, manager="tests"
    )
    credentials = load_credentials(apiserver.kubeconfig)
    async with (
        running_chain(founded.bank, slot_seconds=0.2) as first,
        running_chain(founded.bank, slot_seconds=None) as second,
        aiohttp.ClientSession() as http,
        credentials.open_session() as session,
    ):
        settings = {
            "watchNamespaces": [namespace, f"{namespace}-jobs"],
            "fetch": {"image": "registry.example.com/nosana-fetch:1"},
            "networks": {
                "localnet": {
                    "rpc": [f"{first.url}/?api-key=secret-path-of-ours", second.url],
                    "ws": [first.ws_url, second.ws_url],
                    "program": "nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR",
                    "nosMint": str(NOS_MINT),
                    "ipfs": {
                        "gateways": [ipfs],
                        "pin": [{"type": "pinata", "url": ipfs, "tokenFile": str(token_file)}],
                    },
                }
            },
        }
        kube = KubeClient(session, kinds=KINDS)
        cluster = LiveCluster(session, namespace)
        chains = (first, second)
        made = Place(kube, cluster, http, founded, chains, store, namespace, keys, settings, token_file)
        await kube.create(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": namespace,
                    "labels": NodeSettings().labels | {"nvidia.com/gpu.product": "NVIDIA-L4"},
                },
            }
        )
        amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", GPU: "2"}
        ready = [{"type": "Ready", "status": "True"}]
        status = {"capacity": amounts, "allocatable": amounts, "conditions": ready}
        await kube.patch("Node", None, namespace, {"status": status}, subresource="status")
        # A node that nobody's controller has looked at is tainted when it is made.
        await kube.patch("Node", None, namespace, {"spec": {"taints": None}})
        await made.secret("host-key", json.dumps(list(bytes(founded.host))).encode())
        await made.market()
        yield made
        await kube.delete("Node", None, namespace)
        await kube.delete(MARKET_KIND, namespace, "mine")
    await server.close()


Plant = Callable[[Place], Awaitable[None]]
MISTAKES: dict[str, tuple[Plant, str, Level, str]] = {}


def mistake(check: str, level: Level, words: str) -> Callable[[Plant], Plant]:
    def take(plant: Plant) -> Plant:
        MISTAKES[plant.__name__] = (plant, check, level, words)
        return plant

    return take


@mistake("network.rpc", Level.FAILURE, "rpc[0] (127.0.0.1:9) gives no usable answer")
async def rpc_that_nobody_answers(place: Place) -> None:
    place.network["rpc"] = [f"{CLOSED}/secret-path-of-ours"]


@mistake("network.rpc", Level.WARNING, "the key … is over its limit")
async def rpc_that_names_our_key(place: Place) -> None:
    place.chains[0].faults.add("error", code=-32000, message="the key secret-path-of-ours is over its limit")


@mistake("network.rpc", Level.WARNING, "slots behind the best one")
async def rpc_that_lags(place: Place) -> None:
    place.chains[1].faults.add("lag", "get*", slots=60)
    place.founded.bank.tick(80)


@mistake("network.program-accounts", Level.WARNING, "no endpoint offers getProgramAccounts")
async def rpc_of_public_nodes(place: Place) -> None:
    for chain in place.chains:
        chain.faults.add("refused")


@mistake("network.cluster", Level.FAILURE, "endpoints of another Solana cluster")
async def mainnet_with_endpoints_of_something_else(place: Place) -> None:
    place.settings["networks"] = {"mainnet": place.network}
    await place.market(network="mainnet")


@mistake("network.cluster", Level.FAILURE, "nosMint")
async def mint_of_mainnet(place: Place) -> None:
    place.network["nosMint"] = "nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7"


@mistake("network.websocket", Level.WARNING, "delivers nothing")
async def websocket_that_nobody_answers(place: Place) -> None:
    place.network["ws"] = ["ws://127.0.0.1:9"]


@mistake("network.clock", Level.WARNING, "s behind this machine")
async def clock_that_is_off(place: Place) -> None:
    place.founded.bank.clock.advance(-600)
    place.founded.bank.tick(2)


@mistake("network.ipfs-gateways", Level.FAILURE, "HTTP 503")
async def gateway_that_fails(place: Place) -> None:
    place.ipfs.unreachable = 503


@mistake("network.pin", Level.FAILURE, "does not accept our credentials: HTTP 401")
async def pin_token_of_another_account(place: Place) -> None:
    place.token_file.write_text("eyJ-another-token")


@mistake("network.pin", Level.FAILURE, "cannot be read")
async def pin_token_not_mounted(place: Place) -> None:
    place.network["ipfs"]["pin"][0]["tokenFile"] = "/nowhere/token"


@mistake("network.pin", Level.FAILURE, "is empty")
async def nowhere_to_pin(place: Place) -> None:
    place.network["ipfs"]["pin"] = []


@mistake("wallet", Level.FAILURE, "does not exist")
async def secret_that_was_never_made(place: Place) -> None:
    await place.market(wallets=[{"secretRef": {"name": "nowhere"}}])


@mistake("wallet", Level.FAILURE, "holds no Solana key under 'id.json'")
async def secret_with_half_a_key(place: Place) -> None:
    await place.secret("host-key", json.dumps(list(bytes(place.founded.host))[:32]).encode())


@mistake("wallet", Level.FAILURE, "has no key 'wallet.json'")
async def secret_under_another_name(place: Place) -> None:
    await place.market(wallets=[{"secretRef": {"name": "host-key", "key": "wallet.json"}}])


@mistake("wallet", Level.FAILURE, "0.000000 SOL")
async def key_without_sol(place: Place) -> None:
    await place.wallet("poor")


@mistake("wallet", Level.FAILURE, "no stake account")
async def key_that_never_staked(place: Place) -> None:
    await place.wallet("idler")


@mistake("wallet", Level.FAILURE, "4 xNOS staked, the market requires 1000")
async def key_with_too_little_stake(place: Place) -> None:
    await place.wallet("low")


@mistake("market", Level.FAILURE, "there is no market")
async def market_that_is_a_wallet(place: Place) -> None:
    await place.market(address=str(place.founded.host.pubkey()))


@mistake("market", Level.FAILURE, "no network 'mainet'")
async def network_with_a_typing_error(place: Place) -> None:
    await place.market(network="mainet")


@mistake("market.namespace", Level.FAILURE, "kubectl create namespace elsewhere")
async def job_namespace_that_was_never_made(place: Place) -> None:
    place.settings["watchNamespaces"].append("elsewhere")
    await place.market(jobNamespace="elsewhere")


@mistake("market.namespace", Level.FAILURE, "not among the operator's watchNamespaces")
async def job_namespace_that_is_not_served(place: Place) -> None:
    place.settings["watchNamespaces"] = [place.namespace]


@mistake("market.namespace", Level.FAILURE, "enforces the Pod Security level `restricted`")
async def job_namespace_for_rootless_pods(place: Place) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    name = f"{place.namespace}-jobs"
    await place.kube.patch("Namespace", None, name, {"metadata": {"labels": label}})


@mistake("market.gpus", Level.FAILURE, "no node has room for a slot (1 amd.com/gpu")
async def gpus_of_another_maker(place: Place) -> None:
    await place.market(gpu={"resourceName": "amd.com/gpu"})


@mistake("market.gpus", Level.FAILURE, "is not labelled nvidia.com/gpu.product=NVIDIA-A100")
async def gpus_that_no_node_has(place: Place) -> None:
    await place.market(gpu={"resourceName": GPU, "product": "NVIDIA-A100"})


@mistake("market.gpus", Level.FAILURE, "is cordoned")
async def node_that_is_cordoned(place: Place) -> None:
    await place.kube.patch("Node", None, place.namespace, {"spec": {"unschedulable": True}})


@mistake("kubernetes.storage", Level.FAILURE, "there is no StorageClass 'fast'")
async def storage_class_that_is_not_there(place: Place) -> None:
    place.settings["volumes"] = {"storageClass": "fast"}


@mistake("kubernetes.ingress", Level.FAILURE, "there is no IngressClass 'ngnix'")
async def ingress_class_with_a_typing_error(place: Place) -> None:
    await place.market(exposure={"domain": "jobs.example.com", "ingressClassName": "ngnix"})


def problems(findings: tuple[Finding, ...]) -> set[tuple[str, Level]]:
    return {(finding.check, finding.level) for finding in findings if finding.level is not Level.OK}


ALWAYS = {
    # A bare API server has no storage, no Ingress controller and no network.
    ("kubernetes.storage", Level.WARNING),
    ("kubernetes.ingress", Level.WARNING),
    ("kubernetes.network-policies", Level.UNKNOWN),
    # The test does not run in a pod.
    ("kubernetes.dns", Level.UNKNOWN),
}


async def test_a_place_without_mistakes(place: Place) -> None:
    findings = await place.examined()
    # How quick this machine is today is no mistake of the place.
    slow = tuple(
        f
        for f in findings
        if f.level is Level.WARNING and ("s to answer" in f.message or "after" in f.message)
    )
    assert problems(tuple(f for f in findings if f not in slow)) == ALWAYS, findings
    assert exit_code(findings) == 0


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_planted_mistake_is_found(place: Place, name: str) -> None:
    plant, check, level, words = MISTAKES[name]
    await plant(place)
    findings = await place.examined()
    assert [f for f in findings if f.check == check and f.level is level and words in f.message + f.remedy], [
        f for f in findings if f.level is not Level.OK
    ]
    assert exit_code(findings) == int(level is Level.FAILURE)
    told = str(findings)
    numbers = json.dumps(list(bytes(place.founded.host)))[1:60]
    for secret in (PIN_TOKEN, "eyJ-another-token", "secret-path-of-ours", numbers):
        assert secret not in told


async def test_rights_that_are_missing_are_named(place: Place, apiserver: BareApiServer) -> None:
    token = await token_of(apiserver, place.namespace, "nobody")
    credentials = load_credentials(apiserver.kubeconfig)
    nobody = dataclasses.replace(credentials, read_token=lambda: f"Bearer {token}")
    async with nobody.open_session() as session:
        place.cluster = LiveCluster(session, place.namespace)
        findings = await place.examined()
    said = {
        f.subject: f.message for f in findings if f.check == "kubernetes.rights" and f.level is Level.FAILURE
    }
    assert "list, watch nodes in all namespaces" in said["nodes"]
    assert f"in namespace {place.namespace}" in said["nosanajobs.nosana.io"]
    assert "create" in said["leases.coordination.k8s.io"]
    # What we may not see is unknown, and not missing.
    told = {f.check: f.level for f in findings if f.check in ("market", "gpus", "kubernetes.crds")}
    assert set(told.values()) == {Level.UNKNOWN}
    assert exit_code(findings) == 1


async def test_nothing_is_asked_of_an_api_server_that_does_not_answer(place: Place) -> None:
    settings = parse_settings(yaml.safe_dump(place.settings))
    findings = examine(await gather(settings, None, Unknown("no way to sign in"), LiveWorld(place.http)))
    assert ("kubernetes.api", Level.FAILURE) in problems(findings)
    # The networks are looked at all the same.
    assert [f for f in findings if f.check == "network.rpc" and f.level is Level.OK]


async def token_of(apiserver: BareApiServer, namespace: str, account: str) -> str:
    """Of a service account that is made for it and bound to nothing."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    async with load_credentials(apiserver.kubeconfig).open_session() as session:
        async with session.post(accounts, json={"metadata": {"name": account}}) as answer:
            assert answer.status == 201, await answer.text()
        async with session.post(f"{accounts}/{account}/token", json=wanted) as answer:
            return str((await answer.json())["status"]["token"])
