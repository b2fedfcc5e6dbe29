"""What a pod's status tells of the container that fetches an op's resources. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nosana_operator.workload import FETCHER

FETCHING: Final = "Fetching"
FETCH_FAILED: Final = "ResourceFetchFailed"
_PULL_TROUBLE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)


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
        return Fetch(trouble=(FETCHING, "its resources are being fetched"))
    if terminated is not None and terminated.get("exitCode") == 0:
        return Fetch(done=terminated.get("finishedAt"))
    if terminated is not None:
        sentence = _sentence(terminated)
        return Fetch((FETCH_FAILED, sentence), failure=(sentence, terminated.get("finishedAt")))
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
