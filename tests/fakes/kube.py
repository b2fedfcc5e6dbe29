"""A Kubernetes API in memory, for controller tests: the semantics that the operator relies on, no more.

Server-side apply with field ownership per manager (list maps by their keys), optimistic concurrency, status
subresources, finalizers and deletion, owner references, merge and JSON patches, watch callbacks. It refuses
what the API server refuses: `admission`, for what a test puts there by hand too. Every
request is recorded, and `interrupt` may raise before or after any of them takes effect.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from fakes.admission import refusals
from nosana_operator.errors import Conflict, NotFound, Refused

Body = dict[str, Any]
Bodies = list[Body]
JsonPatch = list[Any]
Key = tuple[str, str | None, str]
Path = tuple[Any, ...]
Watcher = Callable[[str, Body, bool], None]
"""(kind, body, deleted)."""

_STATUS_KINDS = {"NosanaJob", "NosanaMarket", "Pod", "Node"}
_CLUSTER_KINDS = {"Node", "Namespace", "CustomResourceDefinition", "StorageClass"}
_LIST_MAPS = {
    ("status", "conditions"): "type",
    ("status", "ops"): "index",
    ("status", "endpoints"): "id",
    ("status", "wallets"): "secret",
    ("status", "transactions"): "signature",
}
_SETS = {("metadata", "finalizers")}
_SYSTEM = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


class FakeNotFound(NotFound):
    """404."""


class FakeConflict(Conflict):
    """409."""


class FakeRefused(Refused):
    """422."""


class InvalidFixture(AssertionError):
    """What a test put there by hand could not be in a cluster."""


@dataclass(frozen=True)
class Request:
    """One request as it was made."""

    verb: str
    kind: str
    name: str
    subresource: str | None = None
    body: Any = None


@dataclass(frozen=True)
class _Item:
    """Path element: the item of a list map with that key."""

    key: Any


@dataclass
class FakeKube:
    """The API. `interrupt(request, when)` is awaited before and after each request takes effect."""

    now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC)
    interrupt: Callable[[Request, Literal["before", "after"]], Awaitable[None]] | None = None
    requests: list[Request] = field(default_factory=list)
    logs: dict[tuple[str, str], bytes | Exception] = field(default_factory=dict)
    """(namespace, pod) → what the kubelet has, or what reading it raises."""
    _objects: dict[Key, Body] = field(default_factory=dict)
    _owned: dict[Key, dict[tuple[str, str | None], set[Path]]] = field(default_factory=dict)
    _watchers: list[Watcher] = field(default_factory=list)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # ------------------------------------------------------------------ the client's interface

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        await self._enter(Request("get", kind, name))
        return copied(self._must(kind, namespace, name))

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Bodies:
        if field_selector is not None:
            raise NotImplementedError("field selectors")
        await self._enter(Request("list", kind, ""))
        wanted = dict(part.split("=", 1) for part in (label_selector or "").split(",") if part)
        return [
            copied(body)
            for body in self.objects(kind, namespace)
            if wanted.items() <= (body["metadata"].get("labels") or {}).items()
        ]

    async def create(self, body: Mapping[str, Any], *, manager: str | None = None) -> Body:
        meta = body["metadata"]
        request = Request("create", body["kind"], meta["name"], body=copied(dict(body)))
        await self._enter(request)
        key = self._key(body["kind"], meta.get("namespace"), meta["name"])
        if key in self._objects:
            raise FakeConflict(f"{request.kind} {request.name} already exists")
        made = copied(dict(body))
        if made["kind"] in _STATUS_KINDS:
            made.pop("status", None)
        for name in _SYSTEM:
            made["metadata"].pop(name, None)
        made["metadata"] |= {
            "uid": f"uid-{next(self._uids)}",
            "generation": 1,
            "creationTimestamp": self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._refuse(made, None)
        self._objects[key] = made
        return await self._leave(request, self._changed(key))

    async def apply(
        self, body: Mapping[str, Any], *, manager: str, subresource: str | None = None, force: bool = True
    ) -> Body:
        meta = body["metadata"]
        request = Request("apply", body["kind"], meta["name"], subresource, copied(dict(body)))
        await self._enter(request)
        key = self._key(body["kind"], meta.get("namespace"), meta["name"])
        if key not in self._objects:
            if subresource is not None:
                raise FakeNotFound(f"{request.kind} {request.name} not found")
            old: Body | None = None
            new: Body = {
                "apiVersion": body["apiVersion"],
                "kind": body["kind"],
                "metadata": {
                    "name": meta["name"],
                    **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
                    "uid": f"uid-{next(self._uids)}",
                    "generation": 1,
                    "creationTimestamp": self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
            }
        else:
            old = self._objects[key]
            new = copied(old)
        self._check_preconditions(meta, new)
        wanted = dict(_flatten(_applicable(body, subresource)))
        owners = self._owned.get(key, {})
        mine = (manager, subresource)
        others = set().union(*(paths for who, paths in owners.items() if who != mine))
        if not force:
            for path, value in wanted.items():
                if path in others and _read(new, path) != value:
                    raise FakeConflict(f"conflict with another manager at {path}")
        # An item of a list map is found by its key, so that goes last.
        for path in sorted(owners.get(mine, set()) - set(wanted), key=_is_key):
            if path not in others:
                _remove(new, path)
        for path, value in wanted.items():
            _write(new, path, value)
        self._refuse(new, old)
        self._owned[key] = owners
        owners[mine] = set(wanted)
        if force:
            for who in owners:
                if who != mine:
                    owners[who] -= {path for path in wanted if path in owners[who]}
        if old is None:
            self._objects[key] = new
            return await self._leave(request, self._changed(key))
        return await self._leave(request, self._replace(key, new))

    async def patch(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | JsonPatch,
        *,
        subresource: str | None = None,
        manager: str | None = None,
    ) -> Body:
        request = Request("patch", kind, name, subresource, copied(patch))
        await self._enter(request)
        old = self._must(kind, namespace, name)
        if isinstance(patch, list):
            new = _json_patch(old, patch)
        else:
            self._check_preconditions(patch.get("metadata") or {}, old)
            new = _merge(copied(old), patch)
        if kind in _STATUS_KINDS:
            if subresource == "status":
                new = {**copied(old), "status": new.get("status") or {}}
            elif "status" in old:
                new["status"] = copied(old["status"])
            else:
                new.pop("status", None)
        for system in _SYSTEM:
            new["metadata"].pop(system, None)
            if system in old["metadata"]:
                new["metadata"][system] = old["metadata"][system]
        self._refuse(new, old)
        return await self._leave(request, self._replace(self._key(kind, namespace, name), new))

    async def delete(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        request = Request("delete", kind, name)
        await self._enter(request)
        key = self._key(kind, namespace, name)
        body = self._objects.get(key)
        if body is not None and uid in (None, body["metadata"]["uid"]):
            self._delete(key, grace_seconds)
        await self._after(request)

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
        stream: Literal["Stdout", "Stderr"] | None = None,
    ) -> bytes:
        request = Request("logs", "Pod", pod)
        await self._enter(request)
        self._must("Pod", namespace, pod)
        if stream is not None:
            raise FakeRefused("stream: Forbidden: may not be specified")
        found = self.logs.get((namespace, pod), b"")
        if isinstance(found, Exception):
            raise found
        await self._after(request)
        return found[:limit_bytes]

    # ------------------------------------------------------------------ for tests

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` with each change from now on."""
        self._watchers.append(watcher)

    def unwatch(self) -> None:
        """Forget all watchers: their process died."""
        self._watchers.clear()

    def objects(self, kind: str, namespace: str | None = None) -> Bodies:
        """All objects of a kind, not copied."""
        return [
            body
            for (k, ns, _), body in self._objects.items()
            if k == kind and (namespace is None or ns == namespace)
        ]

    def find(self, kind: str, namespace: str | None, name: str) -> Body | None:
        """The object, without a request."""
        return self._objects.get(self._key(kind, namespace, name))

    def add(self, body: Mapping[str, Any], *, validated: bool = True) -> Body:
        """Put an object there by somebody else's hand: no request is recorded; `status` is kept.

        `validated=False`: as another version of the CRD let it through.
        """
        made = copied(dict(body))
        made["metadata"] = {
            "uid": f"uid-{next(self._uids)}",
            "generation": 1,
            "creationTimestamp": self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        } | made["metadata"]
        key = self._key(made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"])
        if validated:
            self._doubt(made, None)
        self._objects[key] = made
        return self._changed(key)

    def edit(
        self,
        kind: str,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any],
        *,
        validated: bool = True,
    ) -> Body:
        """Merge-patch an object, status included, by somebody else's hand; `validated` as of `add`."""
        key = self._key(kind, namespace, name)
        old = self._objects[key]
        new = _merge(copied(old), patch)
        if validated:
            self._doubt(new, old)
        return self._replace(key, new)

    def remove(self, kind: str, namespace: str | None, name: str, *, force: bool = False) -> None:
        """Delete by somebody else's hand; `force` passes over finalizers, so that the object is gone."""
        key = self._key(kind, namespace, name)
        if force:
            self._objects[key]["metadata"].pop("finalizers", None)
        self._delete(key, None)

    # ------------------------------------------------------------------ inside

    def _key(self, kind: str, namespace: str | None, name: str) -> Key:
        return kind, None if kind in _CLUSTER_KINDS else namespace, name

    def _must(self, kind: str, namespace: str | None, name: str) -> Body:
        try:
            return self._objects[self._key(kind, namespace, name)]
        except KeyError:
            raise FakeNotFound(f"{kind} {namespace}/{name} not found") from None

    async def _enter(self, request: Request) -> None:
        self.requests.append(request)
        if self.interrupt is not None:
            await self.interrupt(request, "before")

    async def _after(self, request: Request) -> None:
        if self.interrupt is not None:
            await self.interrupt(request, "after")

    async def _leave(self, request: Request, body: Body) -> Body:
        reply = copied(body)
        await self._after(request)
        return reply

    def _refuse(self, new: Body, old: Body | None) -> None:
        found = refusals(new, old)
        if found:
            raise FakeRefused(f"{new['kind']} {new['metadata']['name']} is invalid: " + "; ".join(found[:5]))

    def _doubt(self, new: Body, old: Body | None) -> None:
        found = refusals(new, old)
        if found:
            raise InvalidFixture(f"{new['kind']} {new['metadata']['name']}: " + "; ".join(found[:5]))

    def _check_preconditions(self, wanted: Mapping[str, Any], body: Body) -> None:
        for name in ("uid", "resourceVersion"):
            if wanted.get(name) not in (None, body["metadata"].get(name)):
                raise FakeConflict(f"{name} is {body['metadata'].get(name)}, not {wanted[name]}")

    def _replace(self, key: Key, new: Body) -> Body:
        old = self._objects[key]
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
        self._objects[key] = new
        return self._changed(key)

    def _changed(self, key: Key) -> Body:
        body = self._objects[key]
        if not body["metadata"].get("finalizers"):
            body["metadata"].pop("finalizers", None)
            if "deletionTimestamp" in body["metadata"] and self._may_go(body):
                self._drop(key)
                return body
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(key[0], body, deleted=False)
        return body

    def _may_go(self, body: Body) -> bool:
        # A pod on a node goes when its kubelet says that its containers have stopped.
        return bool(body["metadata"].get("deletionGracePeriodSeconds", 0) == 0)

    def _delete(self, key: Key, grace_seconds: int | None) -> None:
        body = self._objects[key]
        meta = body["metadata"]
        if "deletionTimestamp" in meta:
            if grace_seconds == 0 and meta.get("deletionGracePeriodSeconds"):
                meta["deletionGracePeriodSeconds"] = 0
                self._changed(key)
            return
        grace = 0
        if key[0] == "Pod" and body["spec"].get("nodeName"):
            running = (body.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            asked = body["spec"].get("terminationGracePeriodSeconds", 30)
            grace = (asked if grace_seconds is None else grace_seconds) if running else 0
        if grace or meta.get("finalizers"):
            meta["deletionTimestamp"] = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            meta["generation"] = meta.get("generation", 1) + 1
            if key[0] == "Pod":
                meta["deletionGracePeriodSeconds"] = grace
            self._changed(key)
        else:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        body = self._objects.pop(key)
        self._owned.pop(key, None)
        body["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(key[0], body, deleted=True)
        uid = body["metadata"]["uid"]
        for child in [
            k
            for k, b in self._objects.items()
            if any(ref.get("uid") == uid for ref in b["metadata"].get("ownerReferences") or ())
        ]:
            if child in self._objects:
                self._delete(child, None)

    def _tell(self, kind: str, body: Body, *, deleted: bool) -> None:
        for watcher in list(self._watchers):
            watcher(kind, copied(body), deleted)


class FakeKubeClient:
    """One process' client of a FakeKube. As `kube.KubeClient`, it asks `guard` before each write, and passes
    every object that a single-object request brought back to `on_reply`.
    """

    def __init__(
        self, kube: FakeKube, guard: Callable[[], object], *, on_reply: Callable[[Body], object]
    ) -> None:
        self._kube = kube
        self._guard = guard
        self._on_reply = on_reply

    def __getattr__(self, name: str) -> Any:
        request = getattr(self._kube, name)
        if name not in ("get", "create", "apply", "patch", "delete"):
            return request
        if name != "get":
            self._guard()

        async def answered(*args: Any, **options: Any) -> Body | None:
            reply: Body | None = await request(*args, **options)
            if reply is not None:
                self._on_reply(reply)
            return reply

        return answered


def copied(value: Any) -> Any:
    """A copy of JSON; many times faster than `copy.deepcopy`."""
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def _applicable(body: Mapping[str, Any], subresource: str | None) -> Body:
    if subresource == "status":
        return {"status": copied(body.get("status") or {})}
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if name in ("labels", "annotations", "finalizers", "ownerReferences")
    }
    rest = {k: v for k, v in body.items() if k not in ("apiVersion", "kind", "metadata", "status")}
    return copied(({"metadata": metadata} if metadata else {}) | rest)


def _flatten(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    plain = tuple(part for part in path if isinstance(part, str))
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flatten(item, (*path, name))
    elif isinstance(value, list) and path == plain and path in _LIST_MAPS:
        for item in value:
            yield from _flatten(item, (*path, _Item(item[_LIST_MAPS[path]])))
    elif isinstance(value, list) and path in _SETS:
        for item in value:
            yield (*path, _Item(item)), item
    else:
        yield path, value


def _is_key(path: Path) -> bool:
    return len(path) > 2 and isinstance(path[-2], _Item) and path[-1] == _LIST_MAPS.get(path[:-2])


def _read(body: Any, path: Path) -> Any:
    for depth, part in enumerate(path):
        if isinstance(part, _Item):
            key = _LIST_MAPS.get(path[:depth])
            body = next((i for i in body or () if (i.get(key) if key else i) == part.key), None)
        else:
            body = (body or {}).get(part)
        if body is None:
            return None
    return body


def _write(body: Body, path: Path, value: Any) -> None:
    here: Any = body
    for depth, part in enumerate(path[:-1]):
        following = path[depth + 1]
        if isinstance(part, _Item):
            key = _LIST_MAPS[path[:depth]]
            found = next((item for item in here if item[key] == part.key), None)
            if found is None:
                found = {key: part.key}
                here.append(found)
            here = found
        else:
            here = here.setdefault(part, [] if isinstance(following, _Item) else {})
    last = path[-1]
    if isinstance(last, _Item):
        if value not in here:
            here.append(value)
    else:
        here[last] = value


def _remove(body: Body, path: Path) -> None:
    parent: Any = _read(body, path[:-1]) if len(path) > 1 else body
    last = path[-1]
    if parent is None:
        return
    if isinstance(last, _Item):
        if last.key in parent:
            parent.remove(last.key)
    else:
        parent.pop(last, None)
    if len(path) > 2 and isinstance(path[-2], _Item):
        key = _LIST_MAPS[path[:-2]]
        if set(parent) <= {key}:
            _read(body, path[:-2]).remove(parent)
    if not parent and len(path) > 2 and not isinstance(path[-2], _Item):
        _read(body, path[:-2]).pop(path[-2], None)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return copied(patch)
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = _merge(out.get(name), value)
    return out


def _json_patch(body: Body, operations: list[Any]) -> Body:
    new: Body = json.loads(json.dumps(body))
    for operation in operations:
        parts = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        parent: Any = new
        try:
            for part in parts[:-1]:
                parent = parent[int(part)] if isinstance(parent, list) else parent[part]
            last: Any = parts[-1]
            if isinstance(parent, list) and last != "-":
                last = int(last)
            match operation["op"]:
                case "test":
                    if parent[last] != operation["value"]:
                        raise FakeRefused(f"the test of {operation['path']} failed")
                case "remove":
                    del parent[last]
                case "add" if isinstance(parent, list):
                    parent.insert(len(parent) if last == "-" else last, operation["value"])
                case "add" | "replace":
                    parent[last] = operation["value"]
                case other:
                    raise NotImplementedError(other)
        except (KeyError, IndexError) as missing:
            raise FakeRefused(f"{operation['path']} does not exist") from missing
    return new
