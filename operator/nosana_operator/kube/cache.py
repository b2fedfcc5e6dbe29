"""The object cache: the newest known body of each watched object.

Watch events fill it, and so do the replies to our own requests (`KubeClient`'s `on_reply`, the only other writer),
so that a decision is never made from data older than what this process wrote itself. Bodies are shared, not
copied: readers must not change them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from nosana_operator.ports import Bodies, Body

Key = tuple[str | None, str]
"""(namespace, name); the namespace is None for cluster-scoped kinds."""

_TOMBSTONE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Horizon:
    """What the cache knew of a kind at one moment, to be compared with a listing that begins after it."""

    newest: int
    """The newest resource version that was seen, deletions included; 0: none, or versions are not numbers."""
    versions: Mapping[str, str]
    """Resource version of each object, by uid."""
    deleted: Set[str]
    """Uids of objects that are known to be deleted."""

    def is_ahead_of(self, items: Iterable[Body], resource_version: str) -> bool:
        """Whether a later, consistent listing shows an earlier state: the API server's storage went back.

        After a restore from a backup the listing's own version is older than one that we have seen. Once new
        writes have overtaken that version, the objects still show it: one is older than we know it, or is back
        although it was deleted.
        """
        if resource_version.isdigit() and int(resource_version) < self.newest:
            return True
        for item in items:
            metadata = item["metadata"]
            seen = self.versions.get(metadata["uid"])
            if metadata["uid"] in self.deleted or (seen is not None and _is_older(metadata, seen)):
                return True
        return False


class ObjectCache:
    """Objects of the given kinds by (namespace, name), with indexes over label values.

    `indexes` gives the labels to index for each kind, `trim` a function that shrinks the bodies that are kept
    (`kube/trim.py`). Reading a kind that the cache does not hold raises KeyError; putting one has no effect.
    """

    def __init__(
        self,
        kinds: Iterable[str],
        *,
        indexes: Mapping[str, Iterable[str]] | None = None,
        trim: Mapping[str, Callable[[Body], Body]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._objects: dict[str, dict[Key, Body]] = {kind: {} for kind in kinds}
        self._indexes: dict[str, dict[str, dict[str, dict[Key, Body]]]] = {
            kind: {label: {} for label in labels} for kind, labels in (indexes or {}).items()
        }
        self._trim = dict(trim or {})
        self._clock = clock
        # A uid is never used again, so its tombstone stops late replies and late events; it only has to
        # outlive them.
        self._tombstones: OrderedDict[str, float] = OrderedDict()
        self._newest: dict[str, int] = dict.fromkeys(self._objects, 0)

    def put(self, body: Body) -> bool:
        """Keep `body` unless a newer version is known. True if it changed the cache."""
        kind = body["kind"]
        objects = self._objects.get(kind)
        if objects is None:
            return False
        metadata = body["metadata"]
        if metadata["uid"] in self._tombstones:
            return False
        self._note_version(kind, metadata)
        key = key_of(body)
        cached = objects.get(key)
        if cached is not None and cached["metadata"]["uid"] == metadata["uid"]:
            if not _is_newer(metadata["resourceVersion"], cached["metadata"]["resourceVersion"]):
                return False
        elif cached is not None:
            # Another object of that name. A name is reused only after deletion, so the newer of the two
            # exists; a late event of the deleted one must not resurrect it.
            if not _is_newer(metadata["resourceVersion"], cached["metadata"]["resourceVersion"]):
                return False
            self._bury(cached["metadata"]["uid"])
        trim = self._trim.get(kind)
        kept = trim(body) if trim is not None else body
        objects[key] = kept
        self._reindex(kind, key, cached, kept)
        return True

    def forget(self, kind: str, body: Body) -> bool:
        """Remove a deleted object. True if the cache held it."""
        uid = body["metadata"]["uid"]
        self._bury(uid)
        self._note_version(kind, body["metadata"])
        key = key_of(body)
        objects = self._objects[kind]
        cached = objects.get(key)
        if cached is None or cached["metadata"]["uid"] != uid:
            return False
        del objects[key]
        self._reindex(kind, key, cached, None)
        return True

    def retain(self, kind: str, uids: Iterable[str], *, as_of: str) -> Bodies:
        """Remove what a complete listing at resource version `as_of` does not contain; returns the removed bodies.

        A watch that broke and listed again reports no deletions; this finds them.
        """
        alive = set(uids)
        gone = [
            body
            for body in self._objects[kind].values()
            if body["metadata"]["uid"] not in alive
            and not _is_newer(body["metadata"]["resourceVersion"], as_of)
        ]
        for body in gone:
            self.forget(kind, body)
        return gone

    def horizon(self, kind: str) -> Horizon:
        """What is known of a kind now. Take it before a listing begins."""
        metadata = (body["metadata"] for body in self._objects[kind].values())
        versions = {each["uid"]: each["resourceVersion"] for each in metadata}
        return Horizon(self._newest[kind], versions, frozenset(self._tombstones))

    def get(self, kind: str, namespace: str | None, name: str) -> Body | None:
        """The newest known body, or None."""
        return self._objects[kind].get((namespace, name))

    def list(self, kind: str, namespace: str | None = None) -> Bodies:
        """All known objects of a kind, in one namespace or in all."""
        objects = self._objects[kind].values()
        if namespace is None:
            return list(objects)
        return [body for body in objects if body["metadata"].get("namespace") == namespace]

    def by_index(self, kind: str, label: str, value: str) -> Bodies:
        """All known objects of a kind that carry `label: value`; the label must be an index of the kind."""
        return list(self._indexes[kind][label].get(value, {}).values())

    def count(self, kind: str) -> int:
        """The number of known objects of a kind."""
        return len(self._objects[kind])

    def _reindex(self, kind: str, key: Key, old: Body | None, new: Body | None) -> None:
        for label, index in self._indexes.get(kind, {}).items():
            if old is not None and (value := _label(old, label)) is not None:
                entries = index[value]
                entries.pop(key, None)
                if not entries:
                    del index[value]
            if new is not None and (value := _label(new, label)) is not None:
                index.setdefault(value, {})[key] = new

    def _note_version(self, kind: str, metadata: Mapping[str, Any]) -> None:
        version = metadata["resourceVersion"]
        if version.isdigit():
            self._newest[kind] = max(self._newest[kind], int(version))

    def _bury(self, uid: str) -> None:
        now = self._clock()
        self._tombstones[uid] = now
        self._tombstones.move_to_end(uid)
        while self._tombstones and now - next(iter(self._tombstones.values())) > _TOMBSTONE_SECONDS:
            self._tombstones.popitem(last=False)


def key_of(body: Body) -> Key:
    """(namespace, name) of an object."""
    metadata = body["metadata"]
    return metadata.get("namespace"), metadata["name"]


def _label(body: Body, label: str) -> str | None:
    value = (body["metadata"].get("labels") or {}).get(label)
    return None if value is None else str(value)


def _is_older(metadata: Mapping[str, Any], than: str) -> bool:
    version = metadata["resourceVersion"]
    return version.isdigit() and than.isdigit() and int(version) < int(than)


def _is_newer(version: str, than: str) -> bool:
    """Resource versions of one kind compare as integers (promised since Kubernetes 1.35, true before).

    A version that is not a number (of another implementation of the API) counts as newer when it differs.
    """
    if not (version.isdigit() and than.isdigit()):
        return version != than
    return int(version) > int(than)
