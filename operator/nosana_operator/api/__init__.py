"""The Kubernetes API: NosanaJob, NosanaMarket, their conditions, and the CRDs generated from the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from nosana_operator.api.common import Address, ApiModel, Exposure, Gpu, Resources, StatusModel, Toleration
from nosana_operator.api.conditions import (
    Condition,
    JobCondition,
    JobReason,
    MarketCondition,
    MarketReason,
    condition,
    condition_is_true,
    find_condition,
    micro_timestamp,
    parse_timestamp,
    timestamp,
)
from nosana_operator.api.confidential import DEFINITION_KEY, definition_secret, definition_secret_name
from nosana_operator.api.crd import crds, crds_yaml
from nosana_operator.api.inline import MAX_INLINE_BYTES, parse_inline
from nosana_operator.api.job import (
    DefinitionFrom,
    Delivery,
    Endpoint,
    KeyRef,
    Logistics,
    MarketRef,
    NosanaJobSpec,
    NosanaJobStatus,
    OpStatus,
    Phase,
    Run,
    RunStatus,
    Settlement,
    Timing,
    Transaction,
)
from nosana_operator.api.leaving import leaves_until
from nosana_operator.api.market import (
    NosanaMarketSpec,
    NosanaMarketStatus,
    QueueStatus,
    SecretRef,
    Slots,
    SlotStatus,
    Wallet,
    WalletStatus,
)
from nosana_operator.api.names import (
    ANNOTATION_ABANDON,
    ANNOTATION_ATTEMPT,
    ANNOTATION_KEY_USE,
    ANNOTATION_LEAVE_UNTIL,
    ANNOTATION_OP_ID,
    ANNOTATION_TRIES,
    API_VERSION,
    FINALIZER_JOB,
    FINALIZER_OP,
    FINALIZER_SETTLEMENT,
    GROUP,
    JOB_KIND,
    LABEL_CHAIN_JOB,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_MAINTENANCE,
    LABEL_MARKET,
    LABEL_OP,
    LABEL_RUN,
    MANAGER_JOBS,
    MANAGER_MARKET,
    MARKET_KIND,
    MAX_JOB_NAME,
    PLURALS,
    VERSION,
    run_job_name,
)
from nosana_operator.errors import NosanaError

Model = TypeVar("Model", bound=ApiModel)


class ApiError(NosanaError):
    """A NosanaJob or NosanaMarket is unusable; the sentence names the field."""


def parse_part(model: type[Model], kind: str, part: str, data: Mapping[str, Any] | None) -> Model:
    """`data` (a `spec` or `status` as the API server gave it) as a model.

    Raises ApiError naming the first invalid field, which happens when the CRD in the cluster is older or newer
    than this program.
    """
    try:
        return model.model_validate(data or {})
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(p) for p in (part, *first["loc"]))
        message = "there is no such field" if first["type"] == "extra_forbidden" else first["msg"]
        sentence = f"{kind} {path}: {message}; correct it, or apply the CRDs of this version"
        raise ApiError(sentence) from exc


__all__ = [
    "ANNOTATION_ABANDON",
    "ANNOTATION_ATTEMPT",
    "ANNOTATION_KEY_USE",
    "ANNOTATION_LEAVE_UNTIL",
    "ANNOTATION_OP_ID",
    "ANNOTATION_TRIES",
    "API_VERSION",
    "DEFINITION_KEY",
    "FINALIZER_JOB",
    "FINALIZER_OP",
    "FINALIZER_SETTLEMENT",
    "GROUP",
    "JOB_KIND",
    "LABEL_CHAIN_JOB",
    "LABEL_JOB",
    "LABEL_JOB_UID",
    "LABEL_MAINTENANCE",
    "LABEL_MARKET",
    "LABEL_OP",
    "LABEL_RUN",
    "MANAGER_JOBS",
    "MANAGER_MARKET",
    "MARKET_KIND",
    "MAX_INLINE_BYTES",
    "MAX_JOB_NAME",
    "PLURALS",
    "VERSION",
    "Address",
    "ApiError",
    "Condition",
    "DefinitionFrom",
    "Delivery",
    "Endpoint",
    "Exposure",
    "Gpu",
    "JobCondition",
    "JobReason",
    "KeyRef",
    "Logistics",
    "MarketCondition",
    "MarketReason",
    "MarketRef",
    "NosanaJobSpec",
    "NosanaJobStatus",
    "NosanaMarketSpec",
    "NosanaMarketStatus",
    "OpStatus",
    "Phase",
    "QueueStatus",
    "Resources",
    "Run",
    "RunStatus",
    "SecretRef",
    "Settlement",
    "SlotStatus",
    "Slots",
    "StatusModel",
    "Timing",
    "Toleration",
    "Transaction",
    "Wallet",
    "WalletStatus",
    "condition",
    "condition_is_true",
    "crds",
    "crds_yaml",
    "definition_secret",
    "definition_secret_name",
    "find_condition",
    "leaves_until",
    "micro_timestamp",
    "parse_inline",
    "parse_part",
    "parse_timestamp",
    "run_job_name",
    "timestamp",
]
