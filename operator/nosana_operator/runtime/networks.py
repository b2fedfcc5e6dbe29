"""The networks of the settings, behind the market host's Protocols: one chain client, pinner and poster client each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from nosana_operator.chain import (
    ChainClient,
    Network,
    Programs,
)
from nosana_operator.content import (
    IpfsGateways,
    PosterClient,
)
from nosana_operator.runtime.result_pins import ResultPinner, make_pinners, result_gateways
from nosana_operator.runtime.settings import NetworkSettings
from nosana_operator.runtime.solana_network import SolanaNetwork

OnChange = Callable[[str, str, str], None]
"""(network, kind, address): what changed."""
OnTransaction = Callable[[str, str, str, int], None]
"""(network, kind, outcome, fee): see `chain.client.OnTransaction`."""


@dataclass(frozen=True, slots=True)
class _Entry:
    solana: SolanaNetwork
    pinner: ResultPinner
    posters: PosterClient


class ConfiguredNetworks:
    """`market.ports.Networks` from the settings. Each network's chain client has to run: see `background`."""

    def __init__(
        self,
        settings: Mapping[str, NetworkSettings],
        http: aiohttp.ClientSession,
        *,
        observer: Callable[[str, str, float], None],
        on_change: OnChange,
        on_transaction: OnTransaction = lambda network, kind, outcome, fee: None,
        own_ranges: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """`own_ranges`: addresses that no poster's endpoint may have, the cluster's own."""
        self._entries = {
            name: _Entry(
                SolanaNetwork(
                    _client(network, http, observer, partial(on_transaction, name)),
                    account_rent=network.account_rent,
                ),
                ResultPinner(make_pinners(name, network.ipfs, http), result_gateways(network.ipfs, http)),
                PosterClient(own_ranges, allow_insecure=network.allow_insecure_logistics),
            )
            for name, network in settings.items()
        }
        for name, entry in self._entries.items():
            entry.solana.client.watcher.on_change(partial(on_change, name))

    @property
    def background(self) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        """The tasks that have to run while the loops do, by name."""
        return [(f"chain {name}", entry.solana.client.run) for name, entry in self._entries.items()]

    @property
    def clients(self) -> dict[str, ChainClient]:
        """Each network's chain client, by the network's name."""
        return {name: entry.solana.client for name, entry in self._entries.items()}

    def names(self) -> list[str]:
        """See `Networks.names`."""
        return sorted(self._entries)

    def chain(self, network: str) -> SolanaNetwork | None:
        """See `Networks.chain`."""
        entry = self._entries.get(network)
        return entry.solana if entry else None

    def pinner(self, network: str) -> ResultPinner | None:
        """See `Networks.pinner`."""
        entry = self._entries.get(network)
        return entry.pinner if entry else None

    def posters(self, network: str) -> PosterClient | None:
        """See `Networks.posters`."""
        entry = self._entries.get(network)
        return entry.posters if entry else None


def definition_gateways(settings: Mapping[str, NetworkSettings], http: aiohttp.ClientSession) -> IpfsGateways:
    """The gateways of all networks, from which definitions are fetched; the bytes are verified."""
    urls = dict.fromkeys(url for network in settings.values() for url in network.ipfs.gateways)
    return IpfsGateways(tuple(urls), http)


def _client(
    network: NetworkSettings,
    http: aiohttp.ClientSession,
    observer: Callable[[str, str, float], None],
    on_transaction: Callable[[str, str, int], None],
) -> ChainClient:
    return ChainClient(chain_network(network), http, observer=observer, on_transaction=on_transaction)


def chain_network(settings: NetworkSettings) -> Network:
    """A network of the settings as `chain` takes it."""
    return Network(
        rpc_urls=settings.rpc,
        ws_urls=settings.ws,
        programs=Programs(
            jobs=settings.program,
            nos_mint=settings.nos_mint,
            staking=settings.staking_program,
            rewards=settings.rewards_program,
        ),
        fees=settings.fees,
        requests_per_second=settings.requests_per_second or None,
    )
