"""The services that the job controller uses, one small Protocol each; `runtime` provides the implementations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from nosana_operator.api import Exposure
from nosana_operator.ports import Body
from nosana_operator.workload import Fetching, Isolation, Storage

Bodies = list[Body]
JsonPatch = list[dict[str, Any]]
LogStream = Literal["Stdout", "Stderr"]
Key = tuple[str, str]
"""(namespace, name) of a NosanaJob."""


class Kube(Protocol):
    """The Kubernetes API. Raises the outcomes of `nosana_operator.errors`.

    An object that a request brings back is in the `Cache` when the request returns, so that a decision never
    acts twice because a watch lags.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        """Raises NotFound."""

    async def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind."""

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Raises Conflict when the object exists."""

    async def apply(self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None) -> Body:
        """Server-side apply: `manager` owns exactly the fields of `body`."""

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any] | JsonPatch
    ) -> Body:
        """Apply a merge patch (a mapping; `metadata.resourceVersion` makes it a compare-and-swap) or a JSON patch
        (a list; a failed test raises Refused).
        """

    async def delete(self, kind: str, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        """Delete the object; one that is gone or has another uid is no error."""

    async def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        timestamps: bool = True,
        limit_bytes: int | None = None,
        tail_lines: int | None = None,
        stream: LogStream | None = None,
    ) -> bytes:
        """The log from its beginning, or its last lines; `previous`: of the run before the last restart.

        `stream` asks for one stream alone. A cluster that cannot separate them raises Refused or returns both.
        Raises NotFound or Refused when there is no log, Unavailable when there is no answer.
        """


class Cache(Protocol):
    """The watched objects. Bodies are shared: read them, never change them."""

    def get(self, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object, or None."""

    def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind; used for nodes."""

    def by_index(self, kind: str, label: str, value: str) -> Bodies:
        """All objects of a kind with that label; used for pods by LABEL_JOB_UID."""


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


class Events(Protocol):
    """The recorder of Kubernetes Events."""

    def event(
        self,
        regarding: Mapping[str, Any],
        *,
        type: Literal["Normal", "Warning"],
        reason: str,
        action: str,
        note: str,
    ) -> None:
        """Record an Event; failures are ignored."""


class Metrics(Protocol):
    """The metrics that the job controller reports."""

    def run_to_pod(self, seconds: float) -> None:
        """The time from the match on chain to the creation of the first pod."""

    def start_step(self, step: str, seconds: float) -> None:
        """A job reached `step` of its start, that long after the previous step."""


class Clock(Protocol):
    """Our clock."""

    def now(self) -> datetime:
        """Aware, UTC."""


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
    storage: Storage = field(default_factory=Storage)
    """The storage that the claims of `create-volume` ops request."""
    fetching: Fetching = field(default_factory=Fetching)
    """How resources are fetched; without an image, definitions with resources are refused."""
