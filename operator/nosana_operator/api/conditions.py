"""Condition types, their reasons, and how a condition changes (Kubernetes API conventions, kstatus)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from nosana_operator.definition.limits import MAX_CONDITION_MESSAGE

Condition = dict[str, Any]
"""`{type, status, reason, message, lastTransitionTime, observedGeneration}` as in the object."""


class JobCondition(StrEnum):
    """Conditions of a NosanaJob (docs/architecture.md#conditions-and-phases)."""

    RUN_VERIFIED = "RunVerified"
    ACCEPTED = "Accepted"
    READY = "Ready"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SETTLED = "Settled"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class MarketCondition(StrEnum):
    """Conditions of a NosanaMarket."""

    READY = "Ready"
    MARKET_FOUND = "MarketFound"
    WALLETS_READY = "WalletsReady"
    NODES_AVAILABLE = "NodesAvailable"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class JobReason(StrEnum):
    """Typed reasons on a NosanaJob's conditions."""

    # RunVerified
    VERIFIED = "Verified"
    RUN_NOT_FOUND = "RunNotFound"
    RUN_MISMATCH = "RunMismatch"
    # Accepted
    ACCEPTED = "Accepted"
    WAITING_FOR_RUN = "WaitingForRunVerification"
    FETCHING_DEFINITION = "FetchingDefinition"
    WAITING_FOR_POSTER = "WaitingForPoster"
    DEFINITION_NOT_FOUND = "DefinitionNotFound"
    DEFINITION_UNREACHABLE = "DefinitionUnreachable"
    DEFINITION_MISMATCH = "DefinitionContentMismatch"
    DEFINITION_INVALID = "DefinitionInvalid"
    GPU_OPS_EXCEED_SLOT = "GpuOpsExceedSlot"
    SPEC_INVALID = "SpecInvalid"
    # Ready, Reconciling, Complete, Failed
    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    UNHEALTHY = "Unhealthy"
    STOPPING = "Stopping"
    SUCCEEDED = "Succeeded"
    EXPIRED = "Expired"
    OWNER_ENDED = "OwnerEnded"
    STOPPED = "Stopped"
    DELETED = "Deleted"
    RUN_GONE = "RunGone"
    OP_FAILED = "OpFailed"
    NO_CAPACITY = "NoCapacity"
    SUSPENDED = "Suspended"
    NODE_SILENT = "NodeSilent"
    RECONCILE_FAILED = "ReconcileFailed"
    # Settled
    SETTLING = "Settling"
    FINISHED = "Finished"
    COMPLETED = "Completed"
    QUIT = "Quit"
    ENDED_BY_OTHERS = "EndedByOthers"
    PIN_UNAVAILABLE = "PinUnavailable"
    CHAIN_UNAVAILABLE = "ChainUnavailable"
    TRANSACTION_FAILED = "TransactionFailed"
    SETTLEMENT_IMPOSSIBLE = "SettlementImpossible"
    WALLET_MISSING = "WalletMissing"
    ABANDONED = "Abandoned"
    RESULT_LOST = "ResultLost"
    RUN_PAST_EXPIRY = "RunPastExpiry"


class MarketReason(StrEnum):
    """Typed reasons on a NosanaMarket's conditions and wallets."""

    READY = "Ready"
    STANDING = "Standing"
    NO_FREE_SLOT = "NoFreeSlot"
    PAUSED = "Paused"
    DRAINING = "Draining"
    PAYOUT_ADDRESS_INVALID = "PayoutAddressInvalid"
    PRICE_TOO_LOW = "PriceTooLow"
    QUEUE_TOO_DEEP = "QueueTooDeep"
    STANDING_LOST = "StandingLost"
    LEAVING = "Leaving"
    NETWORK_UNKNOWN = "NetworkUnknown"
    MARKET_NOT_FOUND = "MarketNotFound"
    MARKET_ADDRESS_INVALID = "MarketAddressInvalid"
    SPEC_INVALID = "SpecInvalid"
    CHAIN_UNAVAILABLE = "ChainUnavailable"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason, not a secret
    SECRET_INVALID = "SecretInvalid"  # noqa: S105
    SECRET_ROTATED = "SecretRotated"  # noqa: S105
    WALLET_REMOVED = "WalletRemoved"
    KEY_IN_USE_ELSEWHERE = "KeyInUseElsewhere"
    SOL_TOO_LOW = "SolTooLow"
    STAKE_MISSING = "StakeMissing"
    STAKE_TOO_LOW = "StakeTooLow"
    ACCESS_KEY_MISSING = "AccessKeyMissing"
    WALLET_SHARED = "WalletSharedWithOtherMarket"
    TRANSACTION_FAILED = "TransactionFailed"
    JOB_REFUSED = "JobRefused"
    NODE_REFUSES_PODS = "NodeRefusesPods"
    RUN_UNSERVED = "RunUnserved"
    DELETING = "Deleting"


def timestamp(moment: datetime) -> str:
    """`metav1.Time`: RFC 3339, whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """`metav1.MicroTime`: RFC 3339 with six decimals, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """Inverse of `timestamp` and `micro_timestamp`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def find_condition(conditions: Iterable[Mapping[str, Any]] | None, kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None."""
    return next((c for c in conditions or () if c.get("type") == kind), None)


def condition_is_true(conditions: Iterable[Mapping[str, Any]] | None, kind: str) -> bool:
    """Whether the condition of that type exists with status True (Unknown is not True)."""
    found = find_condition(conditions, kind)
    return found is not None and found.get("status") == "True"


def condition(
    existing: Iterable[Mapping[str, Any]] | None,
    kind: str,
    status: bool | None,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> Condition:
    """The condition to write now; `status=None` is Unknown.

    `lastTransitionTime` changes only with the status, so an unchanged condition is written with the same bytes. A
    message is cut to the length that the CRD accepts.
    """
    text = {True: "True", False: "False", None: "Unknown"}[status]
    before = find_condition(existing, kind)
    same = before is not None and before.get("status") == text
    return {
        "type": str(kind),
        "status": text,
        "reason": str(reason),
        "message": message[:MAX_CONDITION_MESSAGE],
        "lastTransitionTime": before["lastTransitionTime"] if before and same else timestamp(now),
        "observedGeneration": generation,
    }
