"""The services that the job controller uses, one small Protocol each; `runtime` provides the implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nosana_operator import ports
from nosana_operator.api import Exposure
from nosana_operator.api.placement import NodeSettings
from nosana_operator.ports import Bodies as Bodies
from nosana_operator.ports import Cache as Cache
from nosana_operator.ports import Clock as Clock
from nosana_operator.ports import Events as Events
from nosana_operator.ports import JsonPatch as JsonPatch
from nosana_operator.ports import LogStream as LogStream
from nosana_operator.workload import Fetching, Isolation, Storage

Key = tuple[str, str]
"""(namespace, name) of a NosanaJob."""


class Kube(ports.Kube, ports.LogReader, Protocol):
    """The Kubernetes API, and the logs of ops."""


class Definitions(Protocol):
    """Fetches definitions from IPFS."""

    async def fetch(self, cid: str) -> bytes:
        """The verified bytes of a CID.

        Raises Unavailable and NotFound when another attempt may succeed, Mismatch when every gateway returned
        other bytes, Refused when the content can never be used (not a CID, not a file, too large).
        """


class Prober(Protocol):
    """Sends health checks to ops. Raises Refused when the op answers wrongly, Unavailable when it was not reached,
    which says nothing about its health.
    """

    async def http(
        self,
        address: str,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> int:
        """The status of the answer; redirects are not followed."""

    async def websocket(self, address: str, port: int, *, listen: bool, seconds: float) -> str:
        """Complete the handshake; with `listen`, return the first message."""


class Metrics(Protocol):
    """The metrics that the job controller reports."""

    def run_to_pod(self, seconds: float) -> None:
        """The time from the match on chain to the creation of the first pod."""

    def start_step(self, step: str, seconds: float) -> None:
        """A job reached `step` of its start, that long after the previous step."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The operator's settings for the job controller."""

    cluster: str
    """The cluster's name: `global.host` of private jobs."""
    exposure: Exposure
    """The defaults for fields that a NosanaJob's own exposure leaves out."""
    cluster_domain: str = "cluster.local"
    """The domain below which the cluster's DNS serves the names of Services."""
    isolation: Isolation = field(default_factory=Isolation)
    """The addresses that ops may not reach, and who may reach the ops."""
    nodes: NodeSettings = field(default_factory=NodeSettings)
    """The nodes that ops run on."""
    storage: Storage = field(default_factory=Storage)
    """The storage that the claims of `create-volume` ops request."""
    fetching: Fetching = field(default_factory=Fetching)
    """How resources are fetched; without an image, definitions with resources are refused."""
