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
    """A wallet: a key of a Secret beside the NosanaMarket."""

    name: ObjectName = Field(description="Of the Secret.")
    key: str = Field(
        default="id.json",
        min_length=1,
        max_length=253,
        description="Under which it has the keypair, as Solana's tools write it.",
    )


class Wallet(ApiModel):
    """One key that stands in the market."""

    secret_ref: SecretRef


class Slots(ApiModel):
    """How many jobs at once, and what each may use besides its GPUs."""

    max: int | None = Field(default=None, ge=0, le=10000, description="Unset: as many as the nodes hold.")
    reserve: int = Field(default=0, ge=0, le=10000, description="Slots that are never offered.")
    resources: Resources = Resources()


class Drain(ApiModel):
    """Leaving for good: out of the queue at once, and what becomes of the jobs that run."""

    policy: Literal["Wait", "Finish"] = Field(
        default="Wait",
        description="Wait: each job goes on to its own end. Finish: at the deadline those that still run are "
        "stopped and paid for the seconds so far.",
    )
    deadline: Time | None = Field(default=None, description="For Finish; unset: at once.")


class NosanaMarketSpec(ApiModel):
    """Which market, with which keys, on which GPUs."""

    # Not checked by a pattern: a wrong address gets a condition that says so, instead of a refused object.
    address: Annotated[str, Field(min_length=1, max_length=64, description="The market's address on chain.")]
    network: DnsLabel = Field(description="Names a network of the operator's settings.")
    job_namespace: DnsLabel = Field(description="Where its jobs run; never where the wallet Secrets are.")
    wallets: tuple[Wallet, ...] = Field(
        min_length=1, max_length=64, description="The keys: each stands in the queue once at a time."
    )
    gpu: Gpu = Gpu()
    slots: Slots = Slots()
    exposure: Exposure = Exposure()
    runtime_class_name: str | None = Field(
        default=None, max_length=253, description="RuntimeClass of the jobs' pods; unset: the nodes' default."
    )
    paused: bool = Field(default=False, description="True leaves the queue; running jobs go on.")
    drain: Drain | None = Field(default=None, description="Set: leaves the queue; running jobs as it says.")
    min_price: int = Field(
        default=0,
        ge=0,
        description="NOS base units per second; below it the keys leave the queue, and take no job.",
    )
    payout_address: Address | None = Field(
        default=None,
        description="The wallet on whose NOS account `finish` pays; unset: the key's own. What an owner's `end` "
        "pays always goes to the key's own account.",
    )
    max_timeout: int | None = Field(
        default=None,
        ge=1,
        description="Seconds after which a run is finished, whatever time-out its poster set or extended to; "
        "unset: its time-out alone ends it.",
    )
    on_bad_definition: Literal["Finish", "Quit"] = Field(
        default="Finish",
        description="A definition that cannot be used: Finish tells the poster why and is paid the seconds; "
        "Quit publishes nothing and is paid nothing.",
    )

    on_no_capacity: Literal["Finish", "Quit", "Wait"] = Field(
        default="Finish",
        description="A job whose pod no node can take for 5 minutes: Finish tells the poster and is paid the "
        "seconds; Quit gives the run back unpaid when nothing of it has run; Wait holds it until it expires.",
    )


class SlotStatus(StatusModel):
    """The slots as they are used."""

    total: int = 0
    free: int = 0
    standing: int = 0
    running: int = 0


class WalletStatus(StatusModel):
    """One key as it stands."""

    secret: str = Field(
        description="Name and key of the Secret; `#` and the address follow when it holds the key no more."
    )
    address: str | None = None
    lamports: int | None = None
    nos: int | None = Field(default=None, description="NOS base units.")
    xnos: str | None = Field(default=None, description="Weighted stake, base units; a u128, hence text.")
    state: Literal["Ready", "Standing", "Blocked", "Unknown"] = "Unknown"
    standing: bool = Field(default=False, description="It is in the market's queue on chain.")
    foreign: str | None = Field(
        default=None,
        max_length=96,
        description="Signature of a transaction of this key which this operator did not make.",
    )
    reason: str | None = None
    message: str | None = None


class QueueStatus(StatusModel):
    """The market's queue on chain."""

    type: Literal["Job", "Node", "Empty"]
    length: int


class NosanaMarketStatus(StatusModel):
    """What the market host saw and did."""

    observed_generation: int | None = None
    epoch: int | None = Field(
        default=None,
        description="Of the process that leads: it stands here before that offers a slot, so that what an "
        "earlier one may still write is refused.",
    )
    conditions: tuple[ConditionModel, ...] = Field(default=(), json_schema_extra=LIST_BY_TYPE, max_length=32)
    slots: SlotStatus | None = None
    wallets: tuple[WalletStatus, ...] = Field(
        default=(),
        # More than spec.wallets has: a key that was replaced or taken out stays until it holds nothing.
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["secret"]},
    )
    queue: QueueStatus | None = None
    price: int | None = Field(default=None, description="NOS base units per second.")
    transactions: tuple[Transaction, ...] = Field(
        default=(),
        max_length=256,
        description="Work and stop that were signed and whose outcome is not known yet.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["signature"]},
    )
