"""NosanaMarket: a market that this cluster offers slots to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nosana_operator.api.common import (
    LIST_BY_TYPE,
    Address,
    ApiModel,
    ConditionModel,
    DnsLabel,
    Exposure,
    Gpu,
    ObjectName,
    Resources,
    StatusModel,
    Time,
)
from nosana_operator.api.job import Transaction


class SecretRef(ApiModel):
    """A wallet's key: an entry of a Secret in the NosanaMarket's namespace."""

    name: ObjectName = Field(description="The Secret's name.")
    key: str = Field(
        default="id.json",
        min_length=1,
        max_length=253,
        description="The entry of the Secret with the keypair, in the format of Solana's tools.",
    )


class Wallet(ApiModel):
    """One wallet that joins the market's queue."""

    secret_ref: SecretRef


class Slots(ApiModel):
    """How many jobs at once, and what each may use besides its GPUs."""

    max: int | None = Field(
        default=None, ge=0, le=10000, description="The most slots; unset: as many as nodes and quotas hold."
    )
    reserve: int = Field(default=0, ge=0, le=10000, description="Slots that are never offered.")
    resources: Resources = Resources()


class Drain(ApiModel):
    """Leaving for good: the wallets leave the queue at once, and `policy` says what becomes of running jobs."""

    policy: Literal["Wait", "Finish"] = Field(
        default="Wait",
        description="Wait: each job runs to its own end. Finish: the deadline stops those that still run, and they are "
        "paid for the seconds so far.",
    )
    deadline: Time | None = Field(default=None, description="For Finish; unset: at once.")


class NosanaMarketSpec(ApiModel):
    """Which market, with which wallets, on which GPUs."""

    # Not checked by a pattern: a wrong address gets a condition that names it, instead of a refused object.
    address: Annotated[str, Field(min_length=1, max_length=64, description="The market's address on chain.")]
    network: DnsLabel = Field(description="The name of a network in the operator's settings.")
    job_namespace: DnsLabel = Field(
        description="The namespace of its jobs; never that of the wallet Secrets."
    )
    wallets: tuple[Wallet, ...] = Field(
        min_length=1, max_length=64, description="Each is in the queue at most once at a time."
    )
    gpu: Gpu = Gpu()
    slots: Slots = Slots()
    exposure: Exposure = Exposure()
    runtime_class_name: str | None = Field(
        default=None, max_length=253, description="RuntimeClass of the jobs' pods; unset: the nodes' default."
    )
    paused: bool = Field(
        default=False, description="True: the wallets leave the queue; running jobs continue."
    )
    drain: Drain | None = Field(
        default=None, description="Set: the wallets leave the queue, and running jobs end as it says."
    )
    min_price: int = Field(
        default=0,
        ge=0,
        description="NOS base units per second; while the market pays less, the wallets leave the queue and take "
        "no job.",
    )
    payout_address: Address | None = Field(
        default=None,
        description="The wallet whose NOS account `finish` pays; unset: the wallet that ran the job. An owner's `end` "
        "always pays the wallet that ran the job.",
    )
    max_timeout: int | None = Field(
        default=None,
        ge=1,
        description="Seconds after which a run is finished, whatever time-out its poster set or extended it to; "
        "unset: only its time-out ends it.",
    )
    on_bad_definition: Literal["Finish", "Quit"] = Field(
        default="Finish",
        description="For a definition that cannot be used. Finish: publishes the reasons and is paid the seconds; "
        "Quit: publishes nothing and is not paid.",
    )

    on_no_capacity: Literal["Finish", "Quit", "Wait"] = Field(
        default="Finish",
        description="For a job whose pod finds no node for 5 minutes. Finish: publishes that and is paid the seconds; "
        "Quit: gives the run back unpaid if nothing of it has run; Wait: keeps it until it expires.",
    )


class SlotStatus(StatusModel):
    """How the slots are used."""

    total: int = 0
    free: int = 0
    standing: int = 0
    running: int = 0


class WalletStatus(StatusModel):
    """One wallet's state."""

    secret: str = Field(
        description="Name and key of the Secret, followed by `#` and the address once it no longer holds the key."
    )
    address: str | None = None
    lamports: int | None = None
    nos: int | None = Field(default=None, description="NOS base units.")
    xnos: str | None = Field(default=None, description="Weighted stake, base units; a u128, hence text.")
    state: Literal["Ready", "Standing", "Blocked", "Unknown"] = "Unknown"
    standing: bool = Field(default=False, description="Whether it is in the market's queue on chain.")
    foreign: str | None = Field(
        default=None,
        max_length=96,
        description="Signature of a transaction of this wallet that this operator did not make.",
    )
    reason: str | None = None
    message: str | None = None


class QueueStatus(StatusModel):
    """The market's queue on chain."""

    type: Literal["Job", "Node", "Empty"]
    length: int


class NosanaMarketStatus(StatusModel):
    """What the market host observed and did."""

    observed_generation: int | None = None
    epoch: int | None = Field(
        default=None,
        description="The term of the process that leads. It writes it before it offers a slot, so that a late write of "
        "an earlier one fails.",
    )
    conditions: tuple[ConditionModel, ...] = Field(default=(), json_schema_extra=LIST_BY_TYPE, max_length=32)
    slots: SlotStatus | None = None
    wallets: tuple[WalletStatus, ...] = Field(
        default=(),
        # More than spec.wallets has: a wallet that was replaced or removed stays until it holds nothing.
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["secret"]},
    )
    queue: QueueStatus | None = None
    price: int | None = Field(default=None, description="NOS base units per second.")
    transactions: tuple[Transaction, ...] = Field(
        default=(),
        max_length=256,
        description="`work` and `stop` transactions that were signed and whose outcome is not known yet.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["signature"]},
    )
