"""Which keys leave the queue now, and which offer a slot."""

from __future__ import annotations

from nosana_operator.api import (
    ANNOTATION_LEAVE_UNTIL,
    MarketReason,
    SlotStatus,
    WalletStatus,
    parse_timestamp,
    timestamp,
)
from nosana_operator.market.facts import UNKNOWN, MarketFacts
from nosana_operator.market.host.effects import Effect, Stop, StopJob, Verdict, Work
from nosana_operator.market.host.slots import open_works
from nosana_operator.market.host.view import MarketView, WalletView

DEEPEST = 250
"""Entries of a queue up to which the program is known to work well: beyond, `finish` comes close to the end of
its memory (docs/protocol/jobs-program.md#queue-depth)."""


def not_offering(view: MarketView, market: MarketFacts) -> Verdict | None:
    """Why nothing is offered though the keys could; what an admin asked for leaves `Ready` at True."""
    drain, spec = view.spec.drain, view.spec
    if drain is not None:
        end = "each goes on to its own end"
        if drain.policy == "Finish":
            end = f"they are stopped and settled at {drain.deadline or 'once'}"
        return Verdict(True, MarketReason.DRAINING, f"out of the queue; of the jobs that run, {end}")
    if view.leaving:
        return Verdict(
            True,
            MarketReason.LEAVING,
            f"out of the queue until {timestamp(view.leaving)}, as the annotation {ANNOTATION_LEAVE_UNTIL} "
            "says; running jobs go on; remove it to stand again",
        )
    if spec.paused:
        return Verdict(True, MarketReason.PAUSED, "paused: out of the queue; running jobs go on")
    if view.payout_problem is not None:
        return Verdict(
            False,
            MarketReason.PAYOUT_ADDRESS_INVALID,
            f"spec.payoutAddress: {view.payout_problem.rstrip('.')}; set it to the address of a wallet",
        )
    if market.price < spec.min_price:
        return Verdict(
            False,
            MarketReason.PRICE_TOO_LOW,
            f"the market pays {market.price} NOS base units per second, spec.minPrice is {spec.min_price}; "
            "lower it, or wait until the market pays that",
        )
    if len(market.queue) > DEEPEST:
        return Verdict(
            False,
            MarketReason.QUEUE_TOO_DEEP,
            f"the market's queue has {len(market.queue)} entries, more than {DEEPEST}; no slot is offered "
            "until it is shorter",
        )
    return None


def must_leave_queue(view: MarketView, market: MarketFacts) -> bool:
    """Whether all keys leave the queue."""
    if view.deleting or view.refusal is not None:
        return True
    why = not_offering(view, market)
    return why is not None and why.reason != MarketReason.QUEUE_TOO_DEEP


def standing_by_us(view: MarketView, market: MarketFacts) -> tuple[WalletView, ...]:
    """The keys in the queue, but for those that somebody else put there: these would be put back at once."""
    return tuple(
        wallet
        for wallet in view.wallets
        if wallet.address in market.standing and (wallet.foreign is None or wallet.address in view.ours)
    )


def stops(view: MarketView, slots: SlotStatus, market: MarketFacts, busy: set[str]) -> list[Effect]:
    """The keys that leave the queue: all when the market is left, those that may not stand, those too many."""
    mine = {one.address: one for one in standing_by_us(view, market) if one.address and not one.lost}
    standing = [address for address in mine if address not in busy]
    if must_leave_queue(view, market):
        return [Stop(address) for address in standing]
    barred = [one for one in standing if mine[one].problem is not None]
    rest = [one for one in standing if one not in barred]
    on_their_way = sum(
        one.transaction.kind == "stop" and not one.seen and not one.outcome.dead for one in view.pending
    )
    over = slots.running + slots.standing - (slots.total - view.spec.slots.reserve) - on_their_way
    if view.share.gives_way and not on_their_way:
        over = max(over, 1)
    return [Stop(address) for address in [*barred, *rest[: max(0, over - len(barred))]]]


def works(
    view: MarketView,
    slots: SlotStatus,
    market: MarketFacts,
    wallets: tuple[WalletStatus, ...],
    busy: set[str],
) -> list[Effect]:
    """The keys that offer a slot; none while it is not known what the keys hold, or jobs cannot be made.

    Where nodes stand, each makes the queue one longer.
    """
    unsure = any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets)
    if unsure or not _offers(view, market):
        return []
    kept = busy | view.held_back | view.missing
    willing = [w.address for w in wallets if w.state == "Ready" and w.address and w.address not in kept]
    room = slots.free
    if market.queue_type != "Job":
        room = min(room, max(0, DEEPEST + 1 - len(market.queue) - open_works(view)))
    return [Work(address) for address in willing[:room]]


def wanted(view: MarketView, market: MarketFacts | None, wallets: tuple[WalletStatus, ...]) -> int:
    """Jobs that wait for this market and that its keys would take at once: each one at a time."""
    if market is None or market.queue_type != "Job" or not _offers(view, market):
        return 0
    busy = {one.transaction.key for one in view.pending if not one.seen}
    willing = sum(wallet.state == "Ready" and wallet.address not in busy for wallet in wallets)
    return min(len(market.queue), willing)


def _offers(view: MarketView, market: MarketFacts) -> bool:
    return not view.deleting and view.refusal is None and not_offering(view, market) is None


def jobs_to_stop(view: MarketView) -> list[Effect]:
    """The jobs of this market, not of others of its keys, that are stopped because a drain's deadline has come."""
    drain = view.spec.drain
    if drain is None or drain.policy != "Finish":
        return []
    if drain.deadline is not None and view.now < parse_timestamp(drain.deadline):
        return []
    return [
        StopJob(job)
        for _, job in sorted(view.known.items())
        if job.run is not None
        and job.run.market_ref == view.ref
        and job.verified
        and not (job.stopping or job.settled or job.deleting)
    ]
