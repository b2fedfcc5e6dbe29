"""What to do about one NosanaMarket now: a pure function from what was gathered to what is done."""

from __future__ import annotations

from nosana_operator.api import MarketReason, SlotStatus, Transaction, WalletStatus, timestamp
from nosana_operator.inventory import RefusingNode
from nosana_operator.market.facts import GONE, UNKNOWN, Fate, MarketFacts
from nosana_operator.market.host.effects import ConditionValue, Effect, MarketDecision, Resend, Stop
from nosana_operator.market.host.eligibility import wallet_status, wallets_ready
from nosana_operator.market.host.held_runs import job_effects, open_runs, unserved
from nosana_operator.market.host.queueing import (
    demand,
    jobs_to_stop,
    not_offering,
    our_standings,
    stops,
    works,
)
from nosana_operator.market.host.slots import count_slots
from nosana_operator.market.host.view import MarketView


def decide(view: MarketView) -> MarketDecision:
    """The one decision about a NosanaMarket."""
    found = market_found(view)
    pending, failed, resends = _transactions(view)
    market = view.market if isinstance(view.market, MarketFacts) else None
    wallets = wallet_statuses(view)
    slots = count_slots(view)
    effects: list[Effect] = [*resends]
    if market is not None and found.status:
        # A wallet whose last transaction's effect is not in the view yet gets no other transaction.
        seen = {p.transaction.signature for p in view.pending if p.seen}
        busy = {t.key for t in pending if t.signature not in seen}
        effects = [*job_effects(view), *jobs_to_stop(view), *resends, *stops(view, slots, market, busy)]
        if not any(isinstance(effect, Stop) for effect in effects):
            effects += works(view, slots, market, wallets, busy)
    return MarketDecision(
        ready=_ready(view, found, wallets, slots, market),
        market_found=found,
        wallets_ready=wallets_ready(wallets),
        nodes_available=nodes_available(view),
        slots=slots,
        wallets=wallets,
        pending=pending,
        failed=failed,
        effects=tuple(effects),
        unserved=unserved(view),
        release=view.deleting and _empty(view, market, pending),
    )


def nodes_available(view: MarketView) -> ConditionValue:
    """The value of `NodesAvailable`: whether the nodes that the market may use take pods."""
    if not view.refusing_nodes:
        return ConditionValue(True, MarketReason.READY, "no node refuses pods")
    nodes = "; ".join(refusal_message(node) for node in view.refusing_nodes)
    return ConditionValue(False, MarketReason.NODE_REFUSES_PODS, nodes)


def refusal_message(node: RefusingNode) -> str:
    """Why the node is held back, for a person."""
    return (
        f"node {node.node} refused {node.refusals} pods in a row and gets no new job until "
        f"{timestamp(node.until)}; its kubelet says {node.reason}"
    )


def market_demand(view: MarketView) -> int:
    """Slots that the market could fill at once, because jobs wait for it."""
    if not market_found(view).status:
        return 0
    return demand(view, view.market if isinstance(view.market, MarketFacts) else None, wallet_statuses(view))


def wallet_statuses(view: MarketView) -> tuple[WalletStatus, ...]:
    """The status of each wallet."""
    found, market = market_found(view), view.market if isinstance(view.market, MarketFacts) else None
    return tuple(wallet_status(view, wallet, market, found) for wallet in view.wallets)


def market_found(view: MarketView) -> ConditionValue:
    """The value of `MarketFound`: whether spec and chain agree that there is a market."""
    if not view.network_known:
        have = ", ".join(view.networks) or "none"
        return ConditionValue(
            False,
            MarketReason.NETWORK_UNKNOWN,
            f"spec.network {view.spec.network!r} is not in the operator's settings (it has: {have}); add it "
            "there, or create a NosanaMarket with one of those",
        )
    if view.spec.job_namespace == view.ref.namespace:
        return ConditionValue(
            False,
            MarketReason.SPEC_INVALID,
            "spec.jobNamespace is the namespace of the wallet Secrets; jobs have to run in another one",
        )
    if view.address_problem is not None:
        return ConditionValue(
            False,
            MarketReason.MARKET_ADDRESS_INVALID,
            f"spec.address: {view.address_problem.rstrip('.')}; create another NosanaMarket with the right one "
            "(this one cannot be corrected)",
        )
    if view.market is UNKNOWN:
        return ConditionValue(
            None, MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet; retrying"
        )
    if view.market is GONE:
        return ConditionValue(
            False,
            MarketReason.MARKET_NOT_FOUND,
            f"there is no market at {view.spec.address} on network {view.spec.network}; create another "
            "NosanaMarket with the right spec.address and spec.network (these cannot be changed)",
        )
    return ConditionValue(True, MarketReason.READY, "the market is on chain")


def _transactions(
    view: MarketView,
) -> tuple[tuple[Transaction, ...], tuple[tuple[Transaction, str], ...], list[Resend]]:
    """Those that stay in the status, those that failed, and those to send again."""
    pending: list[Transaction] = []
    failed: list[tuple[Transaction, str]] = []
    resends: list[Resend] = []
    for one in view.pending:
        fate = one.outcome.fate
        if fate is Fate.EXPIRED:
            continue
        if fate is Fate.FAILED:
            failed.append((one.transaction, one.outcome.error))
            continue
        if fate is Fate.FINALIZED and one.seen:
            continue
        pending.append(one.transaction)
        if fate is Fate.PENDING:
            resends.append(Resend(one.transaction))
    return tuple(pending), tuple(failed), resends


def _ready(
    view: MarketView,
    found: ConditionValue,
    wallets: tuple[WalletStatus, ...],
    slots: SlotStatus,
    market: MarketFacts | None,
) -> ConditionValue:
    if view.deleting:
        message = "the wallets leave the queue and settle their runs before the object is removed"
        return ConditionValue(False, MarketReason.DELETING, message)
    if found.status is not True:
        return found
    if view.job_refusal is not None:
        return ConditionValue(False, MarketReason.JOB_REFUSED, view.job_refusal)
    usable = [w for w in wallets if w.state in ("Ready", "Standing")]
    if not usable:
        return wallets_ready(wallets)
    refusal = not_offering(view, market) if market is not None else None
    if refusal is not None:
        return refusal
    if slots.total == 0:
        return ConditionValue(
            False,
            MarketReason.NO_FREE_SLOT,
            f"there is no room for a slot of {view.spec.gpu.count} {view.spec.gpu.resource_name} with the "
            f"other resources that it needs: {view.share.shortage or 'spec.slots.max is 0'}; check spec.gpu, "
            "spec.slots (max, resources), the nodes, and the ResourceQuotas of spec.jobNamespace",
        )
    if slots.standing:
        return ConditionValue(True, MarketReason.STANDING, f"{slots.standing} of {slots.total} slots offered")
    if slots.free == 0:
        shortage = f"; for another one {view.share.shortage}" if view.share.shortage else ""
        return ConditionValue(True, MarketReason.NO_FREE_SLOT, f"all {slots.total} slots are taken{shortage}")
    return ConditionValue(True, MarketReason.READY, f"{slots.free} of {slots.total} slots free")


def _empty(view: MarketView, market: MarketFacts | None, pending: tuple[Transaction, ...]) -> bool:
    """Whether nothing on chain or in the cluster still needs this NosanaMarket; unknown is not nothing."""
    if pending or view.unsettled:
        return False
    if not view.network_known or view.address_problem is not None or view.market is GONE:
        return True
    if market is None:
        return False
    if any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets):
        return False
    return not our_standings(view, market) and not open_runs(view)
