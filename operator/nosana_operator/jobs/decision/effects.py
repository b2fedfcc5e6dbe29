"""What a decision may want done. Each is harmless to do again after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nosana_operator.api import OpStatus
from nosana_operator.definition import Problem
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.model import ResultPattern
from nosana_operator.jobs.decision.ending import Cause
from nosana_operator.jobs.decision.view import PodView
from nosana_operator.ports import Body


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Put our finalizer on the NosanaJob, before anything exists that it guards."""


@dataclass(frozen=True, slots=True)
class StartOp:
    """Create an op's objects in their order, the pod last. What exists already and is ours is taken over."""

    op_index: int
    bodies: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class CaptureResults:
    """Read an ended op's log for its `results`; at most `max_bytes` of them are kept."""

    op: OpStatus
    pods: tuple[PodView, ...]
    patterns: Mapping[str, str | ResultPattern]
    max_bytes: int


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Read the logs, build the FlowState and fix its bytes. A result that exists is never made anew."""

    status: FlowStatus
    ops: tuple[OpStatus, ...]
    pods: tuple[PodView, ...]
    """Whose logs are read."""
    start_ms: int
    end_ms: int
    cause: Cause | None = None
    host_shut_down: bool = False
    """It was the host's admin who ended a poster's job."""
    results: Mapping[int, Mapping[str, ResultValue]] = field(default_factory=dict)
    """What ops' `results` captured, by op index."""
    problems: tuple[Problem, ...] = ()
    """Of an unusable definition."""


@dataclass(frozen=True, slots=True)
class StopPod:
    """End a pod gracefully and keep it, so that its exit code and log can be read."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Take back a pod that never started."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class ReleasePod:
    """Take our finalizer from a pod that was read."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Take back what an op, or the job, needs no longer: a login, a volume."""

    kind: Literal["Secret", "PersistentVolumeClaim"]
    name: str


@dataclass(frozen=True, slots=True)
class PublishNames:
    """Say which address an op's aliases stand for; with None its pod has ended, and they go."""

    op_index: int
    body: Body
    address: str | None


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Let the deleted NosanaJob go."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Record an Event on the NosanaJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str


Before = AddFinalizer | StartOp | CaptureResults | StoreResult
"""Done before the status is written, and then all is decided again with what they brought."""
After = StopPod | DeletePod | ReleasePod | DeleteChild | PublishNames | RemoveFinalizer
"""Done after the status is written: it holds why."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. With `before`, only that; the rest is for a decision made afterwards."""

    before: tuple[Before, ...] = ()
    status: dict[str, Any] | None = None
    """The job controller's whole part of the status; None leaves it."""
    after: tuple[After, ...] = ()
    events: tuple[Announce, ...] = ()
    requeue_after: float | None = None
    """Seconds; None: nothing happens by the mere passing of time."""
