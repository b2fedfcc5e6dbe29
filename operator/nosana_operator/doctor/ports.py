"""The services that the doctor queries. Every method raises one of the four outcomes of `errors.py`."""

from __future__ import annotations

from typing import Protocol

from nosana_operator.chain import Market, WalletState
from nosana_operator.chain.endpoint_report import EndpointReport
from nosana_operator.doctor.rights import Right
from nosana_operator.kube.server import ServerFacts
from nosana_operator.ports import Body
from nosana_operator.runtime.settings import NetworkSettings, PinSettings


class Cluster(Protocol):
    """The Kubernetes API."""

    @property
    def namespace(self) -> str:
        """The pod's namespace, or that of the kubeconfig's context."""

    async def server(self) -> ServerFacts:
        """Version and clock."""

    async def served(self, group: str, version: str) -> bool:
        """Whether the API server serves that version of a group."""

    async def may(self, right: Right) -> bool:
        """Whether the user that the doctor signs in as has a right."""

    async def nameservers(self) -> tuple[str, ...]:
        """The addresses in a pod's /etc/resolv.conf; raises Unavailable when the doctor runs outside a pod."""

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        """One object; raises NotFound."""

    async def list(self, kind: str, namespace: str | None = None) -> list[Body]:
        """All objects of a kind."""


class Chain(Protocol):
    """One network of Solana."""

    async def endpoint(self, url: str) -> EndpointReport:
        """What one RPC endpoint answers."""

    async def socket(self, url: str) -> float:
        """Seconds until a WebSocket endpoint reported a slot."""

    async def clock_offset(self) -> float:
        """Seconds by which the chain's clock is ahead of ours."""

    async def market(self, address: str) -> Market:
        """A market account; raises NotFound, AccountMalformed or InvalidAddress when it does not exist."""

    async def wallet(self, address: str) -> WalletState:
        """A wallet's balances and stake."""

    async def access_keys(self, address: str) -> frozenset[str]:
        """Collections of which a wallet holds a token."""


class Ipfs(Protocol):
    """Gateways and pin services."""

    async def gateway(self, url: str) -> float:
        """Seconds until a gateway answered."""

    async def pin_service(self, pin: PinSettings) -> None:
        """Return when the service accepts our credentials; raises Refused when it does not."""


class World(Protocol):
    """The services outside the cluster."""

    @property
    def ipfs(self) -> Ipfs:
        """IPFS."""

    def chain(self, network: NetworkSettings) -> Chain:
        """The chain of a network."""
