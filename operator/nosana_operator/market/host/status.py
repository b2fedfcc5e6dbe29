"""The status of a NosanaMarket, and when a change is worth a write. Pure."""

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
from nosana_operator.market.host.effects import ConditionValue, MarketDecision
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
    """The whole status, because an apply deletes what it leaves out. `epoch` is ours, also in what was signed."""
    meta, before = body["metadata"], body.get("status") or {}

    def made(kind: MarketCondition, value: ConditionValue) -> dict[str, Any]:
        return condition(
            before.get("conditions"),
            kind,
            value.status,
            value.reason,
            value.message,
            generation=meta.get("generation", 0),
            now=now,
        )

    ready = decision.ready
    transactions = [*decision.pending, *(intent_of(one, now, epoch) for one in signed)]
    status: dict[str, Any] = {
        "observedGeneration": meta.get("generation", 0),
        "epoch": epoch,
        "conditions": [
            made(MarketCondition.READY, ready),
            made(MarketCondition.MARKET_FOUND, decision.market_found),
            made(MarketCondition.WALLETS_READY, decision.wallets_ready),
            made(MarketCondition.NODES_AVAILABLE, decision.nodes_available),
            made(MarketCondition.STALLED, ConditionValue(ready.status is False, ready.reason, ready.message)),
            made(
                MarketCondition.RECONCILING, ConditionValue(ready.status is None, ready.reason, ready.message)
            ),
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
    """The status of a NosanaMarket whose spec cannot be read. The other fields stay, intents among them."""
    meta, before = body["metadata"], body.get("status") or {}
    conditions = [
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
    types = {one["type"] for one in conditions}
    others = [one for one in before.get("conditions") or () if one["type"] not in types]
    return {**before, "conditions": [*others, *conditions]}


def flips(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a condition changes its status, which people and tools wait for."""
    old = {one["type"]: one["status"] for one in before.get("conditions") or ()}
    return any(old.get(one["type"]) != one["status"] for one in after["conditions"])


def differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether anything but balances is new: they change with every fee, and are written with the next change."""

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
