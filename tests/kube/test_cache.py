"""The cache: order of versions, deletions that stay deletions, indexes, what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.kube import ObjectCache, trim

LABEL = "example.org/owner"


def pod(
    name: str = "p", *, version: int | str = 1, uid: str = "u", owner: str | None = None, **parts: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "ns",
        "uid": uid,
        "resourceVersion": str(version),
    }
    if owner is not None:
        metadata["labels"] = {LABEL: owner}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, **parts}


def cache() -> ObjectCache:
    return ObjectCache(("Pod", "Node"), indexes={"Pod": (LABEL,)})


def test_the_newest_version_stays() -> None:
    c = cache()
    assert c.put(pod(version=9))
    assert not c.put(pod(version=9))
    assert not c.put(pod(version=8))
    assert c.put(pod(version=10))
    known = c.get("Pod", "ns", "p")
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "10"


def test_a_late_reply_does_not_bring_a_deleted_object_back() -> None:
    c = cache()
    c.put(pod(version=5))
    assert c.forget("Pod", pod(version=7))
    assert not c.put(pod(version=6))
    assert not c.put(pod(version=8))
    assert c.get("Pod", "ns", "p") is None


def test_the_deletion_of_one_never_seen_stays_too() -> None:
    c = cache()
    assert not c.forget("Pod", pod())
    assert not c.put(pod())


def test_another_object_under_the_name_takes_its_place() -> None:
    c = cache()
    c.put(pod(version=5, uid="old"))
    assert c.put(pod(version=6, uid="new"))
    assert not c.put(pod(version=7, uid="old"))
    assert not c.forget("Pod", pod(version=8, uid="old"))
    assert len(c.list("Pod")) == 1


def test_an_older_object_does_not_displace_a_younger_of_its_name() -> None:
    c = cache()
    c.put(pod(version=9, uid="new"))
    assert not c.put(pod(version=5, uid="old"))
    known = c.get("Pod", "ns", "p")
    assert known is not None
    assert known["metadata"]["uid"] == "new"


def test_tombstones_go_after_their_time() -> None:
    now = 0.0
    c = ObjectCache(("Pod",), clock=lambda: now)
    c.forget("Pod", pod(uid="a"))
    now = 601.0
    c.forget("Pod", pod(uid="b"))
    assert c.put(pod(name="p", uid="a"))
    assert not c.put(pod(name="q", uid="b"))


def test_indexes_follow_the_label() -> None:
    c = cache()
    c.put(pod("a", uid="1", owner="x"))
    c.put(pod("b", uid="2", owner="x"))
    c.put(pod("c", uid="3"))
    assert {body["metadata"]["name"] for body in c.by_index("Pod", LABEL, "x")} == {"a", "b"}
    c.put(pod("b", uid="2", owner="y", version=2))
    c.forget("Pod", pod("a", uid="1"))
    assert c.by_index("Pod", LABEL, "x") == []
    assert [body["metadata"]["name"] for body in c.by_index("Pod", LABEL, "y")] == ["b"]


def test_retain_forgets_what_a_listing_does_not_hold_but_nothing_younger_than_it() -> None:
    c = cache()
    c.put(pod("a", uid="1", version=5))
    c.put(pod("b", uid="2", version=6))
    c.put(pod("c", uid="3", version=20))
    gone = c.retain("Pod", {"1"}, as_of="10")
    assert [body["metadata"]["name"] for body in gone] == ["b"]
    assert {body["metadata"]["name"] for body in c.list("Pod")} == {"a", "c"}


def test_listing_by_namespace() -> None:
    c = cache()
    c.put(pod())
    assert len(c.list("Pod", "ns")) == 1
    assert c.list("Pod", "other") == []
    assert c.count("Pod") == 1


def test_kinds_that_are_not_held() -> None:
    c = cache()
    assert not c.put({**pod(), "kind": "Secret"})
    with pytest.raises(KeyError):
        c.get("Secret", "ns", "p")


def test_versions_that_are_no_numbers_count_as_newer_when_they_differ() -> None:
    c = cache()
    c.put(pod(version="abc"))
    assert not c.put(pod(version="abc"))
    assert c.put(pod(version="abb"))


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["put", "delete"])), max_size=30))
def test_whatever_the_order_a_deleted_object_is_gone_and_else_the_newest_is_known(
    story: list[tuple[int, str]],
) -> None:
    c = cache()
    deleted = False
    newest = 0
    for version, what in story:
        if what == "put":
            c.put(pod(version=version, owner=str(version)))
            newest = max(newest, version)
        else:
            c.forget("Pod", pod(version=version))
            deleted = True
        known = c.get("Pod", "ns", "p")
        if deleted or newest == 0:
            assert known is None
        else:
            assert known is not None
            assert known["metadata"]["resourceVersion"] == str(newest)
        for value in range(1, 5):
            indexed = c.by_index("Pod", LABEL, str(value))
            assert len(indexed) == (not deleted and value == newest)


def test_a_pod_of_others_keeps_what_it_takes_from_its_node() -> None:
    whole = pod(
        spec={
            "nodeName": "n",
            "overhead": {"cpu": "1"},
            "volumes": [{}],
            "containers": [{"name": "c", "env": [1], "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "restartPolicy": "Always", "command": ["x"]}],
        },
        status={"phase": "Running", "podIP": "10.0.0.1"},
    )
    whole["metadata"] |= {"managedFields": [{}], "annotations": {"a": "b"}, "labels": {"l": "v"}}
    before = repr(whole)
    slim = trim.pod_footprint(whole)
    assert slim["spec"] == {
        "nodeName": "n",
        "overhead": {"cpu": "1"},
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
        "initContainers": [{"name": "i", "restartPolicy": "Always"}],
    }
    assert slim["status"] == {"phase": "Running"}
    assert set(slim["metadata"]) == {"name", "namespace", "uid", "resourceVersion", "labels"}
    assert repr(whole) == before


def test_bookkeeping_and_images_are_left_out() -> None:
    node = {
        "kind": "Node",
        "metadata": {
            "name": "n",
            "managedFields": [{}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "1"},
        },
        "status": {"images": [{}], "allocatable": {"cpu": "1"}},
    }
    assert trim.node(node) == {
        "kind": "Node",
        "metadata": {"name": "n", "annotations": {"keep": "1"}},
        "status": {"allocatable": {"cpu": "1"}},
    }


def earlier(name: str, version: int, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version)}}


@pytest.mark.parametrize(
    ("listing_version", "items", "ahead"),
    [
        ("20", [earlier("p", 9, "a"), earlier("q", 12, "b")], False),
        ("20", [earlier("p", 15, "a")], False),
        ("15", [], False),
        ("20", [earlier("new", 3, "c")], False),
        ("14", [], True),
        ("20", [earlier("p", 8, "a")], True),
        ("20", [earlier("gone", 10, "z")], True),
        ("opaque", [earlier("p", 9, "a")], False),
        ("opaque", [{"metadata": {"name": "p", "uid": "a", "resourceVersion": "x"}}], False),
    ],
    ids=[
        "the same", "newer and deleted", "nothing since the last deletion", "an old object of another scope",
        "the listing is older", "an object is older", "a deleted one is back", "opaque", "an opaque object",
    ],
)  # fmt: skip
def test_a_listing_that_shows_an_earlier_state(
    listing_version: str, items: list[dict[str, Any]], ahead: bool
) -> None:
    c = cache()
    c.put(pod("p", version=9, uid="a"))
    c.put(pod("q", version=12, uid="b"))
    c.put(pod("gone", version=11, uid="z"))
    c.forget("Pod", pod("gone", version=15, uid="z"))
    assert c.horizon("Pod").is_ahead_of(items, listing_version) is ahead


def test_the_horizon_of_a_kind_without_objects_is_behind_everything() -> None:
    assert not cache().horizon("Pod").is_ahead_of([earlier("p", 1)], "1")
