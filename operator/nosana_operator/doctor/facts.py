"""What was found out, frozen. Everything may be `Unknown`: not asked, not answered, or not for us to ask."""

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
    """It was not found out."""

    why: str
    """A sentence, or the end of one."""
    refused: bool = False
    """There was an answer: no."""


Known: TypeAlias = T | Unknown

NOT_ASKED = Unknown("the API server does not answer")


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster. Objects are as the API server gives them; None is "there is no such thing"."""

    server: Known[ServerFacts]
    crds: Mapping[str, Known[Body | None]] = field(default_factory=dict)
    """By name, of both kinds."""
    served: Known[bool] = NOT_ASKED
    """Whether our group and version are served at all: the part of it that everybody may see."""
    rights: Mapping[Right, Known[bool]] = field(default_factory=dict)
    nodes: Known[Bodies] = NOT_ASKED
    pods: Known[Bodies] = NOT_ASKED
    storage_classes: Known[Bodies] = NOT_ASKED
    ingress_classes: Known[Bodies] = NOT_ASKED
    namespaces: Mapping[str, Known[Body | None]] = field(default_factory=dict)
    """Those that NosanaMarkets name for their jobs."""


@dataclass(frozen=True, slots=True)
class PinFacts:
    """A pin service; `answer` None: it takes our credentials."""

    url: str
    answer: Unknown | None


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """A network of the settings; all tuples in the order of the settings."""

    settings: NetworkSettings
    endpoints: tuple[Known[EndpointReport], ...]
    sockets: tuple[Known[float], ...]
    """Seconds until the first slot was told."""
    gateways: tuple[Known[float], ...]
    """Seconds until it answered."""
    pins: tuple[PinFacts, ...]
    clock_offset: Known[float]
    """Seconds by which the chain's clock is ahead of ours."""


@dataclass(frozen=True, slots=True)
class WalletFacts:
    """A key of a NosanaMarket. The key itself is not here: only its address."""

    secret: str
    """`name/key` of the Secret."""
    address: Known[str]
    """Unknown with `refused`: the Secret was read, and is not there or holds no key; the sentence says it."""
    state: Known[WalletState]
    access_keys: Known[frozenset[str]]
    """Collections of which it holds a token."""


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """A NosanaMarket."""

    namespace: str
    name: str
    spec: Known[NosanaMarketSpec]
    """Unknown with `refused`: it is there, and cannot be read by this version."""
    account: Known[Market | None]
    """The market on chain; None: there is none."""
    wallets: tuple[WalletFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it."""

    settings: Settings
    settings_problem: str | None
    """Why the settings file is not used; then `settings` are the defaults."""
    cluster: ClusterFacts
    networks: Mapping[str, NetworkFacts]
    markets: Known[tuple[MarketFacts, ...]]
