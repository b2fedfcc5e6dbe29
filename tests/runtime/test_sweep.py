"""The sweep that follows each listing: deletions that no event reported, and a storage that went back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from nosana_operator.kube import CORE_KINDS, Credentials, ObjectCache, Snapshot
from nosana_operator.runtime.errors import WatchEnded
from nosana_operator.runtime.watching import Change, ClusterView, Scope


def pod(name: str, version: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid of {name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


class Storage:
    """Listings of pods by their name: (resource version, name to version), the last one again and again."""

    def __init__(self, *listings: tuple[int, Mapping[str, int]]) -> None:
        self.listings = list(listings)
        self.listed = 0
        self.changes: list[Change] = []
        self.cache = ObjectCache(("Pod",))
        self.view = ClusterView(
            [Scope((CORE_KINDS["Pod"],))],
            cache=self.cache,
            lister=self,
            credentials=cast(Credentials, None),
            on_change=self.changes.append,
        )

    async def snapshot(
        self, kind: str, namespace: str | None = None, *, metadata_only: bool = False
    ) -> Snapshot:
        version, pods = self.listings[min(self.listed, len(self.listings) - 1)]
        self.listed += 1
        return Snapshot([pod(*each) for each in pods.items()], str(version))


async def test_deletions_that_no_event_reported_are_found() -> None:
    storage = Storage((20, {"a": 9, "b": 12}), (30, {"b": 12}))
    await storage.view.sync()
    assert await storage.view.sweep() == 1
    assert [(c.body["metadata"]["name"], c.deleted) for c in storage.changes[2:]] == [("a", True)]


@pytest.mark.parametrize(
    "restored",
    [(11, {"a": 9}), (20, {"a": 7, "b": 12}), (20, {"a": 9, "b": 12, "gone": 5})],
    ids=["the listing is older", "an object is older", "a deleted object is back"],
)
async def test_a_restored_backup_ends_the_process_so_that_everything_is_read_again(
    restored: tuple[int, Mapping[str, int]],
) -> None:
    """The cache would refuse everything older than it knows, and keep what is gone."""
    storage = Storage((12, {"a": 9, "b": 12, "gone": 5}), restored)
    await storage.view.sync()
    storage.view.take(CORE_KINDS["Pod"], "DELETED", pod("gone", 13))
    with pytest.raises(
        WatchEnded, match=r"went back .* restore of etcd from a backup; the operator restarts"
    ):
        await storage.view.sweep()


async def test_one_listing_alone_proves_no_restore() -> None:
    """An answer of an API server that lags, where one gives such answers, costs a listing and nothing else."""
    storage = Storage((20, {"a": 9, "b": 12}), (11, {"a": 9}), (20, {"a": 9, "b": 12}))
    await storage.view.sync()
    assert await storage.view.sweep() == 0
    assert len(storage.cache.list("Pod")) == 2
