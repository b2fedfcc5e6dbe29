"""What the job controller needs of the world, a small Protocol an edge; `runtime` plugs the real ones in."""

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
    """The Kubernetes API. Errors are the outcomes of `nosana_operator.errors`.

    An object that a request brings back is in the `Cache` when the request returns, so that a decision never
    acts twice because a watch lags.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        """Raises NotFound."""

    async def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind."""

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Raises Conflict when it exists."""

    async def apply(self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None) -> Body:
        """Server-side apply: `manager` owns exactly the fields of `body`."""

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any] | JsonPatch
    ) -> Body:
        """A mapping is a merge patch (its `metadata.resourceVersion` makes it a compare-and-swap), a list a
        JSON patch; a JSON patch whose test fails raises Refused.
        """

    async def delete(self, kind: str, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        """Not found is fine, and so is another uid."""

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
        """From the log's beginning, or its last lines; `previous`: of the container before its last restart.

        `stream`: of one alone, where the cluster offers that; Refused, or both, where it does not.
        NotFound, Refused: there is none; Unavailable: no answer.
        """


class Cache(Protocol):
    """The watched objects. Bodies are shared: they are read, never changed."""

    def get(self, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object, or None."""

    def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind; used for nodes."""

    def by_index(self, kind: str, label: str, value: str) -> Bodies:
        """All objects of a kind with that label; used for pods by LABEL_JOB_UID."""


class Definitions(Protocol):
    """Where definitions on IPFS come from."""

    async def fetch(self, cid: str) -> bytes:
        """The verified bytes of a CID.

        Raises Unavailable and NotFound when another attempt may succeed, Mismatch when every gateway gave
        other bytes, Refused when the content can never be used (no CID, no file, too large).
        """


class Prober(Protocol):
    """Asks ops over the network. Raises Refused when the op does not answer as it should, Unavailable when it
    was not reached, which says nothing about it.
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
        """The status of the answer; a redirect is one."""

    async def websocket(self, address: str, port: int, *, listen: bool, seconds: float) -> str:
        """Shake hands; with `listen`, the first message that comes."""


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
        """Fire and forget."""


class Metrics(Protocol):
    """Figures that the job controller gives away."""

    def run_to_pod(self, seconds: float) -> None:
        """From seeing a run account to having created its first pod."""

    def start_step(self, step: str, seconds: float) -> None:
        """A job has come to `step` of its start, so long after the step before."""


class Clock(Protocol):
    """Our clock."""

    def now(self) -> datetime:
        """Aware, UTC."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What the operator's settings say to the job controller."""

    cluster: str
    """The cluster's name: `global.host` of private jobs."""
    exposure: Exposure
    """For the fields that a NosanaJob's own exposure leaves out."""
    cluster_domain: str = "cluster.local"
    """Below which the cluster's DNS has the names of Services."""
    isolation: Isolation = field(default_factory=Isolation)
    """What ops may not reach, and who reaches them."""
    storage: Storage = field(default_factory=Storage)
    """What claims of `create-volume` ops ask for."""
    fetching: Fetching = field(default_factory=Fetching)
    """Without an image, definitions with resources are refused."""
