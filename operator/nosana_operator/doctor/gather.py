"""Gathers the facts: sends every query at once; a query without an answer becomes `Unknown`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from nosana_operator.api import (
    GROUP,
    MARKET_KIND,
    PLURALS,
    VERSION,
    ApiError,
    NosanaMarketSpec,
    SecretRef,
    parse_part,
)
from nosana_operator.chain import AccountMalformed, InvalidAddress, Market, Wallet
from nosana_operator.doctor.facts import (
    NO_API_SERVER,
    Bodies,
    Body,
    ClusterFacts,
    Facts,
    Known,
    MarketFacts,
    NetworkFacts,
    PinFacts,
    Unknown,
    WalletFacts,
)
from nosana_operator.doctor.ports import Chain, Cluster, Ipfs, World
from nosana_operator.doctor.rights import needed_rights
from nosana_operator.errors import NosanaError, NotFound, Unavailable
from nosana_operator.kube.server import ServerFacts
from nosana_operator.runtime.settings import NetworkSettings, PinSettings, Settings
from nosana_operator.workload import CLUSTER_DNS_SERVICES

T = TypeVar("T")

CRD_NAMES = tuple(f"{plural}.{GROUP}" for plural in PLURALS.values())
_REVIEWS_AT_ONCE = 8
"""Access reviews in parallel: an API server allows a client bursts, but not of sixty."""


async def gather(
    settings: Settings, settings_problem: str | None, cluster: Cluster | Unknown, world: World
) -> Facts:
    """Query all services. Failures are in the facts; `cluster` Unknown: no credentials could be loaded."""
    chains = {name: world.chain(network) for name, network in settings.networks.items()}
    networks = {
        name: asyncio.ensure_future(_network(network, chains[name], world.ipfs))
        for name, network in settings.networks.items()
    }
    server = cluster if isinstance(cluster, Unknown) else await ask(cluster.server())
    if isinstance(server, Unknown) or isinstance(cluster, Unknown):
        return Facts(settings, settings_problem, ClusterFacts(server), await _all(networks), NO_API_SERVER)
    markets, cluster_facts = await asyncio.gather(
        _markets(cluster, settings, chains), _cluster(cluster, settings, server)
    )
    named = set() if isinstance(markets, Unknown) else {_job_namespace(one) for one in markets}
    namespaces = {name: _get(cluster, "Namespace", None, name) for name in sorted(filter(None, named))}
    cluster_facts = dataclasses.replace(cluster_facts, namespaces=await _all(namespaces))
    return Facts(settings, settings_problem, cluster_facts, await _all(networks), markets)


async def _cluster(cluster: Cluster, settings: Settings, server: ServerFacts) -> ClusterFacts:
    """All facts of the cluster but the namespaces, which depend on the markets."""
    crds, served, rights, services, nameservers, nodes, pods, storage, ingress = await asyncio.gather(
        _all({name: _get(cluster, "CustomResourceDefinition", None, name) for name in CRD_NAMES}),
        ask(cluster.served(GROUP, VERSION)),
        _rights(cluster, settings),
        _dns_services(cluster),
        ask(cluster.nameservers()),
        *(_list(cluster, kind) for kind in ("Node", "Pod", "StorageClass", "IngressClass")),
    )
    return ClusterFacts(
        server,
        crds,
        served,
        rights,
        nodes,
        pods,
        storage,
        ingress,
        dns_services=services,
        nameservers=nameservers,
    )


async def _dns_services(cluster: Cluster) -> Known[Bodies]:
    found: list[Body] = []
    for namespace, name in CLUSTER_DNS_SERVICES:
        service = await _get(cluster, "Service", namespace, name)
        if isinstance(service, Unknown):
            return service
        if service is not None:
            found.append(service)
    return tuple(found)


async def ask(query: Awaitable[T]) -> Known[T]:
    """The query's answer, or the reason why there is none."""
    try:
        return await query
    except NosanaError as error:
        return _unknown(error)


def _unknown(error: NosanaError) -> Unknown:
    return Unknown(str(error), refused=not isinstance(error, Unavailable))


async def _all(queries: dict[Any, Any]) -> dict[Any, Any]:
    """The answers of all queries, under the same keys."""
    return dict(zip(queries, await asyncio.gather(*queries.values()), strict=True))


async def _each(queries: Iterable[Awaitable[T]]) -> tuple[Known[T], ...]:
    return tuple(await asyncio.gather(*(ask(query) for query in queries)))


# -- the cluster


async def _get(cluster: Cluster, kind: str, namespace: str | None, name: str) -> Known[Body | None]:
    try:
        return await cluster.get(kind, namespace, name)
    except NotFound:
        return None
    except NosanaError as error:
        return _unknown(error)


