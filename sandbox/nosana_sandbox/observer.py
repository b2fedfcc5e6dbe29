"""Records every version of objects that a watch delivers.

For tests and benchmarks: what was ever there can be counted, and moments are known to the millisecond.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp

from nosana_operator.errors import NosanaError
from nosana_operator.kube import Credentials
from nosana_operator.kube.kinds import Resource

T = TypeVar("T")

_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"
_PATIENCE: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)


class WatchLost(NosanaError):
    """The watch has a gap, so the recorded versions are no longer complete."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One version of an object; `at` is when we heard of it, in unix seconds."""

    at: float
    type: str
    """ADDED, MODIFIED or DELETED; LISTED for what was there at the beginning."""
    body: Mapping[str, Any]


class Observer:
    """Watches kinds in one namespace. Use as a context manager; it is complete from the first listing on."""

    def __init__(
        self,
        credentials: Credentials,
        resources: Sequence[Resource],
        namespace: str,
        *,
        metadata_only: Sequence[str] = (),
    ) -> None:
        """For the kinds in `metadata_only`, only metadata is requested."""
        self._credentials = credentials
        self._resources = resources
        self._namespace = namespace
        self._metadata_only = frozenset(metadata_only)
        self._history: dict[str, list[Seen]] = {resource.kind: [] for resource in resources}
        self._current: dict[str, dict[str, Mapping[str, Any]]] = {r.kind: {} for r in resources}
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = self._credentials.open_session(user_agent="nosana-observer")
        for resource in self._resources:
            version = await self._list(resource)
            self._tasks.append(asyncio.create_task(self._watch(resource, version)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Dropped, and first of all: a watch that is given back in good order waits for the server's farewell,
        # and nobody waits for that.
        if self._session.connector is not None:
            await self._session.connector.close(abort_ssl=True)
        await self._session.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def history(self, kind: str) -> Sequence[Seen]:
        """Every version of every object, in the order in which they came."""
        return self._history[kind]

    def current(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """The objects that are there now, by name."""
        return self._current[kind]

    async def until(self, condition: Callable[[], T | None], timeout: float, what: str) -> T:
        """Wait until `condition` gives something true; it is asked after each change.

        Raises TimeoutError naming `what` after `timeout` seconds, WatchLost when a watch has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._changed.clear()
            found = condition()
            if found:
                return found
            for task in self._tasks:
                if task.done():
                    task.result()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"waited {timeout:g} s in vain until {what}")
            try:
                async with asyncio.timeout(remaining):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _list(self, resource: Resource) -> str:
        async with self._session.get(
            resource.path(self._namespace), headers=self._headers(resource, "List")
        ) as response:
            response.raise_for_status()
            page = await response.json(content_type=None)
        # A list of metadata alone says null where there is nothing.
        for item in page["items"] or ():
            self._take(resource.kind, "LISTED", item)
        return str(page["metadata"]["resourceVersion"])

    async def _watch(self, resource: Resource, version: str) -> None:
        while True:
            params = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            async with self._session.get(
                resource.path(self._namespace),
                params=params,
                headers=self._headers(resource, ""),
                timeout=_PATIENCE,
            ) as response:
                response.raise_for_status()
                async for line in _lines(response):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise WatchLost(f"the watch of {resource.plural} broke: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._take(resource.kind, event["type"], event["object"])

    def _take(self, kind: str, type_: str, body: Mapping[str, Any]) -> None:
        self._history[kind].append(Seen(time.time(), type_, body))
        name = body["metadata"]["name"]
        if type_ == "DELETED":
            self._current[kind].pop(name, None)
        else:
            self._current[kind][name] = body
        self._changed.set()

    def _headers(self, resource: Resource, suffix: str) -> dict[str, str]:
        if resource.kind not in self._metadata_only:
            return {}
        return {"Accept": _METADATA_ONLY.format(list=suffix)}


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Lines of any length: an object may be larger than what aiohttp takes for one."""
    rest = b""
    async for data in response.content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
