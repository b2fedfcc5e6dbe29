"""What is known of the container that fetches an op's resources: by its pod's status, and by its log."""

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
from nosana_operator.workload import FETCHER

_PULL_TROUBLE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)

LOOK_EVERY: Final = timedelta(seconds=10)
"""How often a fetch is asked how far it is. Each answer is a request and a write of the status."""
_LOOK_AFTER: Final = timedelta(seconds=5)
"""Most fetches are over by then, and pay nothing."""
_PATIENCE: Final = 2.0
"""Seconds: it is only for a person to read."""
_LONGEST_LINE: Final = 4096


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch was when it was asked."""

    asked: datetime
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """How the fetch of one pod stands."""

    trouble: tuple[str, str] | None = None
    """(reason, sentence) why the op does not run yet."""
    done: str | None = None
    """When everything was there, by the kubelet's stamp."""
    failure: tuple[str, str] | None = None
    """(sentence, stamp) when it ended without."""


def fetch_of(status: Mapping[str, Any]) -> Fetch | None:
    """The fetch that a pod's status tells of; None when its op has no resources, or nothing is told yet."""
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
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _PULL_TROUBLE:
        message = (
            "the image that fetches resources cannot be pulled; check fetch.image in the operator's settings"
        )
        return Fetch(trouble=("ImagePull", message))
    return Fetch()


def _sentence(terminated: Mapping[str, Any]) -> str:
    """The fetcher's last word; when it had none, what became of it."""
    said = (terminated.get("message") or "").strip()
    if said:
        return str(said)
    if terminated.get("reason") == "OOMKilled":
        return "the fetch of its resources needed more memory than the job has; raise memory in its resources"
    return f"the fetch of its resources ended with exit code {terminated.get('exitCode')}, and said nothing"


def is_fetching(pod: PodView) -> bool:
    """Whether the pod's resources are being fetched now."""
    return pod.trouble is not None and pod.trouble[0] == OpReason.FETCHING and pod.ended is None


async def with_progress(
    kube: Kube, namespace: str, pods: Mapping[int, PodView], known: dict[str, Progress], now: datetime
) -> dict[int, PodView]:
    """The pods, those that fetch with how far they are. `known` remembers it by the pod's uid."""
    told: dict[int, PodView] = {}
    fetching = {pod.uid for pod in pods.values() if is_fetching(pod)}
    for gone in known.keys() - fetching:
        del known[gone]
    for index, pod in pods.items():
        told[index] = pod
        if pod.uid not in fetching or pod.trouble_since is None or now - pod.trouble_since < _LOOK_AFTER:
            continue
        before = known.get(pod.uid)
        if before is None or now - before.asked >= LOOK_EVERY:
            sentence = await _ask(kube, namespace, pod.name) or (before.sentence if before else None)
            before = known[pod.uid] = Progress(now, sentence)
        if before.sentence is not None:
            told[index] = replace(pod, trouble=(OpReason.FETCHING.value, before.sentence))
    return told


async def _ask(kube: Kube, namespace: str, pod: str) -> str | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            data = await kube.read_logs(
                namespace, pod, FETCHER, timestamps=False, limit_bytes=_LONGEST_LINE, tail_lines=1
            )
    except (NotFound, Refused, Unavailable, TimeoutError):
        return None
    return progress_sentence(data)


def progress_sentence(line: bytes) -> str | None:
    """What a line of the fetcher's log says, for a person; None when it says nothing of progress."""
    try:
        told = json.loads(line)
        done, total, rate = int(told["bytes"]), told["total"], int(told["rate"])
        files, of = int(told["files"]), int(told["of"])
        whole = "" if total is None else f" of {_size(int(total))}"
    except (ValueError, TypeError, KeyError):
        return None
    return f"fetching its resources: {_size(done)}{whole}, {_size(rate)}/s, {files} of {of} files"


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