async def _list(cluster: Cluster, kind: str, namespace: str | None = None) -> Known[Bodies]:
    bodies = await ask(cluster.list(kind, namespace))
    return bodies if isinstance(bodies, Unknown) else tuple(bodies)


async def _rights(cluster: Cluster, settings: Settings) -> dict[Any, Known[bool]]:
    election = settings.election
    lease = (election.namespace or cluster.namespace, election.name) if election.enabled else None
    limit = asyncio.Semaphore(_REVIEWS_AT_ONCE)

    async def may(right: Any) -> Known[bool]:
        async with limit:
            return await ask(cluster.may(right))

    return await _all({right: may(right) for right in needed_rights(settings.watch_namespaces, lease)})


# -- networks


async def _network(network: NetworkSettings, chain: Chain, ipfs: Ipfs) -> NetworkFacts:
    endpoints, sockets, gateways, pins, offset = await asyncio.gather(
        _each(chain.endpoint(url) for url in network.rpc),
        _each(chain.socket(url) for url in network.ws),
        _each(ipfs.gateway(url) for url in network.ipfs.gateways),
        asyncio.gather(*(_pin(ipfs, pin) for pin in network.ipfs.pin)),
        ask(chain.clock_offset()),
    )
    return NetworkFacts(network, endpoints, sockets, gateways, tuple(pins), offset)


async def _pin(ipfs: Ipfs, pin: PinSettings) -> PinFacts:
    return PinFacts(pin.url, await ask(ipfs.pin_service(pin)))


# -- markets


async def _markets(
    cluster: Cluster, settings: Settings, chains: dict[str, Chain]
) -> Known[tuple[MarketFacts, ...]]:
    bodies: list[Body] = []
    for namespace in settings.watch_namespaces or (None,):
        listed = await _list(cluster, MARKET_KIND, namespace)
        if isinstance(listed, Unknown):
            return listed
        bodies += listed
    return tuple(await asyncio.gather(*(_market(cluster, body, chains) for body in bodies)))


async def _market(cluster: Cluster, body: Body, chains: dict[str, Chain]) -> MarketFacts:
    meta = body["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    try:
        spec = parse_part(NosanaMarketSpec, MARKET_KIND, "spec", body.get("spec"))
    except ApiError as error:
        return MarketFacts(
            namespace, name, Unknown(str(error), refused=True), Unknown("its spec is unusable")
        )
    chain = chains.get(spec.network)
    wallets = asyncio.gather(
        *(_wallet(cluster, namespace, wallet.secret_ref, chain) for wallet in spec.wallets)
    )
    account: Known[Market | None] = Unknown(f"the settings have no network {spec.network!r}")
    if chain is not None:
        account = await _account(chain, spec.address)
    return MarketFacts(namespace, name, spec, account, tuple(await wallets))


async def _account(chain: Chain, address: str) -> Known[Market | None]:
    try:
        return await chain.market(address)
    except (NotFound, AccountMalformed, InvalidAddress):
        return None
    except NosanaError as error:
        # A node's refusal too: it says nothing about the market.
        return Unknown(str(error))


async def _wallet(cluster: Cluster, namespace: str, ref: SecretRef, chain: Chain | None) -> WalletFacts:
    label = f"{ref.name}/{ref.key}"
    address = await _address(cluster, namespace, ref)
    if isinstance(address, Unknown) or chain is None:
        unknown = Unknown("its address is unknown" if isinstance(address, Unknown) else "it has no network")
        return WalletFacts(label, address, unknown, unknown)
    state, keys = await asyncio.gather(ask(chain.wallet(address)), ask(chain.access_keys(address)))
    return WalletFacts(label, address, state, keys)


async def _address(cluster: Cluster, namespace: str, ref: SecretRef) -> Known[str]:
    """The address of a key; the key itself does not leave this function."""
    secret = await _get(cluster, "Secret", namespace, ref.name)
    if isinstance(secret, Unknown):
        return Unknown(f"Secret {namespace}/{ref.name} cannot be read: {secret.reason}")
    if secret is None:
        return Unknown(f"Secret {namespace}/{ref.name} does not exist", refused=True)
    encoded = (secret.get("data") or {}).get(ref.key)
    if encoded is None:
        return Unknown(f"Secret {namespace}/{ref.name} has no key {ref.key!r}", refused=True)
    try:
        return Wallet.parse(base64.b64decode(encoded, validate=True)).address
    except (binascii.Error, NosanaError):
        # Without the error's text, which could show the key.
        return Unknown(f"Secret {namespace}/{ref.name} holds no Solana key under {ref.key!r}", refused=True)


def _job_namespace(market: MarketFacts) -> str | None:
    return None if isinstance(market.spec, Unknown) else market.spec.job_namespace
