"""What the doctor learned, frozen. Any fact may be `Unknown`: not requested, not answered, or not permitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from nosana_operator.api import NosanaMarketSpec
from nosana_operator.chain import Market, WalletState
from nosana_operator.chain.endpoint_report import EndpointReport
from nosana_operator.doctor.rights import Right
from nosana_operator.kube.server import ServerFacts
from nosana_operator.runtime.settings import NetworkSettings, Settings

T = TypeVar("T")
Body = Mapping[str, Any]
Bodies = tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that the doctor could not learn."""

    reason: str
    """A sentence, or the end of one."""
    refused: bool = False
    """The other side answered: no."""


Known: TypeAlias = T | Unknown

NO_API_SERVER = Unknown("the API server does not answer")


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster. Objects are as the API server returns them; None: the object does not exist."""

    server: Known[ServerFacts]
    crds: Mapping[str, Known[Body | None]] = field(default_factory=dict)
    """The CRDs of both kinds, by name."""
    served: Known[bool] = NO_API_SERVER
    """Whether the API server serves our group and version: unlike the CRDs, everybody may read that."""
    rights: Mapping[Right, Known[bool]] = field(default_factory=dict)
    nodes: Known[Bodies] = NO_API_SERVER
    pods: Known[Bodies] = NO_API_SERVER
    storage_classes: Known[Bodies] = NO_API_SERVER
    ingress_classes: Known[Bodies] = NO_API_SERVER
    dns_services: Known[Bodies] = NO_API_SERVER
    """The Services of the cluster's DNS."""
    nameservers: Known[tuple[str, ...]] = NO_API_SERVER
    """The addresses in a pod's /etc/resolv.conf."""
    namespaces: Mapping[str, Known[Body | None]] = field(default_factory=dict)
    """The job namespaces of the NosanaMarkets."""


@dataclass(frozen=True, slots=True)
class PinFacts:
    """A pin service; `problem` None: it accepts our credentials."""

    url: str
    problem: Unknown | None


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network of the settings; all tuples in the order of the settings."""

    settings: NetworkSettings
    endpoints: tuple[Known[EndpointReport], ...]
    sockets: tuple[Known[float], ...]
    """Seconds until each endpoint reported its first slot."""
    gateways: tuple[Known[float], ...]
    """Seconds until each gateway answered."""
    pins: tuple[PinFacts, ...]
    clock_offset: Known[float]
    """Seconds by which the chain's clock is ahead of ours."""


@dataclass(frozen=True, slots=True)
class WalletFacts:
    """A key of a NosanaMarket: only its address, never the key itself."""

    secret: str
    """`name/key` of the Secret."""
    address: Known[str]
    """Unknown with `refused`: the Secret does not exist or holds no key; the reason says which."""
    state: Known[WalletState]
    access_keys: Known[frozenset[str]]
    """Collections of which the wallet holds a token."""


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """A NosanaMarket."""

    namespace: str
    name: str
    spec: Known[NosanaMarketSpec]
    """Unknown with `refused`: this version cannot read it."""
    account: Known[Market | None]
    """The market account on chain; None: it does not exist."""
    wallets: tuple[WalletFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks read."""

    settings: Settings
    settings_problem: str | None
    """Why the settings file could not be used; then `settings` are the defaults."""
    cluster: ClusterFacts
    networks: Mapping[str, NetworkFacts]
    markets: Known[tuple[MarketFacts, ...]]
