"""How many jobs the market may still be given, and what holds the slots it has.

A key takes a slot from the moment its `work` may land: as a transaction under way, then standing, then as a
run. The run's job holds the slot until its pods have ended *and* the run is closed at confirmed, not until
that is finalized: should a fork open the run again, it has only to be finished once more, which takes no GPU.
A run that cannot be finished keeps its slot, so that no unpaid runs pile up.
"""

from __future__ import annotations

from nosana_operator.api import SlotStatus, Transaction
from nosana_operator.market.facts import MarketFacts
from nosana_operator.market.holdings import open_runs, own_runs
from nosana_operator.market.view import MarketView


def count_slots(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> SlotStatus:
    """The slots as they are used; `free` is what may still be offered."""
    spec = view.spec.slots
    total = view.total if spec.max is None else min(view.total, spec.max)
    running = len({run.address for run in open_runs(view)} | view.occupied)
    mine = {w.address for w in view.wallets}
    standing = len(market.standing & mine) if market else 0
    taken = running + standing + _open_works(view, market, kept)
    return SlotStatus(
        total=total, free=max(0, total - spec.reserve - taken), standing=standing, running=running
    )


def _open_works(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> int:
    """`work`s that may still give a run or a standing that the view does not count yet."""
    runs = {run.address for run in own_runs(view)}
    standing = market.standing if market else frozenset()
    settled = {p.transaction.signature for p in view.pending if p.seen}
    return sum(
        1
        for t in kept
        if t.kind == "work" and t.run not in runs and t.key not in standing and t.signature not in settled
    )
