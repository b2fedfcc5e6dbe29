"""A node whose kubelet refuses pods counts no slots for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.api import LABEL_JOB_UID, Gpu, Resources, timestamp
from nosana_operator.api.placement import NodeSettings
from nosana_operator.inventory import Cluster, Holder, PodStart, divide, pod_start, refusing_nodes
from nosana_operator.inventory.refusals import FIRST_HOLD, LONGEST_HOLD, REFUSALS_IN_A_ROW

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = "UnexpectedAdmissionError: Allocate failed due to no healthy devices present"
NEVER = {"state": {"terminated": {"exitCode": 137, "startedAt": "1970-01-01T00:00:00Z"}}}
RAN = {"state": {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z"}}}


def pod(
    *, node: str | None = "bad", ours: bool = True, deleting: bool = False, **status: Any
) -> dict[str, Any]:
    return {
        "metadata": {
            "uid": "u",
            "creationTimestamp": "2025-12-31T23:00:00Z",
            "labels": {LABEL_JOB_UID: "job"} if ours else {},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}),
        },
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


REFUSED: dict[str, Any] = {
    "phase": "Failed",
    "reason": "UnexpectedAdmissionError",
    "message": "Allocate failed due to no healthy devices present",
}

ROWS: list[tuple[str, dict[str, Any], str | None]] = [
    ("refused by the kubelet", pod(**REFUSED), "refused"),
    ("refused, its containers never started", pod(**REFUSED, containerStatuses=[NEVER]), "refused"),
    ("waiting for its image", pod(phase="Pending", containerStatuses=[{"state": {"waiting": {}}}]), None),
    ("runs", pod(phase="Running", containerStatuses=[{"state": {"running": {}}}]), "started"),
    ("has run and failed", pod(phase="Failed", containerStatuses=[RAN]), "started"),
    ("ran before its restart", pod(phase="Running", containerStatuses=[{"state": {"waiting": {}}, "lastState": RAN["state"]}]), "started"),
    ("its fetching failed", pod(phase="Failed", reason="x", initContainerStatuses=[RAN]), "started"),
    ("not scheduled", pod(node=None, **REFUSED), None),
    ("somebody else's", pod(ours=False, **REFUSED), None),
    ("deleted before it started", pod(deleting=True, **REFUSED), None),
    ("failed without a word, as a node that is gone leaves it", pod(phase="Failed"), None),
]  # fmt: skip


@pytest.mark.parametrize(("_", "made", "outcome"), ROWS, ids=[row[0] for row in ROWS])
def test_what_became_of_a_pod(_: str, made: dict[str, Any], outcome: str | None) -> None:
    start = pod_start(made)
    assert (start is None) is (outcome is None)
    if start is not None:
        assert start.refusal == (WORDS if outcome == "refused" else None)


def test_it_counts_from_when_it_was_scheduled() -> None:
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    start = pod_start(pod(**REFUSED, conditions=conditions))
    assert start is not None
    assert start.scheduled_at == NOW


def refusals(count: int, node: str = "bad", *, every: timedelta = timedelta(seconds=1)) -> list[PodStart]:
    """The last one is now."""
    return [PodStart(f"{node}-{n}", node, NOW - every * (count - 1 - n), WORDS) for n in range(count)]


def test_a_node_is_held_back_after_three_in_a_row() -> None:
    assert REFUSALS_IN_A_ROW == 3
    assert refusing_nodes(refusals(2), NOW) == {}
    found = refusing_nodes([*refusals(3)[::-1], *refusals(2, "good")], NOW)
    assert list(found) == ["bad"]
    assert (found["bad"].refusals, found["bad"].until, found["bad"].reason) == (3, NOW + FIRST_HOLD, WORDS)


def test_a_pod_that_starts_there_ends_the_row() -> None:
    two, third = refusals(3)[:2], refusals(3)[2]
    between = PodStart("ok", "bad", third.scheduled_at - timedelta(milliseconds=1), None)
    assert refusing_nodes([*two, between, third], NOW) == {}
    assert refusing_nodes([*refusals(3), replace(between, scheduled_at=NOW + FIRST_HOLD)], NOW) == {}
    earlier = replace(between, scheduled_at=NOW - timedelta(hours=1))
    assert list(refusing_nodes([*refusals(3), earlier], NOW)) == ["bad"], "it was good once"


@pytest.mark.parametrize(("count", "minutes"), [(3, 1), (4, 2), (5, 4), (7, 16), (8, 30), (100, 30)])
def test_it_comes_back_by_itself_later_each_time(count: int, minutes: int) -> None:
    hold = timedelta(minutes=minutes)
    assert hold <= LONGEST_HOLD
    assert list(refusing_nodes(refusals(count), NOW + hold - timedelta(seconds=1))) == ["bad"]
    assert refusing_nodes(refusals(count), NOW + hold) == {}


def test_a_node_that_is_held_back_counts_no_slot() -> None:
    nodes = [
        {
            "metadata": {"name": name, "labels": NodeSettings().labels | {"pool": name}},
            "status": {
                "allocatable": {"nvidia.com/gpu": "2", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
        for name in ("bad", "good")
    ]
    cluster = Cluster(nodes, [], refusing=refusing_nodes(refusals(3), NOW))
    share = divide(cluster, [Holder("m", Gpu(), Resources(), "jobs")])["m"]
    assert share.free == 2
    only = Gpu(node_selector={"pool": "bad"})
    share = divide(cluster, [Holder("m", only, Resources(), "jobs")])["m"]
    until = timestamp(NOW + FIRST_HOLD)
    assert (share.free, share.shortage) == (
        0,
        f"no node may take it: bad refused 3 pods in a row and is held back until {until}, good is not labelled "
        "pool=bad",
    )
    assert [node.node for node in cluster.refusing_for(only)] == ["bad"]
    assert cluster.refusing_for(Gpu(node_selector={"pool": "good"})) == (), "none of this market's nodes"
