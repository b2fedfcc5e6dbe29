"""Which wallets leave the queue now, and which offer a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nosana_operator.api import (
    ANNOTATION_LEAVE_UNTIL,
    MarketReason,
    SlotStatus,
    WalletStatus,
    parse_timestamp,
    timestamp,
)
from nosana_operator.market.facts import UNKNOWN, MarketFacts
from nosana_operator.market.host.effects import ConditionValue, Effect, Stop, StopJob, Work
from nosana_operator.market.host.slots import open_works
from nosana_operator.market.host.view import MarketView, WalletView

DEEPEST = 250
"""Entries of a queue up to which the program is known to work well: beyond, `finish` comes close to its memory
limit (docs/protocol/jobs-program.md#queue-depth)."""

Policy = Callable[[MarketView, MarketFacts], ConditionValue | None]
"""A reason to offer no slot though the wallets could, as the value of `Ready`; None: it does not apply."""


def draining(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """`spec.drain` is set. An admin asked for it, so `Ready` stays True."""
    drain = view.spec.drain
    if drain is None:
        return None
    end = "each runs to its own end"
    if drain.policy == "Finish":
        end = f"they are stopped and settled at {drain.deadline or 'once'}"
    return ConditionValue(True, MarketReason.DRAINING, f"out of the queue; of the running jobs, {end}")


def leaving(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """`nosana-operator leave` was run a moment ago. An admin asked for it, so `Ready` stays True."""
    if not view.leave_until:
        return None
    message = (
        f"out of the queue until {timestamp(view.leave_until)}, as the annotation {ANNOTATION_LEAVE_UNTIL} says; "
        "running jobs continue; remove the annotation to join the queue again"
    )
    return ConditionValue(True, MarketReason.LEAVING, message)


def paused(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """`spec.paused` is set. An admin asked for it, so `Ready` stays True."""
    if not view.spec.paused:
        return None
    return ConditionValue(True, MarketReason.PAUSED, "paused: out of the queue; running jobs continue")


def payout_invalid(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """`finish` could not pay to `spec.payoutAddress`."""
    if view.payout_problem is None:
        return None
    message = f"spec.payoutAddress: {view.payout_problem.rstrip('.')}; set it to the address of a wallet"
    return ConditionValue(False, MarketReason.PAYOUT_ADDRESS_INVALID, message)


def price_too_low(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """The market pays less than `spec.minPrice`."""
    if market.price >= view.spec.min_price:
        return None
    message = (
        f"the market pays {market.price} NOS base units per second, spec.minPrice is {view.spec.min_price}; "
        "lower it, or wait until the market pays that"
    )
    return ConditionValue(False, MarketReason.PRICE_TOO_LOW, message)


def queue_too_deep(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """The queue is longer than the program is known to work with."""
    if len(market.queue) <= DEEPEST:
        return None
    message = (
        f"the market's queue has {len(market.queue)} entries, more than {DEEPEST}; no slot is offered until it is "
        "shorter"
    )
    return ConditionValue(False, MarketReason.QUEUE_TOO_DEEP, message)


NOT_OFFERING: Final[tuple[Policy, ...]] = (
    draining,
    leaving,
    paused,
    payout_invalid,
    price_too_low,
    queue_too_deep,
)
"""In this order: the first that applies is reported."""


def not_offering(view: MarketView, market: MarketFacts) -> ConditionValue | None:
    """Why nothing is offered though the wallets could; None: nothing keeps them from it."""
    values = (policy(view, market) for policy in NOT_OFFERING)
    return next((value for value in values if value is not None), None)


def must_leave_queue(view: MarketView, market: MarketFacts) -> bool:
    """Whether all wallets leave the queue."""
    if view.deleting or view.job_refusal is not None:
        return True
    value = not_offering(view, market)
    return value is not None and value.reason != MarketReason.QUEUE_TOO_DEEP


def our_standings(view: MarketView, market: MarketFacts) -> tuple[WalletView, ...]:
    """The wallets in the queue except those that somebody else put there, who would do so again at once."""
    return tuple(
        wallet
        for wallet in view.wallets
        if wallet.address in market.standing
        and (wallet.foreign is None or wallet.address in view.queued_by_us)
    )


def stops(view: MarketView, slots: SlotStatus, market: MarketFacts, busy: set[str]) -> list[Effect]:
    """`stop` for all wallets when the market is left, for those that may not stand, and for those too many."""
    mine = {one.address: one for one in our_standings(view, market) if one.address and not one.lost}
    standing = [address for address in mine if address not in busy]
    if must_leave_queue(view, market):
        return [Stop(address) for address in standing]
    barred = [one for one in standing if mine[one].problem is not None]
    rest = [one for one in standing if one not in barred]
    under_way = sum(
        one.transaction.kind == "stop" and not one.seen and not one.outcome.dead for one in view.pending
    )
    excess = slots.running + slots.standing - (slots.total - view.spec.slots.reserve) - under_way
    if view.share.must_yield and not under_way:
        excess = max(excess, 1)
    return [Stop(address) for address in [*barred, *rest[: max(0, excess - len(barred))]]]


def works(
    view: MarketView,
    slots: SlotStatus,
    market: MarketFacts,
    wallets: tuple[WalletStatus, ...],
    busy: set[str],
) -> list[Effect]:
    """`work` for each wallet that can fill a free slot; none while it is not known what the wallets hold.

    Where nodes wait in the queue, each `work` makes it one longer.
    """
    unsure = any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets)
    if unsure or not _may_offer(view, market):
        return []
    unavailable = busy | view.held_back | view.unexplained
    ready = [w.address for w in wallets if w.state == "Ready" and w.address and w.address not in unavailable]
    free = slots.free
    if market.queue_type != "Job":
        free = min(free, max(0, DEEPEST + 1 - len(market.queue) - open_works(view)))
    return [Work(address) for address in ready[:free]]


def demand(view: MarketView, market: MarketFacts | None, wallets: tuple[WalletStatus, ...]) -> int:
    """Jobs that wait for this market and that its wallets could take at once, one each."""
    if market is None or market.queue_type != "Job" or not _may_offer(view, market):
        return 0
    busy = {one.transaction.key for one in view.pending if not one.seen}
    ready = sum(wallet.state == "Ready" and wallet.address not in busy for wallet in wallets)
    return min(len(market.queue), ready)


def _may_offer(view: MarketView, market: MarketFacts) -> bool:
    return not view.deleting and view.job_refusal is None and not_offering(view, market) is None


def jobs_to_stop(view: MarketView) -> list[Effect]:
    """The jobs of this market that a drain's deadline stops; jobs of its wallets in other markets go on."""
    drain = view.spec.drain
    if drain is None or drain.policy != "Finish":
        return []
    if drain.deadline is not None and view.now < parse_timestamp(drain.deadline):
        return []
    return [
        StopJob(job)
        for _, job in sorted(view.job_objects.items())
        if job.run is not None
        and job.run.market_ref == view.ref
        and job.verified
        and not (job.stopping or job.settled or job.deleting)
    ]
