"""Watches the cluster through kopf's event handlers, and keeps the object cache up to date.

What kopf does not do is done here; each point was measured or read in kopf's source
(docs/decisions/0003-what-a-watch-does-not-tell.md):

- A watch that breaks and lists again reports no deletions of the time between (seen after a restart of the API
  server). So a sweep over the metadata follows each of kopf's listings, and each outage, and finds them.
- Nothing reports that the first listing is complete. So `sync()` lists everything first, which also turns a missing
  right into a clear error, and kopf continues from there.
- kopf leaves out a kind that it did not discover, with a mere warning, and never looks again. So `run()` checks that
  every watch has begun, and raises when a kind is no longer served.
- kopf ends after a number of failed requests. Here it repeats them without end, because an outage of the API is no
  reason to stop, and a restart would not cure it.
- Nothing reports that etcd was restored from a backup. Resource versions show it, and the process then ends.
- kopf takes over SIGTERM, and at its end cancels tasks that it did not start. Both are undone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import aiohttp
import kopf

from nosana_operator.errors import NosanaError, NotFound
from nosana_operator.kube import Credentials, ObjectCache, Resource, Snapshot
from nosana_operator.ports import Body
from nosana_operator.runtime.errors import WatchEnded

log = logging.getLogger(__name__)


_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_BACKOFFS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_STOP_SECONDS = 10.0
_SWEEP_AGAIN_SECONDS = 10.0
_LISTINGS_TO_BE_SURE = 2


@dataclass(frozen=True, slots=True)
class Change:
    """An object was added, changed or deleted; `body` is its newest version, untrimmed."""

    kind: str
    body: Body
    deleted: bool = False


class Lister(Protocol):
    """The part of the client that listing needs (`KubeClient`)."""

    async def snapshot(
        self, kind: str, namespace: str | None = None, *, metadata_only: bool = False
    ) -> Snapshot:
        """All objects of a kind as of one resource version."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Kinds that are watched in the same namespaces; empty: all namespaces."""

    resources: tuple[Resource, ...]
    namespaces: tuple[str, ...] = ()


