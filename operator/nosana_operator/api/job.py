"""NosanaJob: one Nosana job definition, run by this cluster, for a market's run or privately."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from nosana_operator.api.common import (
    LIST_BY_TYPE,
    Address,
    ApiModel,
    Cid,
    ConditionModel,
    DnsLabel,
    Exposure,
    Gpu,
    ObjectName,
    Resources,
    StatusModel,
    Time,
)
from nosana_operator.definition import limits
from nosana_operator.transactions import SettlementKind

MAX_RESULT_TEXT: Final = 32 * 1024
"""Bytes of captured results in a status, all ops together."""

Phase = Literal["Pending", "Starting", "Running", "Stopping", "Settling", "Completed", "Failed", "Stopped"]


class KeyRef(ApiModel):
    """A key of a ConfigMap or Secret in the job's namespace."""

    name: ObjectName = Field(description="Of the ConfigMap or Secret.")
    key: str = Field(
        default="definition.json",
        min_length=1,
        max_length=253,
        description="Under which it has the definition.",
    )


class DefinitionFrom(ApiModel):
    """Where the definition is read from; exactly one."""

    ipfs: Cid | None = Field(default=None, description="CID; what the gateways give is verified against it.")
    config_map: KeyRef | None = None
    secret: KeyRef | None = None


class MarketRef(ApiModel):
    """The NosanaMarket that this job came through."""

    namespace: DnsLabel = Field(description="Of the NosanaMarket.")
    name: ObjectName = Field(description="Of the NosanaMarket.")


class Run(ApiModel):
    """The on-chain run of a market's job. Only the market host writes it; immutable.

    A NosanaJob with it runs only after the market host has verified it against the chain (`RunVerified`).
    """

    market_ref: MarketRef
    market: Address = Field(description="The market's address.")
    job: Address = Field(description="The job account's address.")
    run: Address = Field(description="The run account's address: what everything of this run goes by.")
    node: Address = Field(description="The key that holds the run.")
    project: Address = Field(description="The job's owner.")
    payer: Address = Field(description="Who paid the job's deposit and gets the rest back.")
    run_payer: Address = Field(description="Who paid the run account's rent and gets it back.")
    price: int = Field(ge=0, description="NOS base units (10^-6) per second.")
    started_at: Time = Field(description="run.time of the chain.")


