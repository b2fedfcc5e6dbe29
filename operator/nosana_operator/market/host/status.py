"""What a NosanaMarket's status says, and when saying it is worth a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nosana_operator.api import (
    MarketCondition,
    MarketReason,
    QueueStatus,
    condition,
)
from nosana_operator.market.facts import MarketFacts, Signed
from nosana_operator.market.host.effects import MarketDecision, Verdict
from nosana_operator.market.host.view import MarketView
from nosana_operator.market.intents import intent_of


def market_status(
    body: Mapping[str, Any],
    view: MarketView,
    decision: MarketDecision,
    signed: Sequence[Signed],
    now: datetime,
    epoch: int,
) -> dict[str, Any]:
    """The whole status: an apply deletes what it leaves out. `epoch` is ours, and that of what was signed."""
    meta, before = body["metadata"], body.get("status") or {}

    def is_(kind: MarketCondition, verdict: Verdict) -> dict[str, Any]:
        return condition(
            before.get("conditions"),
            kind,
            verdict.status,
            verdict.reason,
            verdict.message,
            generation=meta.get("generation", 0),
            now=now,
        )

    ready = decision.ready
    transactions = [*decision.kept, *(intent_of(one, now, epoch) for one in signed)]
    status: dict[str, Any] = {
        "observedGeneration": meta.get("generation", 0),
        "epoch": epoch,
        "conditions": [
            is_(MarketCondition.READY, ready),
            is_(MarketCondition.MARKET_FOUND, decision.found),
            is_(MarketCondition.WALLETS_READY, decision.wallets_ready),
            is_(MarketCondition.STALLED, Verdict(ready.status is False, ready.reason, ready.message)),
            is_(MarketCondition.RECONCILING, Verdict(ready.status is None, ready.reason, ready.message)),
        ],
        "slots": decision.slots.model_dump(by_alias=True),
        "wallets": [wallet.model_dump(by_alias=True, exclude_none=True) for wallet in decision.wallets],
        "transactions": [one.model_dump(by_alias=True, exclude_none=True) for one in transactions],
    }
    if isinstance(view.market, MarketFacts):
        queue = QueueStatus(type=view.market.queue_type, length=len(view.market.queue))
        status |= {"queue": queue.model_dump(by_alias=True), "price": view.market.price}
    return status


def unreadable_status(body: Mapping[str, Any], problem: str, now: datetime) -> dict[str, Any]:
    """The status of a NosanaMarket whose spec cannot be read. All else stays: intents stand in it."""
    meta, before = body["metadata"], body.get("status") or {}
    said = [
        condition(
            before.get("conditions"),
            kind,
            value,
            MarketReason.SPEC_INVALID,
            problem,
            generation=meta.get("generation", 0),
            now=now,
        )
        for kind, value in ((MarketCondition.READY, False), (MarketCondition.STALLED, True))
    ]
    types = {one["type"] for one in said}
    others = [one for one in before.get("conditions") or () if one["type"] not in types]
    return {**before, "conditions": [*others, *said]}


def flips(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a condition changes its status: people and tools wait for that."""
    old = {one["type"]: one["status"] for one in before.get("conditions") or ()}
    return any(old.get(one["type"]) != one["status"] for one in after["conditions"])


def differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether anything is new. Balances alone change with every fee: they go along with the next change."""

    def essence(status: Mapping[str, Any]) -> dict[str, Any]:
        wallets = [
            {k: v for k, v in wallet.items() if k not in ("lamports", "nos")}
            for wallet in status.get("wallets") or ()
        ]
        kept = ("observedGeneration", "conditions", "slots", "price")
        return {
            **{k: v for k, v in status.items() if k in kept},
            "wallets": wallets,
            "transactions": status.get("transactions") or [],
        }

    return essence(before) != essence(after)
