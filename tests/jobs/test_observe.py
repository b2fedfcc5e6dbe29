"""Pods as a kubelet reports them, and the moments that are taken from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.jobs.decision.view import PodView
from nosana_operator.jobs.observe import Observer

NOW = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
JUST = "2026-01-02T03:04:05Z"
LONG_AGO = "2026-01-02T02:00:00Z"


def body(state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    meta = {
        "name": "j-0",
        "uid": "p-1",
        "labels": {"nosana.io/op-index": "0"},
        "creationTimestamp": LONG_AGO,
        "finalizers": ["nosana.io/op"],
        **more.pop("metadata", {}),
    }
    container = {"name": "op", "state": state, "imageID": "sha", "containerID": "containerd://c1"}
    status = {
        "phase": "Pending",
        **({"containerStatuses": [container]} if state else {}),
        **more.pop("status", {}),
    }
    return {"metadata": meta, "spec": {"nodeName": "n", **more}, "status": status}


def look(pod: dict[str, Any], now: datetime = NOW, observer: Observer | None = None) -> PodView:
    return (observer or Observer()).pods([pod], now)[0]


def terminated(code: int, **more: Any) -> dict[str, Any]:
    return {
        "terminated": {"exitCode": code, "startedAt": JUST, "finishedAt": JUST, "reason": "Error", **more}
    }


def test_what_is_seen_as_it_happens_gets_our_moment_and_keeps_it() -> None:
    observer = Observer()
    running = body({"running": {"startedAt": JUST}})
    assert look(running, NOW, observer).started_at == NOW
    later = look(running, NOW + timedelta(hours=1), observer)
    assert later.started_at == NOW
    assert later.start_stamp == NOW.replace(microsecond=0)


def test_what_had_happened_before_keeps_the_kubelets_stamp() -> None:
    view = look(body({"running": {"startedAt": LONG_AGO}}))
    assert view.started_at == datetime(2026, 1, 2, 2, tzinfo=UTC)


def test_a_log_lies_between_an_ops_start_and_end() -> None:
    view = look(body(terminated(0)), NOW + timedelta(seconds=1))
    assert view.ended is not None
    assert view.start_stamp is not None
    assert view.start_stamp <= NOW.replace(microsecond=0)
    assert view.ended.by == NOW.replace(microsecond=0) + timedelta(seconds=1)
    assert view.ended.at == NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("image_id", "state", "pulled"),
    [
        ("", {"waiting": {"reason": "ContainerCreating"}}, False),
        ("sha", {"waiting": {"reason": "ContainerCreating"}}, True),
        ("", {"running": {"startedAt": JUST}}, True),
    ],
    ids=["being pulled", "pulled", "running, whatever the kubelet says of its image"],
)
def test_when_an_image_has_been_pulled(image_id: str, state: dict[str, Any], pulled: bool) -> None:
    pod = body(state)
    pod["status"]["containerStatuses"][0]["imageID"] = image_id
    assert (look(pod).pulled_at is not None) == pulled


def test_a_container_that_could_not_be_started_has_not_started() -> None:
    epoch = "1970-01-01T00:00:00Z"
    view = look(body(terminated(128, startedAt=epoch, reason="StartError", message="no such file")))
    assert view.started_at is None
    assert view.ended is not None
    assert (view.ended.exit_code, view.ended.reason) == (128, "StartError")


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (body(terminated(0, reason="Completed")), (0, None)),
        (body(terminated(1)), (1, None)),
        (body(terminated(137, reason="OOMKilled")), (137, "OOMKilled")),
        (
            body(terminated(143), status={"phase": "Failed", "reason": "DeadlineExceeded"}),
            (143, "DeadlineExceeded"),
        ),
        (body(status={"phase": "Failed", "reason": "Evicted"}), (None, "Evicted")),
        (body({"running": {"startedAt": JUST}}), None),
        (body(metadata={"deletionTimestamp": JUST, "deletionGracePeriodSeconds": 10}), None),
        (body(metadata={"deletionTimestamp": JUST, "deletionGracePeriodSeconds": 0}), (None, None)),
        (body(nodeName=None, metadata={"deletionTimestamp": JUST}), (None, None)),
    ],
)
def test_when_a_pod_has_ended(pod: dict[str, Any], expected: tuple[int | None, str | None] | None) -> None:
    end = look(pod).ended
    assert (None if end is None else (end.exit_code, end.reason)) == expected


def test_why_it_does_not_start() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    assert look(body(status={"conditions": [unschedulable]})).trouble == (
        "Unschedulable",
        "0/1 nodes are available",
    )
    assert look(body({"waiting": {"reason": "ContainerCreating"}})).trouble is None
    first = look(body({"waiting": {"reason": "ErrImagePull", "message": "one"}})).trouble
    second = look(body({"waiting": {"reason": "ImagePullBackOff", "message": "two"}})).trouble
    assert first == second
    assert first is not None


def test_a_pod_without_a_usable_label_is_passed_over() -> None:
    for labels in ({}, {"nosana.io/op-index": "x"}, {"nosana.io/op-index": "-1"}):
        assert Observer().pods([body(metadata={"labels": labels})], NOW) == []


def test_a_container_that_the_kubelet_starts_again_has_not_ended() -> None:
    crashed = body({"waiting": {"reason": "CrashLoopBackOff"}}, restartPolicy="Always")
    crashed["status"]["containerStatuses"][0] |= {"lastState": terminated(7), "restartCount": 2}
    view = look(crashed)
    assert view.ended is None
    assert view.started_at is not None
    assert view.restarts == 2
    assert view.trouble == ("BackOff", "exit code 7; the kubelet starts it again after a wait")
    assert look(body(terminated(7), restartPolicy="OnFailure", status={"phase": "Running"})).ended is None
    over = look(body(terminated(0), restartPolicy="OnFailure", status={"phase": "Succeeded"}))
    assert over.ended is not None
    assert over.ended.exit_code == 0


def test_which_run_of_its_op_a_pod_is() -> None:
    notes = {"nosana.io/attempt": "2", "nosana.io/restart-tries": "5"}
    view = look(body(metadata={"annotations": notes}))
    assert (view.attempt, view.tries) == (2, 5)
    assert look(body(metadata={"annotations": {"nosana.io/attempt": "-1"}})).attempt == 0
