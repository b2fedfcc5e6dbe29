"""What a pod's status tells of its fetch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nosana_operator.api import LABEL_OP
from nosana_operator.jobs.fetch import Fetch, fetch_of
from nosana_operator.jobs.observe import Observer

STAMP = "2026-01-02T03:04:05Z"
NOW = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)


def status(state: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    fetcher = {"name": "fetch", "state": state, "lastState": last or {}}
    waiting = {"name": "op", "state": {"waiting": {"reason": "PodInitializing"}}}
    return {"phase": "Pending", "initContainerStatuses": [fetcher], "containerStatuses": [waiting], **more}


def ended(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": STAMP, **more}}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, None),
        ({"initContainerStatuses": [{"name": "other", "state": {}}]}, None),
        (status({"running": {"startedAt": STAMP}}), Fetch(("Fetching", "its resources are being fetched"))),
        (status(ended(0)), Fetch(done=STAMP)),
        (status({"waiting": {"reason": "PodInitializing"}}), Fetch()),
        (
            status({"waiting": {"reason": "ImagePullBackOff"}}),
            Fetch(
                (
                    "ImagePull",
                    "the image that fetches resources cannot be pulled; check fetch.image in the operator's settings",
                )
            ),
        ),
        (
            status(ended(1, message="there is no x\n")),
            Fetch(("ResourceFetchFailed", "there is no x"), failure=("there is no x", STAMP)),
        ),
        (
            status({"waiting": {"reason": "CrashLoopBackOff"}}, ended(1, message="no x")),
            Fetch(("ResourceFetchFailed", "no x"), failure=("no x", STAMP)),
        ),
    ],
)
def test_fetch_of(told: dict[str, Any], expected: Fetch | None) -> None:
    assert fetch_of(told) == expected


def test_a_fetch_without_last_words_is_explained() -> None:
    fetch = fetch_of(status(ended(137, reason="OOMKilled")))
    assert fetch is not None
    assert "raise memory" in str(fetch.failure)
    fetch = fetch_of(status(ended(2)))
    assert fetch is not None
    assert "exit code 2" in str(fetch.failure)


def seen(told: dict[str, Any]) -> Any:
    metadata = {"name": "job-0", "uid": "u", "labels": {LABEL_OP: "0"}}
    (view,) = Observer().pods([{"metadata": metadata, "spec": {"nodeName": "n"}, "status": told}], NOW)
    return view


def test_a_failed_fetch_ends_the_op_with_its_sentence() -> None:
    end = seen(status(ended(1, message="there is no x"), phase="Failed")).ended
    assert (end.exit_code, end.reason, end.message) == (None, "ResourceFetchFailed", "there is no x")


def test_an_evicted_pod_says_that_it_was_evicted() -> None:
    end = seen(status(ended(137), phase="Failed", reason="Evicted", message="too much storage")).ended
    assert (end.reason, end.message) == ("Evicted", "too much storage")


def test_while_it_fetches_the_op_has_not_ended() -> None:
    view = seen(status({"running": {"startedAt": STAMP}}))
    assert (view.ended, view.started_at, view.trouble[0]) == (None, None, "Fetching")
    assert seen(status(ended(0))).fetched_at is not None
