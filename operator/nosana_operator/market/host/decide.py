"""What to do about one NosanaMarket now: a pure function from what was gathered to what is done."""

from __future__ import annotations

from nosana_operator.api import MarketReason, SlotStatus, Transaction, WalletStatus
from nosana_operator.market.facts import GONE, UNKNOWN, Fate, MarketFacts
from nosana_operator.market.host.effects import Effect, MarketDecision, Resend, Stop, Verdict
from nosana_operator.market.host.eligibility import wallet_status, wallets_ready
from nosana_operator.market.host.held_runs import jobs, open_runs, unserved
from nosana_operator.market.host.queueing import (
    jobs_to_stop,
    not_offering,
    standing_by_us,
    stops,
    wanted,
    works,
)
from nosana_operator.market.host.slots import count_slots
from nosana_operator.market.host.view import MarketView


def decide(view: MarketView) -> MarketDecision:
    """The one decision of a NosanaMarket."""
    found = judge(view)
    kept, failed, resends = _transactions(view)
    market = view.market if isinstance(view.market, MarketFacts) else None
    wallets = statuses(view)
    slots = count_slots(view)
    effects: list[Effect] = [*resends]
    if market is not None and found.status:
        # A key whose last transaction is not accounted for yet gets no other.
        seen = {p.transaction.signature for p in view.pending if p.seen}
        busy = {t.key for t in kept if t.signature not in seen}
        effects = [*jobs(view), *jobs_to_stop(view), *resends, *stops(view, slots, market, busy)]
        if not any(isinstance(effect, Stop) for effect in effects):
            effects += works(view, slots, market, wallets, busy)
    return MarketDecision(
        ready=_ready(view, found, wallets, slots, market),
        found=found,
        wallets_ready=wallets_ready(wallets),
        slots=slots,
        wallets=wallets,
        kept=kept,
        failed=failed,
        effects=tuple(effects),
        unserved=unserved(view),
        released=view.deleting and _empty(view, market, kept),
    )


def wants(view: MarketView) -> int:
    """Slots that the market could use at once, because jobs wait for it."""
    if not judge(view).status:
        return 0
    return wanted(view, view.market if isinstance(view.market, MarketFacts) else None, statuses(view))


def statuses(view: MarketView) -> tuple[WalletStatus, ...]:
    """The keys as they stand."""
    found, market = judge(view), view.market if isinstance(view.market, MarketFacts) else None
    return tuple(wallet_status(view, wallet, market, found) for wallet in view.wallets)


def judge(view: MarketView) -> Verdict:
    """Whether there is a market at all."""
    if not view.network_known:
        have = ", ".join(view.networks) or "none"
        return Verdict(
            False,
            MarketReason.NETWORK_UNKNOWN,
            f"spec.network {view.spec.network!r} is not in the operator's settings (it has: {have}); add it "
            "there, or make a NosanaMarket with one of those",
        )
    if view.spec.job_namespace == view.ref.namespace:
        return Verdict(
            False,
            MarketReason.SPEC_INVALID,
            "spec.jobNamespace is the namespace of the wallet Secrets; jobs have to run in another one",
        )
    if view.address_problem is not None:
        return Verdict(
            False,
            MarketReason.MARKET_ADDRESS_INVALID,
            f"spec.address: {view.address_problem.rstrip('.')}; make another NosanaMarket with the right one "
            "(this one cannot be corrected)",
        )
    if view.market is UNKNOWN:
        return Verdict(None, MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet; asked again")
    if view.market is GONE:
        return Verdict(
            False,
            MarketReason.MARKET_NOT_FOUND,
            f"there is no market at {view.spec.address} on network {view.spec.network}; make another "
            "NosanaMarket with the right spec.address and spec.network (these cannot be changed)",
        )
    return Verdict(True, MarketReason.READY, "the market is on chain")


def _transactions(
    view: MarketView,
) -> tuple[tuple[Transaction, ...], tuple[tuple[Transaction, str], ...], list[Resend]]:
    kept: list[Transaction] = []
    failed: list[tuple[Transaction, str]] = []
    resends: list[Resend] = []
    for pending in view.pending:
        fate = pending.outcome.fate
        if fate is Fate.EXPIRED:
            continue
        if fate is Fate.FAILED:
            failed.append((pending.transaction, pending.outcome.error))
            continue
        if fate is Fate.FINALIZED and pending.seen:
            continue
        kept.append(pending.transaction)
        if fate is Fate.PENDING:
            resends.append(Resend(pending.transaction))
    return tuple(kept), tuple(failed), resends


def _ready(
    view: MarketView,
    found: Verdict,
    wallets: tuple[WalletStatus, ...],
    slots: SlotStatus,
    market: MarketFacts | None,
) -> Verdict:
    if view.deleting:
        return Verdict(False, MarketReason.DELETING, "leaves the queue and settles its runs before it goes")
    if found.status is not True:
        return found
    if view.refusal is not None:
        return Verdict(False, MarketReason.JOB_REFUSED, view.refusal)
    usable = [w for w in wallets if w.state in ("Ready", "Standing")]
    if not usable:
        blocked = wallets_ready(wallets)
        return Verdict(blocked.status, blocked.reason, blocked.message)
    why = not_offering(view, market) if market is not None else None
    if why is not None:
        return why
    if slots.total == 0:
        return Verdict(
            False,
            MarketReason.NO_FREE_SLOT,
            f"no node has room for a slot of {view.spec.gpu.count} {view.spec.gpu.resource_name} with the "
            f"other resources that it needs: {view.share.short or 'spec.slots.max is 0'}; check spec.gpu, "
            "spec.slots (max, resources) and the nodes",
        )
    if slots.standing:
        return Verdict(True, MarketReason.STANDING, f"{slots.standing} of {slots.total} slots offered")
    if slots.free == 0:
        short = f"; for another one {view.share.short}" if view.share.short else ""
        return Verdict(True, MarketReason.NO_FREE_SLOT, f"all {slots.total} slots are taken{short}")
    return Verdict(True, MarketReason.READY, f"{slots.free} of {slots.total} slots free")


def _empty(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> bool:
    """Nothing on chain or in the cluster still needs this NosanaMarket; unknown is not nothing."""
    if kept or view.unsettled:
        return False
    if not view.network_known or view.address_problem is not None or view.market is GONE:
        return True
    if market is None:
        return False
    if any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets):
        return False
    return not standing_by_us(view, market) and not open_runs(view)