class ClusterView:
    """Keeps an `ObjectCache` up to date and calls `on_change` for every change.

    `on_change` is called on the event loop and must not block; an error in it ends `run()`, because a lost event is
    worse than a restart. `on_signals` is called whenever kopf has replaced the process' signal handlers, to restore
    ours.
    """

    def __init__(
        self,
        scopes: Sequence[Scope],
        *,
        cache: ObjectCache,
        lister: Lister,
        credentials: Credentials,
        on_change: Callable[[Change], None],
        on_signals: Callable[[], None] = lambda: None,
        on_event: Callable[[str, str | None], None] = lambda kind, type_: None,
        sweep_seconds: float = 300.0,
        begin_seconds: float = 30.0,
    ) -> None:
        self._scopes = tuple(scopes)
        self._cache = cache
        self._lister = lister
        self._credentials = credentials
        self._on_change = on_change
        self._on_signals = on_signals
        self._on_event = on_event
        self._sweep_seconds = sweep_seconds
        self._begin_seconds = begin_seconds
        self._begun: set[str] = set()
        """URL paths that kopf has begun to watch."""
        self._heard: dict[str, float] = {}
        """When a watch last received something, by URL path, in seconds of the event loop."""
        self._unswept: set[str] = set()
        """URL paths that kopf listed, or could not reach meanwhile, and that no sweep has covered yet."""
        self._unreachable: set[str] = set()
        """URL paths whose last request got no answer."""
        self._sweep_requested = asyncio.Event()
        self._broken: asyncio.Future[None] | None = None
        self.synced = False
        """Whether everything that existed at the start is in the cache."""

    @property
    def silence(self) -> Mapping[str, float]:
        """Seconds since the watches of a kind last received anything; with several, the longest.

        The API server sends a bookmark about every minute when nothing happens.
        """
        now = asyncio.get_running_loop().time()
        ages: dict[str, float] = {}
        for path, resource, _ in self._paths():
            if path in self._heard:
                ages[resource.kind] = max(ages.get(resource.kind, 0.0), now - self._heard[path])
        return ages

    async def sync(self, kinds: Collection[str] | None = None) -> None:
        """List everything, or these kinds, into the cache.

        Raises what the listing raises (Refused: a right is missing).
        """
        for scope in self._scopes:
            for resource in scope.resources:
                if kinds is not None and resource.kind not in kinds:
                    continue
                for namespace in scope.namespaces or (None,):
                    snapshot = await self._lister.snapshot(resource.kind, namespace)
                    for body in snapshot.items:
                        self._cache.put(body)
                        self._on_change(Change(resource.kind, body))
        self.synced = True

    async def run(self) -> None:
        """Watch until cancelled; call it after `sync()`. Ends with an error only."""
        self._broken = asyncio.get_running_loop().create_future()
        tasks: list[asyncio.Future[None]] = [
            asyncio.create_task(self._watch(scope), name=f"watch {'/'.join(scope.namespaces) or 'cluster'}")
            for scope in self._scopes
        ]
        tasks.append(asyncio.create_task(self._check_begun(), name="check of the watches"))
        tasks.append(asyncio.create_task(self._sweep_forever(), name="sweep"))
        try:
            await asyncio.wait([*tasks, self._broken], return_when=asyncio.FIRST_COMPLETED)
            for task in (*tasks, self._broken):
                if task.done():
                    task.result()
            raise WatchEnded("The watches ended without an error; the operator restarts.")
        finally:
            self._broken.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_STOP_SECONDS)

    async def sweep(self) -> int:
        """Remove objects from the cache whose deletion no event reported. Returns how many."""
        return await self._sweep([(r, scope.namespaces) for scope in self._scopes for r in scope.resources])

    async def _sweep(self, kinds: Sequence[tuple[Resource, tuple[str, ...]]]) -> int:
        return sum([await self._sweep_kind(resource, namespaces) for resource, namespaces in kinds])

    async def _sweep_kind(self, resource: Resource, namespaces: tuple[str, ...]) -> int:
        alive: set[str] = set()
        as_of: list[str] = []
        for namespace in namespaces or (None,):
            snapshot = await self._list_forward(resource.kind, namespace)
            alive.update(item["metadata"]["uid"] for item in snapshot.items)
            as_of.append(snapshot.resource_version)
        # The oldest of the listings: the absence of an object that is younger proves nothing.
        oldest = min(as_of, key=lambda version: int(version) if version.isdigit() else 0)
        gone = self._cache.retain(resource.kind, alive, as_of=oldest)
        for body in gone:
            self._on_change(Change(resource.kind, body, deleted=True))
        if gone:
            log.info("A sweep found %d deletions of %s that the watch had missed", len(gone), resource.kind)
        return len(gone)

    async def _list_forward(self, kind: str, namespace: str | None) -> Snapshot:
        """The metadata of a kind. Raises WatchEnded when the API server's storage went back in time.

        Then everything in this process is of a past that no longer happened: the cache, which would refuse what
        is older than it knows, and the memory of both loops. A new process reads everything again.
        """
        for _ in range(_LISTINGS_TO_BE_SURE):
            horizon = self._cache.horizon(kind)
            snapshot = await self._lister.snapshot(kind, namespace, metadata_only=True)
            if not horizon.is_ahead_of(snapshot.items, snapshot.resource_version):
                return snapshot
        raise WatchEnded(
            f"The resource versions of {kind} went back to {snapshot.resource_version}, as after a restore of etcd "
            "from a backup; the operator restarts and reads everything again."
        )

    async def _sweep_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._sweep_seconds):
                    await self._sweep_requested.wait()
            except TimeoutError:
                self._unswept = {path for path, _, _ in self._paths()}
            self._sweep_requested.clear()
            listed, self._unswept = self._unswept, set()
            kinds = dict.fromkeys((r, namespaces) for path, r, namespaces in self._paths() if path in listed)
            try:
                await self._sweep(tuple(kinds))
            except NotFound as error:
                raise WatchEnded(
                    f"A watched kind is no longer served; the operator restarts: {error}"
                ) from error
            except WatchEnded:
                raise
            except NosanaError as error:
                log.warning("The sweep for missed deletions failed and is repeated: %s", error)
                self._unswept |= listed
                asyncio.get_running_loop().call_later(_SWEEP_AGAIN_SECONDS, self._sweep_requested.set)

    def take(self, resource: Resource, type_: str | None, body: Body) -> None:
        """Handle one watch event; `type_` None: an object from a listing."""
        self._on_event(resource.kind, type_)
        body["kind"] = resource.kind
        body["apiVersion"] = resource.api_version
        if type_ == "DELETED":
            self._cache.forget(resource.kind, body)
            self._on_change(Change(resource.kind, body, deleted=True))
            return
        metadata = body["metadata"]
        if not self._cache.put(body):
            cached = self._cache.get(resource.kind, metadata.get("namespace"), metadata["name"])
            if cached is None or cached["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                return
            # The reply to our own write put this version into the cache first: the other loop does not know it yet.
        self._on_change(Change(resource.kind, body))

    async def _check_begun(self) -> None:
        await asyncio.sleep(self._begin_seconds)
        missing = {path for path, _, _ in self._paths()} - self._begun
        if missing:
            raise WatchEnded(f"No watch was begun on {', '.join(sorted(missing))}; the operator restarts.")
        await asyncio.get_running_loop().create_future()

    def _paths(self) -> Iterator[tuple[str, Resource, tuple[str, ...]]]:
        """Each collection that kopf lists and watches: its URL path, its kind, the kind's namespaces."""
        for scope in self._scopes:
            for resource in scope.resources:
                for namespace in scope.namespaces or (None,):
                    yield resource.path(namespace), resource, scope.namespaces

    async def _note_request(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Middleware of kopf's aiohttp sessions, which sees its listings and watches."""
        path = request.url.raw_path
        try:
            response = await handler(request)
        except aiohttp.ClientError:
            self._unreachable.add(path)
            raise
        if request.method == "GET" and response.status == 200:
            if request.url.query.get("watch") == "true":
                self._begun.add(path)
                if path in self._unreachable:
                    # kopf resumes at the version that it saw last. Whether that still exists, a sweep shows.
                    self._unreachable.discard(path)
                    self._request_sweep(path)
                self._note_heard(path)
                response.content = _Overheard(response.content, partial(self._note_heard, path))  # type: ignore[assignment]
            elif any(path == collection for collection, _, _ in self._paths()):
                self._request_sweep(path)
        return response

    def _request_sweep(self, path: str) -> None:
        self._unswept.add(path)
        self._sweep_requested.set()

    def _note_heard(self, path: str) -> None:
        self._heard[path] = asyncio.get_running_loop().time()

    async def _watch(self, scope: Scope) -> None:
        registry = kopf.OperatorRegistry()
        sessions: list[aiohttp.ClientSession] = []
        self._register_login(registry, sessions)
        for resource in scope.resources:
            self._register(registry, resource)
        stop = asyncio.Event()
        try:
            tasks = await kopf.spawn_tasks(
                registry=registry,
                settings=_kopf_settings(),
                standalone=True,
                # Peers are not used. Without this, kopf looks up the user name of our uid, and in a pod it has none.
                identity="nosana-operator",  # type: ignore[arg-type]
                clusterwide=not scope.namespaces,
                namespaces=scope.namespaces,
                stop_flag=stop,
            )
            self._on_signals()
            await kopf.run_tasks(tasks, ignored=_EveryTask())
        finally:
            # Tells kopf that the end is intended; otherwise it sends this process SIGKILL some time later.
            stop.set()
            for session in sessions:
                await session.close()

    def _register(self, registry: kopf.OperatorRegistry, resource: Resource) -> None:
        # `type` and `object` are in one argument; kopf derives the others from it, and they stay unused.
        @kopf.on.event(  # type: ignore[arg-type]
            resource.group, resource.version, resource.plural, registry=registry, id=resource.plural
        )
        async def handle(event: dict[str, Any], **_: Any) -> None:
            try:
                self.take(resource, event["type"], event["object"])
            # kopf logs and drops a handler's error, and the event would be lost.
            except Exception as error:  # noqa: BLE001 - run() raises it
                if self._broken is not None and not self._broken.done():
                    self._broken.set_exception(error)

    def _register_login(self, registry: kopf.OperatorRegistry, sessions: list[aiohttp.ClientSession]) -> None:
        logins = 0

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            # The session renews its token by itself. A second login means that the server refuses the current one,
            # so back off instead of repeating it at once.
            nonlocal logins
            if logins:
                await asyncio.sleep(_BACKOFFS[min(logins, len(_BACKOFFS)) - 1])
            logins += 1
            session = self._credentials.open_session(
                user_agent="nosana-operator (watch)", middlewares=(self._note_request,)
            )
            sessions.append(session)
            return kopf.AiohttpSession(aiohttp_session=session, server=self._credentials.server)


class _Overheard:
    """A response stream that reports when data arrives: kopf does not pass on bookmarks, the signs of life."""

    def __init__(self, stream: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._stream = stream
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """The method by which kopf reads a watch."""
        async for chunk in self._stream.iter_chunked(size):
            self._heard()
            yield chunk


class _EndlessBackoff:
    """Delays between repeated requests, without end."""

    def __iter__(self) -> Iterator[float]:
        yield from _BACKOFFS
        while True:
            yield _BACKOFFS[-1]


class _EveryTask(Collection["asyncio.Task[Any]"]):
    """Contains every task: kopf takes any task that it does not know for a hung one of its own, and cancels it."""

    def __contains__(self, task: object) -> bool:
        return True

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = _REQUEST_SECONDS
    settings.networking.connect_timeout = _CONNECT_SECONDS
    settings.networking.error_backoffs = _EndlessBackoff()
    settings.networking.enforce_retry_after = True
    settings.watching.connect_timeout = _CONNECT_SECONDS
    # kopf keeps a worker per object for this long after an event: with thousands of pods that is memory.
    settings.queueing.idle_timeout = 1.0
    settings.process.ultimate_exiting_timeout = None
    return settings


async def wait_for_kinds(
    read_path: Callable[[str], Awaitable[bytes]],
    resources: Sequence[Resource],
    *,
    poll_seconds: float = 5.0,
    on_missing: Callable[[str], None] = lambda text: None,
) -> None:
    """Wait until the API server serves all of `resources`: kopf never looks again for one that it did not find.

    `on_missing` is called after each try with what is missing.
    """
    while True:
        missing: list[str] = []
        for group, version in sorted({(r.group, r.version) for r in resources}):
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            try:
                served = {entry["name"] for entry in json.loads(await read_path(path))["resources"]}
            except NotFound:
                served = set()
            missing += [
                f"{r.plural}.{r.group}/{r.version}"
                for r in resources
                if (r.group, r.version) == (group, version) and r.plural not in served
            ]
        if not missing:
            return
        on_missing(", ".join(missing))
        await asyncio.sleep(poll_seconds)
