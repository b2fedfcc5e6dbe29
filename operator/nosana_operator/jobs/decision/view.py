"""What a decision is made from, frozen: the NosanaJob, its definition, its pods, and the moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True)
class Loading:
    """The definition is not here yet; `problem` tells why the last attempt failed, `reason` in one word."""

    problem: str | None = None
    reason: JobReason = JobReason.FETCHING_DEFINITION
    logistics: Logistics | None = None
    """What is on IPFS is a stub: the market host asks the poster for the definition."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The definition is here, valid, served by this version, and in order."""

    context: JobContext
    plan: Plan
    endpoints: tuple[Endpoint, ...] = ()
    """Of all ops, literals replaced."""
    checks: Mapping[int, tuple[Port, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The ports that have health checks, by op index; literals replaced."""


UnusableFlow = Literal[FlowStatus.INIT_ERROR, FlowStatus.VALIDATION_ERROR, FlowStatus.LOGISTICS_ERROR]


@dataclass(frozen=True, slots=True)
class Unusable:
    """The definition can never be run."""

    reason: JobReason
    message: str
    problems: tuple[Problem, ...]
    flow_status: UnusableFlow
    """VALIDATION_ERROR: it was read and breaks the language's rules; LOGISTICS_ERROR: its poster did not give
    it; INIT_ERROR: it could not be had otherwise, or can never run here
    (docs/protocol/node.md#flow-statuses)."""


EndpointState = Literal["Online", "Offline", "Unknown"]
DefinitionState = Loading | Loaded | Unusable


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that ended; `exit_code` is None when it never started.

    `at` is when we saw it; `by` when it was over at the latest, by the kubelet's stamp.
    """

    at: datetime
    by: datetime
    exit_code: int | None
    reason: str | None = None
    """The kubelet's word (OOMKilled, Evicted, …), None for a plain end."""
    message: str | None = None


@dataclass(frozen=True, slots=True)
class PodView:
    """One op's pod. Moments are by our clock, when we saw them (`observe.py`); stamps are the kubelet's."""

    name: str
    uid: str
    op_index: int
    op_id: str = ""
    node: str | None = None
    attempt: int = 0
    tries: int = 0
    """How often at most its op gets another pod when it fails."""
    restarts: int = 0
    """How often the kubelet has started its container again."""
    address: str | None = None
    """Its IP address, once it has one."""
    scheduled_at: datetime | None = None
    pulled_at: datetime | None = None
    fetched_at: datetime | None = None
    started_at: datetime | None = None
    start_stamp: datetime | None = None
    ended: Ended | None = None
    trouble: tuple[str, str] | None = None
    """(reason, sentence) why it does not run: unschedulable, image not pulled, its container keeps ending."""
    trouble_since: datetime | None = None
    silent_since: datetime | None = None
    """Its node does not report: it may run or not."""
    disrupted: str | None = None
    """Why the cluster took it away from its op: evicted, preempted, its node gone."""
    deleting: bool = False
    stopping: bool = False
    """Asked to stop already: a deadline is set, or it is being deleted."""
    held: bool = True
    """Our finalizer is on it."""
    container_id: str | None = None
    previous_id: str | None = None
    """Of the container that ended before it was started again; that of `container_id` while it waits for that."""
    secrets: tuple[str, ...] = ()
    """Those made for it: a login, what to fetch."""
    claims: tuple[str, ...] = ()
    """The job's volumes that it mounts."""


@dataclass(frozen=True, slots=True)
class PortHealth:
    """What is known of one port of one container; `state` is None before the first answer."""

    passed: bool = False
    """All its checks have passed in one round."""
    state: EndpointState | None = None
    problem: str | None = None
    restarts: float = 0
    """The container is to be started again when it was for this reason fewer times than that."""


@dataclass(frozen=True, slots=True)
class OpHealth:
    """What is known of an op's container by the ports that have checks."""

    ports: Mapping[int, PortHealth] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def ready(self) -> bool:
        """All checks of all ports have passed."""
        return bool(self.ports) and all(port.passed for port in self.ports.values())

    @property
    def problem(self) -> str | None:
        """Why a port is not online, for a person."""
        return next((port.problem for port in self.ports.values() if port.problem), None)

    @property
    def restarts(self) -> float:
        """See `PortHealth.restarts`."""
        return max((port.restarts for port in self.ports.values()), default=0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API server did not take an op's objects."""

    since: datetime
    again_at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class JobView:
    """All that `decide` reads."""

    body: Body
    spec: NosanaJobSpec
    status: NosanaJobStatus
    now: datetime
    definition: DefinitionState = Loading()
    pods: Mapping[int, PodView] = field(default_factory=lambda: MappingProxyType({}))
    """Of each op's current attempt, by op index."""
    earlier: tuple[PodView, ...] = ()
    """Of earlier attempts, oldest first; all have ended."""
    lost: frozenset[int] = frozenset()
    """Ops whose pod should be there, and the API server says that it is not."""
    refused: Mapping[int, Refusal] = field(default_factory=lambda: MappingProxyType({}))
    health: Mapping[int, OpHealth] = field(default_factory=lambda: MappingProxyType({}))
    """Of running ops with health checks, by op index."""
    named: Mapping[int, str | None] = field(default_factory=lambda: MappingProxyType({}))
    """Ops whose aliases were published by this process, with the address."""
    volumes: frozenset[int] = frozenset()
    """Ops that make a volume, and whose claim is there."""
    results: Mapping[int, Mapping[str, ResultValue]] = field(default_factory=lambda: MappingProxyType({}))
    """What ops' `results` captured, by op index, of those that were read."""
    result: tuple[str, ...] = ()
    """Names of the Secrets that hold the fixed result."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The object's metadata."""
        return self.body["metadata"]  # type: ignore[no-any-return]

    @property
    def conditions(self) -> Sequence[Mapping[str, Any]]:
        """The conditions as they stand, the market host's among them."""
        return (self.body.get("status") or {}).get("conditions") or ()

    @property
    def generation(self) -> int:
        """metadata.generation. A deletion raises it too, which is no news for the status of what is over."""
        if self.deleting and self.over and self.status.observed_generation is not None:
            return self.status.observed_generation
        return int(self.meta.get("generation", 0))

    @property
    def created(self) -> datetime:
        """When the object was made."""
        return parse_timestamp(self.meta["creationTimestamp"])

    @property
    def deleting(self) -> bool:
        """Somebody deleted the NosanaJob."""
        return "deletionTimestamp" in self.meta

    @property
    def held(self) -> bool:
        """Our finalizer is on the NosanaJob."""
        return FINALIZER_JOB in (self.meta.get("finalizers") or ())

    @property
    def is_market_job(self) -> bool:
        """It belongs to a run on chain."""
        return self.spec.run is not None

    @property
    def first_start(self) -> datetime | None:
        """When the job's first container was seen to run."""
        if self.status.timing is not None and self.status.timing.started is not None:
            return parse_timestamp(self.status.timing.started)
        return min((pod.started_at for pod in self.pods.values() if pod.started_at), default=None)

    @property
    def last_end(self) -> datetime | None:
        """When the last container so far was seen to have ended."""
        return max((pod.ended.at for pod in self.pods.values() if pod.ended), default=None)

    @property
    def may_run(self) -> bool:
        """A market's job runs only when the market host has verified it against the chain.

        (docs/architecture.md#one-job-followed)
        """
        return not self.is_market_job or condition_is_true(self.conditions, JobCondition.RUN_VERIFIED)

    @property
    def suspended(self) -> bool:
        """Nothing of it is to run for now. The CRD refuses it of a run."""
        return self.spec.suspend and not self.is_market_job

    @property
    def over(self) -> bool:
        """The job has ended and its result is fixed."""
        return condition_is_true(self.conditions, JobCondition.COMPLETE) or condition_is_true(
            self.conditions, JobCondition.FAILED
        )
