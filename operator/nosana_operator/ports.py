"""What both loops and the commands need of the world: one small Protocol for each edge.

A room that needs less declares less; a room that needs more extends these (`jobs/ports.py`, `market/ports.py`).
`runtime` passes in the implementations.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

Body = dict[str, Any]
"""A Kubernetes object as plain data."""
Bodies = list[Body]
JsonPatch = list[dict[str, Any]]
LogStream = Literal["Stdout", "Stderr"]


class Kube(Protocol):
    """The Kubernetes API. Raises the outcomes of `nosana_operator.errors`.

    An object that a request brings back is in the `Cache` when the request returns, so that a decision never
    acts twice because a watch lags.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        """Raises NotFound."""

    async def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind, in one namespace or in all."""

    async def create(self, body: Mapping[str, Any]) -> Body:
        """Raises Conflict when the name is taken, Unavailable when nobody knows whether it was created."""

    async def apply(self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None) -> Body:
        """Server-side apply: `manager` owns exactly the fields of `body`; a `metadata.resourceVersion` in it makes
        it a compare-and-swap (Conflict).
        """

    async def patch(
        self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any] | JsonPatch
    ) -> Body:
        """Apply a merge patch (a mapping; `metadata.resourceVersion` makes it a compare-and-swap) or a JSON patch
        (a list; a failed test raises Refused).
        """

    async def delete(self, kind: str, namespace: str | None, name: str, *, uid: str | None = None) -> None:
        """Delete the object; one that is gone or has another uid is no error."""


class LogReader(Protocol):
    """The logs of containers."""

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
        """The log from its beginning, or its last lines; `previous`: of the container before its last restart.

        `stream` asks for one stream alone; a cluster that does not offer that refuses, or gives both.
        NotFound, Refused: there is no log; Unavailable: no answer.
        """


class Cache(Protocol):
    """The watched objects. Bodies are shared: read them, never change them."""

    def get(self, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object, or None."""

    def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind, in one namespace or in all."""

    def by_index(self, kind: str, label: str, value: str) -> Bodies:
        """All objects of a kind with that label, which has to be an index of the kind."""


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
        """Queue an Event about an object; nobody waits for it, and its failure is only logged."""


class Clock(Protocol):
    """Our clock."""

    def now(self) -> datetime:
        """Aware, UTC."""
