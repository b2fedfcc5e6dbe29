"""Finding out: answers, refusals and silence are told apart, and a key is let go of at once."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from nosana_operator.api import MARKET_KIND
from nosana_operator.chain import AccountMalformed, Market, RpcError, Wallet, WalletState
from nosana_operator.chain.endpoint_report import EndpointReport
from nosana_operator.doctor.facts import Facts, Unknown
from nosana_operator.doctor.gather import gather
from nosana_operator.doctor.rights import Right
from nosana_operator.errors import NosanaError, NotFound, Refused, Unavailable
from nosana_operator.kube.server import ServerFacts
from nosana_operator.runtime.settings import NetworkSettings, PinSettings, parse_settings
from support.healthy_cluster import ACCOUNT, ADDRESS, ENDPOINT, KEY, SETTINGS, STATE, named, node, server

SECRET = list(range(100, 164))


def market(**spec: Any) -> dict[str, Any]:
    body = {"address": ADDRESS, "network": "devnet", "jobNamespace": "nosana-jobs"}
    wallets = {"wallets": [{"secretRef": {"name": "host-key"}}]}
    meta = {"name": "mine", "namespace": "nosana-system"}
    return {"metadata": meta, "spec": body | wallets | spec}


@dataclass
class FakeCluster:
    """Answers with these, or raises them."""

    namespace: str = "nosana-system"
    answer: ServerFacts | NosanaError = field(default_factory=server)
    objects: dict[tuple[str, str], Any] = field(default_factory=dict)
    lists: dict[str, Any] = field(default_factory=lambda: {MARKET_KIND: [market()], "Node": [node()]})
    rights: list[Right] = field(default_factory=list)
    listed: list[tuple[str, str | None]] = field(default_factory=list)

    async def server(self) -> ServerFacts:
        return _or_raise(self.answer)

    async def served(self, group: str, version: str) -> bool:
        return True

    async def may(self, right: Right) -> bool:
        self.rights.append(right)
        return True

    async def nameservers(self) -> tuple[str, ...]:
        return ("10.96.0.10",)

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        return _or_raise(self.objects.get((kind, name), NotFound("no such thing")))

    async def list(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        self.listed.append((kind, namespace))
        return _or_raise(self.lists.get(kind, []))


@dataclass
class FakeWorld:
    """Chain and IPFS in one."""

    account: Market | NosanaError = ACCOUNT
    state: WalletState | NosanaError = STATE
    asked: list[str] = field(default_factory=list)

    @property
    def ipfs(self) -> FakeWorld:
        return self

    def chain(self, network: NetworkSettings) -> FakeWorld:
        return self

    async def endpoint(self, url: str) -> EndpointReport:
        return ENDPOINT

    async def socket(self, url: str) -> float:
        raise Unavailable("mute")

    async def clock_offset(self) -> float:
        return 1.0

    async def market(self, address: str) -> Market:
        return _or_raise(self.account)

    async def wallet(self, address: str) -> WalletState:
        self.asked.append(address)
        return _or_raise(self.state)

    async def access_keys(self, address: str) -> frozenset[str]:
        return frozenset()

    async def gateway(self, url: str) -> float:
        return 0.1

    async def pin_service(self, pin: PinSettings) -> None:
        raise Refused("HTTP 401")


def _or_raise(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


async def gathered(
    cluster: FakeCluster | None = None, world: FakeWorld | None = None, settings: str = SETTINGS
) -> Facts:
    return await gather(parse_settings(settings), None, cluster or FakeCluster(), world or FakeWorld())


def secret(content: bytes, key: str = "id.json") -> dict[tuple[str, str], Any]:
    return {("Secret", "host-key"): {**named("host-key"), "data": {key: base64.b64encode(content).decode()}}}


async def address(objects: dict[tuple[str, str], Any]) -> str | Unknown:
    facts = await gathered(FakeCluster(objects=objects))
    assert not isinstance(facts.markets, Unknown)
    (wallet,) = facts.markets[0].wallets
    return wallet.address


async def test_a_key_is_known_by_its_address_only() -> None:
    wallet = Wallet.generate()
    raw = list(bytes(wallet.keypair))
    world = FakeWorld()
    facts = await gathered(FakeCluster(objects=secret(json.dumps(raw).encode())), world)
    assert not isinstance(facts.markets, Unknown)
    (seen,) = facts.markets[0].wallets
    assert (seen.address, seen.secret, seen.state) == (wallet.address, "host-key/id.json", STATE)
    assert world.asked == [wallet.address]
    assert json.dumps(raw)[1:40] not in repr(facts)


@pytest.mark.parametrize(
    ("objects", "words", "known"),
    [
        ({}, "does not exist", True),
        (secret(b"x", key="other"), "has no key 'id.json'", True),
        (secret(json.dumps(SECRET).encode()), "holds no Solana key", True),
        (
            {("Secret", "host-key"): {**named("host-key"), "data": {"id.json": "&"}}},
            "holds no Solana key",
            True,
        ),
        ({("Secret", "host-key"): Refused("forbidden")}, "cannot be read: forbidden", False),
        ({("Secret", "host-key"): Unavailable("503")}, "cannot be read: 503", False),
    ],
)
async def test_what_stands_in_the_way_of_a_key(objects: Any, words: str, known: bool) -> None:
    found = await address(objects)
    assert isinstance(found, Unknown)
    assert words in found.reason
    # Lacking is a fact; what we may not read, or nobody answers, is not.
    assert found.refused is known
    assert str(SECRET)[1:30] not in found.reason


@pytest.mark.parametrize(
    ("answer", "account"),
    [
        (ACCOUNT, ACCOUNT),
        (NotFound("no market"), None),
        (AccountMalformed("a wallet"), None),
        (Unavailable("silent"), Unknown("silent")),
        (RpcError("over its limit", code=-32000), Unknown("over its limit")),
    ],
)
async def test_only_the_chain_says_that_there_is_no_market(answer: Any, account: Any) -> None:
    facts = await gathered(world=FakeWorld(account=answer))
    assert not isinstance(facts.markets, Unknown)
    assert facts.markets[0].account == account


async def test_silence_and_refusal_are_told_apart() -> None:
    facts = await gathered()
    network = facts.networks["devnet"]
    assert network.sockets == (Unknown("mute"),) * 2
    assert network.pins[0].problem == Unknown("HTTP 401", refused=True)


async def test_a_silent_api_server_is_asked_once_and_the_networks_all_the_same() -> None:
    cluster = FakeCluster(answer=Unavailable("no answer"))
    facts = await gathered(cluster)
    assert facts.cluster.server == Unknown("no answer")
    assert isinstance(facts.markets, Unknown)
    assert (cluster.listed, cluster.rights) == ([], [])
    assert facts.networks["devnet"].endpoints == (ENDPOINT,) * 2


async def test_markets_that_cannot_be_listed_are_not_none() -> None:
    facts = await gathered(FakeCluster(lists={MARKET_KIND: Refused("forbidden")}))
    assert facts.markets == Unknown("forbidden", refused=True)


async def test_only_served_namespaces_are_looked_into() -> None:
    cluster = FakeCluster()
    await gathered(cluster, settings=SETTINGS + "watchNamespaces: [a, b]")
    assert [place for kind, place in cluster.listed if kind == MARKET_KIND] == ["a", "b"]
    # What others leave of the nodes is needed of the whole cluster.
    assert [place for kind, place in cluster.listed if kind in ("Pod", "Node")] == [None, None]
    asked = {(right.resource, right.namespace) for right in cluster.rights}
    assert {("secrets", "a"), ("secrets", "b"), ("nodes", None)} <= asked
    assert ("secrets", None) not in asked


async def test_the_lease_is_asked_for_where_it_is() -> None:
    cluster = FakeCluster()
    await gathered(cluster)
    assert {right.namespace for right in cluster.rights if right.resource == "leases"} == {"nosana-system"}
    cluster = FakeCluster()
    await gathered(cluster, settings=SETTINGS + "election: {enabled: false}")
    assert not [right for right in cluster.rights if right.resource == "leases"]


async def test_a_market_of_a_network_that_is_not_set_up_is_read_all_the_same() -> None:
    cluster = FakeCluster(lists={MARKET_KIND: [market(network="away"), market(novel=True)]})
    facts = await gathered(cluster)
    assert not isinstance(facts.markets, Unknown)
    away, novel = facts.markets
    assert isinstance(away.account, Unknown)
    assert isinstance(novel.spec, Unknown)
    assert "novel" in novel.spec.reason
    assert KEY not in repr(away.wallets)
