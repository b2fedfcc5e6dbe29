"""Why a container that a kubelet reports as waiting does not start. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nosana_operator.jobs.decision.ops import OpReason

_NORMAL: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
"""Every other reason is trouble, also one that a later kubelet invents."""
_PULL: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
NO_IMAGE: Final = "the image cannot be pulled; check its name, and that the node reaches its registry"


def waiting_trouble(
    waiting: Mapping[str, Any] | None, last: Mapping[str, Any] | None, *, no_image: str = NO_IMAGE
) -> tuple[str, str] | None:
    """(reason, message) for a container that has never run; None while it starts normally.

    `waiting` is its state, `last` how it ended before. `no_image` is the message for an image that cannot be pulled:
    ErrImagePull and ImagePullBackOff take turns, so it does not quote them.
    """
    state = waiting or {}
    reason = str(state.get("reason") or "")
    if reason in _NORMAL:
        return None
    if reason in _PULL:
        return OpReason.IMAGE_PULL.value, no_image
    detail = (last or {}).get("message") if reason == "CrashLoopBackOff" else state.get("message")
    return OpReason.NOT_CREATED.value, f"the container cannot be created: {detail or reason}"
