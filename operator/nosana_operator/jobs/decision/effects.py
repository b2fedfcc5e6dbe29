"""The effects that a decision may ask for. Each may safely be repeated after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from nosana_operator.api import OpStatus
from nosana_operator.definition import Problem
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.model import ResultPattern
from nosana_operator.jobs.decision.view import Cause, PodView
from nosana_operator.ports import Body


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Add our finalizer to the NosanaJob before any object exists that the finalizer guards."""


@dataclass(frozen=True, slots=True)
class StartOp:
    """Create an op's objects in order, the pod last. Objects of ours that exist already are adopted."""

    op_index: int
    bodies: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class CaptureResults:
    """Capture the `results` of an ended op from its log; at most `max_bytes` are kept."""

    op: OpStatus
    pods: tuple[PodView, ...]
    patterns: Mapping[str, str | ResultPattern]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Read the logs, build the FlowState and store its bytes. A stored result is never replaced."""

    status: FlowStatus
    ops: tuple[OpStatus, ...]
    pods: tuple[PodView, ...]
    """The pods whose logs are read."""
    start_ms: int
    end_ms: int
    cause: Cause | None = None
    host_shut_down: bool = False
    """The host's admin ended a poster's job."""
    results: Mapping[int, Mapping[str, ResultValue]] = field(default_factory=dict)
    """The captured `results` by op index."""
    problems: tuple[Problem, ...] = ()
    """The problems of an unusable definition."""
    without_logs: str | None = None
    """Why the result has no logs; None: the logs are read."""


@dataclass(frozen=True, slots=True)
class StopPod:
    """Stop a pod gracefully and keep the object, so that its exit code and log can be read."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete a pod that never started."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Remove our finalizer from a pod whose exit code and log were read."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Delete an object that an op or the job no longer needs: a registry login, a volume."""

    kind: Literal["Secret", "PersistentVolumeClaim"]
    name: str


@dataclass(frozen=True, slots=True)
class PublishAliases:
    """Publish the address of an op's aliases, or withdraw them: `address` is None once the pod has ended."""

    op_index: int
    body: Body
    address: str | None


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Remove our finalizer from the deleted NosanaJob."""


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Record an Event on the NosanaJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


Before = AddFinalizer | StartOp | CaptureResults | StoreResult
"""Carried out before the status is written; then the decision is made again with their outcomes."""
After = StopPod | DeletePod | ReleasePod | DeleteChild | PublishAliases | RemoveFinalizer
"""Carried out after the status is written, because the status says why."""

STOPS: Final = (StopPod, DeletePod)
"""Effects that end pods; they precede all others."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. When `before` is not empty, only that is done, and the next decision says the rest."""

    before: tuple[Before, ...] = ()
    status: dict[str, Any] | None = None
    """The job controller's whole part of the status; None: no write."""
    after: tuple[After, ...] = ()
    events: tuple[RecordEvent, ...] = ()
    requeue_after: float | None = None
    """Seconds; None: the passing of time alone changes nothing."""
