"""Which keys leave the queue now, and which offer a slot."""

from __future__ import annotations

from nosana_operator.api import SlotStatus, WalletStatus
from nosana_operator.market.effects import Effect, Stop, Work
from nosana_operator.market.facts import UNKNOWN, MarketFacts
from nosana_operator.market.view import MarketView


def stops(view: MarketView, slots: SlotStatus, market: MarketFacts, busy: set[str]) -> list[Effect]:
    """The keys that leave the queue: all when the market is left, those without a Secret, those too many."""
    standing = {w.address: w for w in view.wallets if w.address in market.standing and w.address not in busy}
    if view.deleting or view.spec.paused or view.leaving:
        return [Stop(address) for address in standing if address]
    lost = [address for address, wallet in standing.items() if address and wallet.problem is not None]
    over = slots.running + slots.standing - (slots.total - view.spec.slots.reserve)
    rest = [address for address in standing if address and address not in lost]
    return [Stop(address) for address in [*lost, *rest[: max(0, over - len(lost))]]]


def works(
    view: MarketView, slots: SlotStatus, wallets: tuple[WalletStatus, ...], busy: set[str]
) -> list[Effect]:
    """The keys that offer a slot; none while it is not known what the keys hold, or jobs cannot be made."""
    unsure = any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets)
    if view.deleting or view.spec.paused or view.leaving or unsure or view.refusal is not None:
        return []
    willing = [w.address for w in wallets if w.state == "Ready" and w.address and w.address not in busy]
    return [Work(address) for address in willing[: slots.free]]
