"""The frozen input of a decision: the NosanaJob, its definition, its pods, and the current time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from nosana_operator.api import (
    FINALIZER_JOB,
    Endpoint,
    JobCondition,
    JobReason,
    Logistics,
    NosanaJobSpec,
    NosanaJobStatus,
    condition_is_true,
    parse_timestamp,
)
from nosana_operator.definition import Plan, Port, Problem
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.definition.literals import ResultValue
from nosana_operator.ports import Body
from nosana_operator.workload import JobContext

SMALL_DEFINITION: Final = 8 * 1024
"""Bytes. A definition of this size is parsed and planned, and its job decided, within some milliseconds."""
_FEW_ENDPOINTS: Final = 64


@dataclass(frozen=True, slots=True)
class Loading:
    """The definition was not loaded yet; `problem` says why the last attempt failed, `reason` is its typed form."""

    problem: str | None = None
    reason: JobReason = JobReason.FETCHING_DEFINITION
    logistics: Logistics | None = None
    """Set when IPFS has only a stub: the market host then asks the poster for the definition."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The definition was loaded, is valid, and this version can run it."""

    context: JobContext
    plan: Plan
    endpoints: tuple[Endpoint, ...] = ()
    """The endpoints of all ops, with literals replaced."""
    checks: Mapping[int, tuple[Port, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The ports that have health checks, by op index, with literals replaced."""

    @property
    def is_large(self) -> bool:
        """Whether a decision about it takes long enough to delay other jobs on the event loop."""
        return self.context.definition.size > SMALL_DEFINITION or len(self.endpoints) > _FEW_ENDPOINTS


UnusableFlow = Literal[FlowStatus.INIT_ERROR, FlowStatus.VALIDATION_ERROR, FlowStatus.LOGISTICS_ERROR]


@dataclass(frozen=True, slots=True)
class Unusable:
    """The definition can never be run."""

    reason: JobReason
    message: str
    problems: tuple[Problem, ...]
    flow_status: UnusableFlow
    """VALIDATION_ERROR: the definition breaks the language's rules. LOGISTICS_ERROR: its poster did not deliver
    it. INIT_ERROR: it could not be fetched, or this cluster can never run it
    (docs/protocol/node.md#flow-statuses)."""


EndpointState = Literal["Online", "Offline", "Unknown"]
DefinitionState = Loading | Loaded | Unusable


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a container; `exit_code` is None when it never started.

    `at` is when this process saw the end; `by` is the latest moment at which the container had ended, by the
    kubelet's timestamp.
    """

    at: datetime
    by: datetime
    exit_code: int | None
    reason: str | None = None
    """The kubelet's reason (OOMKilled, Evicted, …); None when the container simply exited."""
    message: str | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """One op's pod. Moments are taken by our clock (`observe.py`); `start_stamp` is the kubelet's."""

    name: str
    uid: str
    op_index: int
    op_id: str = ""
    node: str | None = None
    attempt: int = 0
    tries: int = 0
    """How often the op gets another pod after a failure, at most."""
    restarts: int = 0
    """How often the kubelet restarted the container."""
    address: str | None = None
    """The pod's IP address, once it has one."""
    scheduled_at: datetime | None = None
    pulled_at: datetime | None = None
    fetched_at: datetime | None = None
    started_at: datetime | None = None
    start_stamp: datetime | None = None
    ended: Ended | None = None
    trouble: tuple[str, str] | None = None
    """(reason, message): why the op does not run, for example because no node takes the pod."""
    trouble_since: datetime | None = None
    silent_since: datetime | None = None
    """Since when the pod's node has not reported; whether the pod still runs is unknown."""
    disrupted: str | None = None
    """Why the cluster removed the pod: it was evicted or preempted, or its node is gone."""
    refused: bool = False
    """The kubelet failed the pod without running its container; `disrupted` then has the kubelet's message."""
    deleting: bool = False
    stopping: bool = False
    """The pod has been told to stop: a deadline is set, or it is being deleted."""
    held: bool = True
    """The pod carries our finalizer."""
    container_id: str | None = None
    previous_id: str | None = None
    """The id of the run before the current restart; equal to `container_id` while the restart is pending."""
    secrets: tuple[str, ...] = ()
    """The Secrets created for this pod: a registry login, the list of resources to fetch."""
    claims: tuple[str, ...] = ()
    """The PersistentVolumeClaims of the job that the pod mounts."""


@dataclass(frozen=True, slots=True)
class PortHealth:
    """The health of one port of one container; `state` is None before the first answer."""

    passed: bool = False
    """All checks of the port passed in one round."""
    state: EndpointState | None = None
    problem: str | None = None
    restarts: float = 0
    """How many restarts after failed checks the op may have; the container is restarted while it had fewer."""


@dataclass(frozen=True, slots=True)
class OpHealth:
    """The health of an op's container: the ports that have checks."""

    ports: Mapping[int, PortHealth] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ready(self) -> bool:
        """All checks of all ports have passed."""
        return bool(self.ports) and all(port.passed for port in self.ports.values())

    @property
    def problem(self) -> str | None:
        """A message that says why a port is not online."""
        return next((port.problem for port in self.ports.values() if port.problem), None)

    @property
    def restarts(self) -> float:
        """See `PortHealth.restarts`."""
        return max((port.restarts for port in self.ports.values()), default=0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server refused an op's objects."""

    since: datetime
    again_at: datetime
    message: str
    no_room: bool = False
    """A ResourceQuota is used up: it is a lack of room like any other, which passes when other pods end."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a job is ended from outside, before its ops are done."""

    reason: JobReason
    message: str


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that `decide` reads."""

    body: Body
    spec: NosanaJobSpec
    status: NosanaJobStatus
    now: datetime
    definition: DefinitionState = Loading()
    pods: Mapping[int, PodView] = field(default_factory=lambda: MappingProxyType({}))
    """The pod of each op's current attempt, by op index."""
    earlier: tuple[PodView, ...] = ()
    """The pods of earlier attempts, oldest first; all have ended."""
    lost: frozenset[int] = frozenset()
    """Ops whose pod should exist, but the API server answered that it does not."""
    refused: Mapping[int, Refusal] = field(default_factory=lambda: MappingProxyType({}))
    health: Mapping[int, OpHealth] = field(default_factory=lambda: MappingProxyType({}))
    """The health of running ops that have checks, by op index."""
    published_aliases: Mapping[int, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """The address that this process published for the aliases of an op, by op index."""
    volumes: frozenset[int] = frozenset()
    """The `create-volume` ops whose claim exists."""
    results: Mapping[int, Mapping[str, ResultValue]] = field(default_factory=lambda: MappingProxyType({}))
    """The captured `results` by op index, for the ops whose logs were read."""
    result: tuple[str, ...] = ()
    """The names of the Secrets that store the result."""
    unwritten_cause: Cause | None = None
    """Why this process stopped the job's pods although the status could not be written."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The object's metadata."""
        return self.body["metadata"]  # type: ignore[no-any-return]

    @property
    def conditions(self) -> Sequence[Mapping[str, Any]]:
        """The current conditions, including the market host's."""
        return (self.body.get("status") or {}).get("conditions") or ()

    @property
    def generation(self) -> int:
        """metadata.generation. A deletion increases it too; the status of an ended job ignores that."""
        if self.deleting and self.over and self.status.observed_generation is not None:
            return self.status.observed_generation
        return int(self.meta.get("generation", 0))

    @property
    def created(self) -> datetime:
        """When the NosanaJob was created."""
        return parse_timestamp(self.meta["creationTimestamp"])

    @property
    def deleting(self) -> bool:
        """Somebody deleted the NosanaJob."""
        return "deletionTimestamp" in self.meta

    @property
    def held(self) -> bool:
        """The NosanaJob carries our finalizer."""
        return FINALIZER_JOB in (self.meta.get("finalizers") or ())

    @property
    def is_market_job(self) -> bool:
        """The job belongs to a run on chain."""
        return self.spec.run is not None

    @property
    def first_start(self) -> datetime | None:
        """When this process saw the job's first container run."""
        if self.status.timing is not None and self.status.timing.started is not None:
            return parse_timestamp(self.status.timing.started)
        return min((pod.started_at for pod in self.pods.values() if pod.started_at), default=None)

    @property
    def last_end(self) -> datetime | None:
        """When this process saw the latest end of a container."""
        return max((pod.ended.at for pod in self.pods.values() if pod.ended), default=None)

    @property
    def may_run(self) -> bool:
        """Whether the job may run: a market's job only after the market host verified it against the chain.

        (docs/architecture.md#one-job-followed)
        """
        return not self.is_market_job or condition_is_true(self.conditions, JobCondition.RUN_VERIFIED)

    @property
    def suspended(self) -> bool:
        """Whether the job is suspended. The CRD allows that for private jobs only."""
        return self.spec.suspend and not self.is_market_job

    @property
    def over(self) -> bool:
        """Whether the job has ended and its result is stored."""
        return condition_is_true(self.conditions, JobCondition.COMPLETE) or condition_is_true(
            self.conditions, JobCondition.FAILED
        )