class NosanaJobSpec(ApiModel):
    """What to run, and with what."""

    definition: dict[str, Any] | None = Field(
        default=None,
        description="The Nosana job definition itself.",
        json_schema_extra={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    )
    definition_from: DefinitionFrom | None = None
    timeout: int | None = Field(
        default=None,
        ge=1,
        description="Seconds from the first container's start until the job ends as expired; unset: none. "
        "A market's job ends at its run's time-out on chain instead.",
    )
    gpu: Gpu = Gpu()
    resources: Resources = Resources()
    runtime_class_name: str | None = Field(
        default=None, max_length=253, description="RuntimeClass of its pods; unset: the nodes' default."
    )
    exposure: Exposure = Exposure()
    on_no_capacity: Literal["Finish", "Quit", "Wait"] | None = Field(
        default=None,
        description="When no node can take an op for 5 minutes: Wait, or end the job (Finish; a market's job "
        "by Quit is given back unpaid). Unset: Finish for a market's job, Wait for a private one.",
    )
    node_loss_policy: Literal["Retry", "Fail"] = Field(
        default="Retry",
        description="What becomes of an op whose node is gone for good, or which was evicted: run again "
        "within the job's time, or failed.",
    )
    suspend: bool = Field(
        default=False,
        description="True starts nothing and stops what runs, until it is false again; ops that were stopped "
        "are run again from their beginning. Time counts on. Private jobs only.",
    )
    stop: bool = Field(default=False, description="True stops the job; its result is kept.")
    run: Run | None = None


class OpStatus(StatusModel):
    """One op as it stands."""

    id: str = Field(max_length=limits.MAX_NAME, description="As the definition names it.")
    index: int = Field(description="Its place in the definition, from 0.")
    stage: str = Field(
        max_length=limits.MAX_NAME, description="Its execution.group: ops of a stage run at once."
    )
    state: Literal["Waiting", "Starting", "Running", "Stopping", "Succeeded", "Failed", "Stopped"] = Field(
        description="How it stands."
    )
    pod: str | None = Field(default=None, description="The pod of its newest run.")
    node: str | None = Field(default=None, description="Where that pod is.")
    exit_code: int | None = Field(default=None, description="Of its container, once that has ended.")
    attempt: int | None = Field(default=None, description="Which of the op's pods this is, from 0.")
    restarts: int | None = Field(default=None, description="Runs after a failure, by its restart policy.")
    health_restarts: int | None = Field(
        default=None, description="Runs after a failed health check (restart_on_failure)."
    )
    started_at: Time | None = None
    ready_at: Time | None = Field(
        default=None,
        description="When all its health checks had passed; an op without is ready once it runs.",
    )
    ended_at: Time | None = None
    reason: str | None = Field(default=None, description="A word for why it stands so.")
    message: str | None = Field(
        default=None, max_length=limits.MAX_MESSAGE, description="The same as a sentence."
    )
    results: dict[str, Annotated[str, Field(max_length=MAX_RESULT_TEXT)]] | None = Field(
        default=None,
        description="What its `results` captured, each as JSON; all of it, large ones too, is in the result.",
    )


class Endpoint(StatusModel):
    """One exposed port."""

    op: str
    port: int
    id: str = Field(description="The service id, 44 characters: the first label of its host.")
    url: str | None = Field(default=None, description="From outside the cluster.")
    service: str | None = Field(default=None, description="host:port inside the cluster.")
    state: Literal["Online", "Offline", "Unknown"] = Field(
        default="Unknown", description="By its health checks; Unknown: it could not be asked."
    )


class Timing(StatusModel):
    """Moments of the job's way, by the operator's clock. Each part is written once."""

    matched: Time | None = Field(default=None, description="The run began on chain: its paid time counts.")
    created: Time | None = Field(default=None, description="The NosanaJob was made.")
    accepted: Time | None = Field(default=None, description="The definition was there and usable.")
    scheduled: Time | None = Field(default=None, description="The first pod had a node.")
    pulled: Time | None = Field(default=None, description="Its images were there.")
    fetched: Time | None = Field(default=None, description="Its resources were there.")
    started: Time | None = Field(default=None, description="The first container ran.")
    ready: Time | None = Field(default=None, description="It served, or had ended well.")
    ended: Time | None = Field(default=None, description="Its result was fixed.")
    settled: Time | None = Field(default=None, description="Its settlement was final.")


class RunStatus(StatusModel):
    """What the market host last saw of the run on chain; the job controller goes by it."""

    timeout: int | None = Field(default=None, description="The job account's time-out, seconds.")
    max_timeout: int | None = Field(
        default=None,
        description="The NosanaMarket's maxTimeout, where it ends the run before the time-out does.",
    )
    expires_at: Time | None = Field(default=None, description="When the run expires, by our clock.")
    ended: Literal["OwnerEnded", "RunGone"] | None = Field(
        default=None, description="The run was closed by somebody else."
    )


class Transaction(StatusModel):
    """A signed transaction, durable before it was sent. Harmless to send again: the chain takes it once."""

    kind: str = Field(max_length=32)
    key: str = Field(max_length=44, description="The wallet that signed.")
    signature: str = Field(max_length=96)
    raw: str = Field(max_length=2048, description="The signed bytes, base64.")
    blockhash: str = Field(max_length=44)
    last_valid_block_height: int
    signed_at: Time
    epoch: int | None = Field(
        default=None, ge=0, description="The term of the process that signed, as its Lease counts them."
    )
    run: str | None = Field(default=None, max_length=44)


class Logistics(StatusModel):
    """Where a confidential job's definition comes from and its result goes, as its stub on IPFS says."""

    send: str = Field(max_length=limits.MAX_ENDPOINT, description="Asked for the definition.")
    receive: str = Field(max_length=limits.MAX_ENDPOINT, description="Given the result.")


class Delivery(StatusModel):
    """What has passed between the market host and the poster of a confidential job."""

    definition: Literal["Waiting", "Stored", "Refused"] = "Waiting"
    definition_problem: str | None = Field(default=None, max_length=1024)
    result: Literal["Posting", "Delivered", "Undelivered"] | None = None
    result_problem: str | None = Field(default=None, max_length=1024)


class Settlement(StatusModel):
    """How the run is settled on chain."""

    kind: SettlementKind
    result_cid: str | None = Field(default=None, alias="resultCID")
    pinned: bool | None = Field(default=None, description="A pin service has taken the result.")
    published: bool | None = Field(
        default=None, description="The gateways have given the result back, byte for byte."
    )
    transaction: Transaction | None = None
    failures: int | None = Field(default=None, description="Transactions that the chain refused.")
    seconds_paid: int | None = None
    earned: int | None = Field(default=None, description="NOS base units paid to the payout account.")
    refunded: int | None = Field(default=None, description="NOS base units returned to the payer.")


class NosanaJobStatus(StatusModel):
    """What happened. Two writers with disjoint fields: the job controller and the market host
    (docs/architecture.md#two-writers-of-one-status)."""

    observed_generation: int | None = None
    phase: Phase | None = Field(default=None, description="For people; programs go by the conditions.")
    conditions: tuple[ConditionModel, ...] = Field(default=(), json_schema_extra=LIST_BY_TYPE, max_length=32)
    ops: tuple[OpStatus, ...] = Field(
        default=(),
        max_length=limits.MAX_OPS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["index"]},
    )
    endpoints: tuple[Endpoint, ...] = Field(
        default=(),
        max_length=limits.MAX_PORTS,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"]},
    )
    result_secrets: tuple[str, ...] = Field(
        default=(), max_length=8, description="Secrets that hold the result's bytes, in order."
    )
    timing: Timing | None = None
    logistics: Logistics | None = None
    # The market host's.
    run: RunStatus | None = None
    delivery: Delivery | None = None
    settlement: Settlement | None = None
    result_cid: str | None = Field(default=None, alias="resultCID")

    JOB_FIELDS: ClassVar = frozenset(
        {
            "observedGeneration",
            "phase",
            "conditions",
            "ops",
            "endpoints",
            "resultSecrets",
            "timing",
            "logistics",
        }
    )
