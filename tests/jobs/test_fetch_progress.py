"""What a pod's status tells of its fetch."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.api import LABEL_OP
from nosana_operator.errors import Unavailable
from nosana_operator.jobs.fetch_progress import Fetch, Progress, fetch_of, progress_sentence, with_progress
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


LINE = b'{"event": "fetching", "bytes": 1200000000, "total": 14900000000, "rate": 120500000, "files": 3, "of": 8}'
SENTENCE = "fetching its resources: 1.2 GB of 14.9 GB, 120.5 MB/s, 3 of 8 files"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (LINE + b"\n", SENTENCE),
        (
            b'{"event": "fetching", "bytes": 5, "total": null, "rate": 0, "files": 0, "of": 1}',
            "fetching its resources: 5 B, 0 B/s, 0 of 1 files",
        ),
        (b'{"event": "retrying", "file": "x", "message": "busy", "seconds": 1}', None),
        (b"[1]", None),
        (b"", None),
        (b"\xff{", None),
    ],
)
def test_progress_sentence(line: bytes, sentence: str | None) -> None:
    assert progress_sentence(line) == sentence


class Logs:
    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)

    async def read_logs(self, *_: object, **__: object) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_long_fetch_is_asked_now_and_then() -> None:
    kube: Any = Logs(LINE, Unavailable("no answer"), LINE.replace(b"1200000000", b"2400000000"))
    pod = replace(seen(status({"running": {"startedAt": STAMP}})), trouble_since=NOW)
    known: dict[str, Progress] = {}
    said = []
    for seconds in (0, 4, 10, 12, 20, 30):
        told = await with_progress(kube, "jobs", {0: pod}, known, NOW + timedelta(seconds=seconds))
        said.append(told[0].trouble[1])  # type: ignore[index]
    plain, further = "its resources are being fetched", SENTENCE.replace("1.2 GB", "2.4 GB")
    assert said == [plain, plain, SENTENCE, SENTENCE, SENTENCE, further]
    assert kube.answers == []
    over = replace(pod, trouble=None)
    assert await with_progress(kube, "jobs", {0: over}, known, NOW) == {0: over}
    assert known == {}
