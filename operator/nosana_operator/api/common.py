"""The base of every model, and the types that both kinds use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from nosana_operator.definition import limits

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
Cid = Annotated[
    str, Field(max_length=120, pattern=r"^(Qm[1-9A-HJ-NP-Za-km-z]{44}|[bBfFkKz][0-9A-Za-z]{40,})$")
]
"""A CIDv0, or a CIDv1 in a base of letters and digits."""
Address = Annotated[str, Field(min_length=32, max_length=44, pattern=r"^[1-9A-HJ-NP-Za-km-z]{32,44}$")]
"""A Solana address, base58 of 32 bytes."""
Quantity = Annotated[
    str,
    Field(
        min_length=1,
        max_length=32,
        pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$",
        description="A Kubernetes quantity, for example 500m or 16Gi.",
    ),
]
Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]


class ApiModel(BaseModel):
    """camelCase on the wire, closed: an unknown field is an error that names it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class StatusModel(ApiModel):
    """Status may come from a newer version of this program: unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


class Toleration(ApiModel):
    """A pod toleration, as in core/v1."""

    key: str | None = Field(default=None, max_length=316)
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = Field(default=None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Gpu(ApiModel):
    """Which GPUs, and how many one job gets: the slot."""

    count: int = Field(
        default=1, ge=1, le=64, description="GPUs of a slot; each op with `gpu: true` gets them."
    )
    resource_name: str = Field(
        default="nvidia.com/gpu",
        max_length=253,
        description="Extended resource that the cluster's device plugin offers.",
    )
    product: str | None = Field(
        default=None, max_length=63, description="Only nodes labelled nvidia.com/gpu.product=<this>."
    )
    min_memory_mi_b: int | None = Field(
        default=None,
        ge=1,
        alias="minMemoryMiB",
        description="Only nodes whose GPUs have at least this memory (label nvidia.com/gpu.memory).",
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="Only nodes with these labels."
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=32)


class Resources(ApiModel):
    """What the ops of a job that run at once may use together, besides GPUs."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = None


class Exposure(ApiModel):
    """How exposed ports are made reachable from outside the cluster."""

    domain: str | None = Field(
        default=None,
        max_length=200,
        description="Each exposed port gets the host <id>.<domain> by an Ingress; unset: a Service only.",
    )
    ingress_class_name: str | None = Field(
        default=None, max_length=253, description="Of the Ingress; unset: the cluster's default class."
    )


class ConditionModel(StatusModel):
    """metav1.Condition."""

    type: str = Field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024)
    message: str = Field(max_length=limits.MAX_CONDITION_MESSAGE)
    last_transition_time: Time
    observed_generation: int | None = None


LIST_BY_TYPE: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
