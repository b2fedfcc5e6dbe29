"""The doctor's ports over the real services."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import aiohttp

from nosana_operator.api import GROUP, PLURALS, VERSION
from nosana_operator.chain import ChainClient, Market, Retry, WalletState
from nosana_operator.chain.endpoint_report import EndpointReport, report_endpoint, time_websocket
from nosana_operator.content.service_check import check_gateway, check_pin_service
from nosana_operator.doctor.rights import Right
from nosana_operator.errors import NotFound, Unavailable
from nosana_operator.kube import CORE_KINDS, KubeClient, Resource
from nosana_operator.kube.server import ServerFacts, ask_server
from nosana_operator.runtime.networks import chain_network
from nosana_operator.runtime.result_pins import pin_token
from nosana_operator.runtime.settings import NetworkSettings, PinSettings

_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_REVIEW: Final = "SelfSubjectAccessReview"
KINDS: Final = {
    **CORE_KINDS,
    **{kind: Resource(kind, GROUP, VERSION, plural) for kind, plural in PLURALS.items()},
    "IngressClass": Resource("IngressClass", "networking.k8s.io", "v1", "ingressclasses", namespaced=False),
    _REVIEW: Resource(_REVIEW, "authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False),
}
_RETRY: Final = Retry(attempts=2, request_timeout=5.0)


class LiveCluster:
    """`ports.Cluster` over a session that signs in (`Credentials.open_session`)."""

    def __init__(self, session: aiohttp.ClientSession, namespace: str) -> None:
        self._session = session
        self.namespace = namespace
        self._kube = KubeClient(session, kinds=KINDS)

    async def server(self) -> ServerFacts:
        """See `Cluster.server`."""
        return await ask_server(self._session)

    async def served(self, group: str, version: str) -> bool:
        """See `Cluster.served`."""
        try:
            await self._kube.read_path(f"/apis/{group}/{version}")
        except NotFound:
            return False
        return True

    async def may(self, right: Right) -> bool:
        """See `Cluster.may`."""
        attributes = {"group": right.group, "resource": right.resource, "verb": right.verb}
        if right.subresource:
            attributes["subresource"] = right.subresource
        if right.namespace is not None:
            attributes["namespace"] = right.namespace
        if right.object_name is not None:
            attributes["name"] = right.object_name
        review = await self._kube.create(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": _REVIEW,
                "metadata": {},
                "spec": {"resourceAttributes": attributes},
            }
        )
        return bool(review["status"].get("allowed"))

    async def nameservers(self) -> tuple[str, ...]:
        """See `Cluster.nameservers`. The chart's pods have Kubernetes' default DNS policy, as the pods of jobs do."""
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            raise Unavailable("the doctor does not run in a pod of the cluster")
        lines = (line.split() for line in _RESOLV_CONF.read_text(encoding="utf-8").splitlines())
        return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        """See `Cluster.get`."""
        return await self._kube.get(kind, namespace, name)

    async def list(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """See `Cluster.list`."""
        return await self._kube.list(kind, namespace)


class LiveChain:
    """`ports.Chain` over a network of the settings."""

    def __init__(self, settings: NetworkSettings, http: aiohttp.ClientSession) -> None:
        self._http = http
        network = chain_network(settings)
        self._programs = network.programs
        self._client = ChainClient(network, http, retry=_RETRY)

    async def endpoint(self, url: str) -> EndpointReport:
        """See `Chain.endpoint`."""
        return await report_endpoint(url, self._http, self._programs)

    async def socket(self, url: str) -> float:
        """See `Chain.socket`."""
        return await time_websocket(url, self._http)

    async def clock_offset(self) -> float:
        """See `Chain.clock_offset`."""
        return await self._client.measure_clock() - time.time()

    async def market(self, address: str) -> Market:
        """See `Chain.market`."""
        return await self._client.fetch_market(address)

    async def wallet(self, address: str) -> WalletState:
        """See `Chain.wallet`."""
        return await self._client.fetch_wallet_state(address)

    async def access_keys(self, address: str) -> frozenset[str]:
        """See `Chain.access_keys`."""
        return frozenset(await self._client.find_access_keys(address))


class LiveIpfs:
    """`ports.Ipfs` over HTTP."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def gateway(self, url: str) -> float:
        """See `Ipfs.gateway`."""
        return await check_gateway(url, self._http)

    async def pin_service(self, pin: PinSettings) -> None:
        """See `Ipfs.pin_service`. Raises SettingsError when the token file cannot be read."""
        await check_pin_service(pin.type, pin.url, pin_token("pin", pin), self._http)


class LiveWorld:
    """`ports.World`."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.ipfs = LiveIpfs(http)

    def chain(self, network: NetworkSettings) -> LiveChain:
        """See `World.chain`."""
        return LiveChain(network, self._http)
