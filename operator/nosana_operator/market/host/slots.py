"""How full a market is: which slots it has, what holds them, and how many it may still offer.

    total    = share.placed + share.reserved + share.free     at most spec.slots.max
    taken    = running + standing + unexplained + open works
    free     = total - reserve - taken                        at least 0

| word | counts |
|---|---|
| total | slots that the nodes hold for this market beside the others (`inventory.Share`) |
| reserve | `spec.slots.reserve`: slots that are never offered |
| running | runs that are open on chain, or whose pods have not ended |
| standing | wallets of this market in its queue |
| unexplained | wallets that left the queue for a reason not known yet: each may have been given a job |
| open works | `work` transactions that may still add a run or a standing which the view does not count yet |
| demand | slots that the market could fill at once, because jobs wait for it |

A wallet takes a slot from the moment its `work` may land: as a transaction under way, then standing, then as a run.
The run's job holds the slot until its pods have ended *and* the run is closed at confirmed, not until that is
finalized: should a fork open the run again, it only has to be finished once more, which takes no GPU. A run that
cannot be finished keeps its slot, so that unpaid runs do not pile up.
"""

from __future__ import annotations

from nosana_operator.api import SlotStatus
from nosana_operator.inventory import Holder
from nosana_operator.market.facts import UNKNOWN, MarketFacts
from nosana_operator.market.host.held_runs import open_runs, own_runs
from nosana_operator.market.host.view import MarketView


def count_slots(view: MarketView) -> SlotStatus:
    """The slots as they are used; `free` is what may still be offered."""
    spec = view.spec.slots
    total = view.share.total if spec.max is None else min(view.share.total, spec.max)
    return SlotStatus(
        total=total,
        free=max(0, total - spec.reserve - taken(view)),
        standing=_standing(view),
        running=_running(view),
    )


def taken(view: MarketView) -> int:
    """Slots that jobs hold, or that the chain may give jobs for at any moment."""
    return _running(view) + _standing(view) + len(view.unexplained) + open_works(view)


def holder(view: MarketView, *, previous: SlotStatus | None, demand: int) -> Holder:
    """The market as the division of the nodes sees it.

    `previous`: its slots as last written. They count where the chain is silent: nobody but us adds to them.
    """
    held, spec = taken(view), view.spec.slots
    silent = view.market is UNKNOWN or any(
        wallet.unread or wallet.runs is UNKNOWN for wallet in view.wallets if wallet.address or wallet.unread
    )
    if silent and previous is not None:
        held = max(held, previous.standing + previous.running + open_works(view))
    return Holder(
        name=f"{view.ref.namespace}/{view.ref.name}",
        gpu=view.spec.gpu,
        resources=spec.resources,
        namespace=view.spec.job_namespace,
        taken=held,
        job_uids=view.job_uids,
        reserve=spec.reserve,
        demand=demand if spec.max is None else max(0, min(demand, spec.max - spec.reserve - held)),
    )


def open_works(view: MarketView) -> int:
    """`work`s that may still give a run or a standing that the view does not count yet."""
    runs = {run.address for run in own_runs(view)}
    standing = view.market.standing if isinstance(view.market, MarketFacts) else frozenset()
    return sum(
        one.transaction.kind == "work"
        and not one.seen
        and not one.outcome.dead
        and one.transaction.run not in runs
        and one.transaction.key not in standing
        and one.transaction.key not in view.unexplained
        for one in view.pending
    )


def _running(view: MarketView) -> int:
    return len({run.address for run in open_runs(view)} | view.runs_with_pods)


def _standing(view: MarketView) -> int:
    mine = {wallet.address for wallet in view.wallets}
    return len(view.market.standing & mine) if isinstance(view.market, MarketFacts) else 0
