"""Nodes whose kubelet refuses pods: which ones, and until when they get no new job. Pure.

The scheduler places a pod by what a node reports. Its kubelet can still refuse the pod (UnexpectedAdmissionError when
a device plugin fails, OutOfcpu, a wrong topology), and the pod fails before any container starts. To the scheduler such
a node looks empty, so it would get the next job too, and the one after that:

    node bad    pod 1 refused    pod 2 refused    pod 3 refused   │ held back for 1 min, then 2, 4, … 30
    slots       counted          counted          counted         │ not counted, then counted again

A node that refused three pods in a row is held back: it counts no slots for a while, then gets another chance. The
next refusal holds it back for twice as long, and a pod that starts there ends it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from nosana_operator.api import LABEL_JOB_UID, find_condition, parse_timestamp

REFUSALS_IN_A_ROW: Final = 3
"""A node that refused this many pods, and started none between them, is held back."""
FIRST_HOLD: Final = timedelta(minutes=1)
LONGEST_HOLD: Final = timedelta(minutes=30)
"""How long a node is held back at most before it gets another chance."""
REMEMBERED: Final = timedelta(hours=2)
"""What happened longer ago says nothing about a node."""


@dataclass(frozen=True, slots=True)
class PodStart:
    """What became of one pod of a job on its node."""

    uid: str
    node: str
    scheduled_at: datetime
    refusal: str | None
    """Why the kubelet refused it, in its words; None: a container of it started."""


@dataclass(frozen=True, slots=True)
class RefusingNode:
    """A node that is held back."""

    node: str
    refusals: int
    """In a row."""
    until: datetime
    reason: str
    """Of the last one, in the kubelet's words."""


def pod_start(pod: Mapping[str, Any]) -> PodStart | None:
    """What became of a job's pod; None: nothing yet, or it is no pod of a job."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    node = (pod.get("spec") or {}).get("nodeName")
    if not node or LABEL_JOB_UID not in (metadata.get("labels") or {}):
        return None
    started = any(
        _has_started(one)
        for field in ("containerStatuses", "initContainerStatuses")
        for one in status.get(field) or ()
    )
    if not started and (status.get("phase") != "Failed" or not status.get("reason")):
        return None
    if not started and metadata.get("deletionTimestamp"):
        return None  # Somebody deleted it before it started; a kubelet calls that a failure too.
    scheduled = find_condition(status.get("conditions"), "PodScheduled") or {}
    at = parse_timestamp(scheduled.get("lastTransitionTime") or metadata["creationTimestamp"])
    words = ": ".join(filter(None, (status.get("reason"), status.get("message"))))
    return PodStart(metadata["uid"], node, at, None if started else words)


def _has_started(container: Mapping[str, Any]) -> bool:
    return any(
        "running" in state
        # A container that never started has an end without a start, or one in 1970.
        or not str((state.get("terminated") or {}).get("startedAt") or "1970").startswith("1970")
        for state in (container.get("state") or {}, container.get("lastState") or {})
    )


def refusing_nodes(starts: Iterable[PodStart], now: datetime) -> dict[str, RefusingNode]:
    """The nodes that are held back now, by name."""
    by_node: dict[str, list[PodStart]] = defaultdict(list)
    for start in sorted(starts, key=lambda one: (one.scheduled_at, one.uid)):
        if start.refusal is None:
            by_node[start.node].clear()
        else:
            by_node[start.node].append(start)
    out = {}
    for node, refused in by_node.items():
        if len(refused) < REFUSALS_IN_A_ROW:
            continue
        hold = min(FIRST_HOLD * 2 ** min(len(refused) - REFUSALS_IN_A_ROW, 10), LONGEST_HOLD)
        until = refused[-1].scheduled_at + hold
        if now < until:
            out[node] = RefusingNode(node, len(refused), until, refused[-1].refusal or "")
    return out
