"""The progress of the container that fetches an op's resources, from its pod's status and its log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.jobs.decision.ops import OpReason
from nosana_operator.jobs.decision.view import PodView
from nosana_operator.jobs.ports import Kube
from nosana_operator.jobs.waiting import waiting_trouble
from nosana_operator.workload import FETCHER

READ_EVERY: Final = timedelta(seconds=10)
"""How often the progress of a fetch is read. Each time costs a request and a status write."""
_READ_AFTER: Final = timedelta(seconds=5)
"""Most fetches are done by then and cost nothing."""
_READ_TIMEOUT: Final = 2.0
"""Seconds. The progress is only informative."""
_LONGEST_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch was when its log was read."""

    read_at: datetime
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """The state of one pod's fetch."""

    trouble: tuple[str, str] | None = None
    """(reason, message): why the op does not run yet."""
    done: str | None = None
    """When the fetch succeeded, by the kubelet's timestamp."""
    failure: tuple[str, str] | None = None
    """(message, timestamp) of a fetch that failed."""


def fetch_of(status: Mapping[str, Any]) -> Fetch | None:
    """The fetch of a pod; None when its op has no resources, or the status has nothing about it yet."""
    container = next((c for c in status.get("initContainerStatuses") or () if c["name"] == FETCHER), None)
    if container is None:
        return None
    state = container.get("state") or {}
    terminated = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if state.get("running"):
        return Fetch(trouble=(OpReason.FETCHING.value, "its resources are being fetched"))
    if terminated is not None and terminated.get("exitCode") == 0:
        return Fetch(done=terminated.get("finishedAt"))
    if terminated is not None:
        sentence = _sentence(terminated)
        return Fetch(
            (OpReason.RESOURCE_FETCH_FAILED.value, sentence), failure=(sentence, terminated.get("finishedAt"))
        )
    no_image = (
        "the image that fetches resources cannot be pulled; check fetch.image in the operator's settings"
    )
    return Fetch(trouble=waiting_trouble(state.get("waiting"), None, no_image=no_image))


def _sentence(terminated: Mapping[str, Any]) -> str:
    """The fetcher's own message; without one, how its container ended."""
    message = (terminated.get("message") or "").strip()
    if message:
        return str(message)
    if terminated.get("reason") == "OOMKilled":
        return "fetching its resources needed more memory than the job has; raise memory in its resources"
    return f"fetching its resources ended with exit code {terminated.get('exitCode')} and no message"


def is_fetching(pod: PodView) -> bool:
    """Whether the pod is fetching resources now."""
    return pod.trouble is not None and pod.trouble[0] == OpReason.FETCHING and pod.ended is None


async def with_progress(
    kube: Kube, namespace: str, pods: Mapping[int, PodView], last_read: dict[str, Progress], now: datetime
) -> dict[int, PodView]:
    """The pods, with the progress of those that fetch. `last_read` keeps it by the pod's uid."""
    result: dict[int, PodView] = {}
    fetching = {pod.uid for pod in pods.values() if is_fetching(pod)}
    for gone in last_read.keys() - fetching:
        del last_read[gone]
    for index, pod in pods.items():
        result[index] = pod
        if pod.uid not in fetching or pod.trouble_since is None or now - pod.trouble_since < _READ_AFTER:
            continue
        progress = last_read.get(pod.uid)
        if progress is None or now - progress.read_at >= READ_EVERY:
            sentence = await _read(kube, namespace, pod.name) or (progress.sentence if progress else None)
            progress = last_read[pod.uid] = Progress(now, sentence)
        if progress.sentence is not None:
            result[index] = replace(pod, trouble=(OpReason.FETCHING.value, progress.sentence))
    return result


async def _read(kube: Kube, namespace: str, pod: str) -> str | None:
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            data = await kube.read_logs(
                namespace, pod, FETCHER, timestamps=False, limit_bytes=_LONGEST_LINE, tail_lines=1
            )
    except (NotFound, Refused, Unavailable, TimeoutError):
        return None
    return progress_sentence(data)


def progress_sentence(line: bytes) -> str | None:
    """The progress in a line of the fetcher's log, as a message; None when the line has none."""
    try:
        entry = json.loads(line)
        done, total, rate = int(entry["bytes"]), entry["total"], int(entry["rate"])
        files, of = int(entry["files"]), int(entry["of"])
        whole = "" if total is None else f" of {_size(int(total))}"
    except (ValueError, TypeError, KeyError):
        return None
    return f"fetching its resources: {_size(done)}{whole}, {_size(rate)}/s, {files} of {of} files"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
