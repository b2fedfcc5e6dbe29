"""What became of a key that is not in the queue any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from fakes.edges import FakeClock
from nosana_operator.api import Transaction, WalletStatus
from nosana_operator.errors import Unavailable
from nosana_operator.market.facts import UNKNOWN, Fate, Known, MarketFacts, Outcome, RunFacts
from nosana_operator.market.host.departures import HOLD_BACK, Departures, QueueDepartures
from nosana_operator.market.host.view import PendingTransaction, WalletView

KEY = "4" * 32
UID = "uid-1"
EMPTY = MarketFacts("3" * 32, 10, None, 0, "Empty", (), slot=7)
STANDS = replace(EMPTY, queue_type="Node", queue=("9" * 32, KEY))


class Away(Unavailable):
    """No answer."""


@dataclass
class Node:
    """The chain, asked for the runs of a key."""

    runs: tuple[RunFacts, ...] | None = ()
    """None: it does not answer."""
    asked: int = 0

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[RunFacts, ...]:
        assert (key, not_before) == (KEY, 7), "as they are without the key in the queue"
        self.asked += 1
        if self.runs is None:
            raise Away("away")
        return self.runs


def run(name: str = "6") -> RunFacts:
    return RunFacts(address=name * 32, job="7" * 32, node=KEY, payer=KEY, time=1)


def pending(kind: str, fate: Fate = Fate.PENDING) -> tuple[PendingTransaction, ...]:
    transaction = Transaction(
        kind=kind,
        key=KEY,
        signature="sig",
        raw="AA==",
        blockhash="8" * 32,
        last_valid_block_height=1,
        signed_at="2026-01-01T00:00:00Z",
    )
    return (PendingTransaction(transaction, Outcome(fate), seen=False),)


class Lab:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.node = Node()
        self.departures = QueueDepartures(self.clock)
        self.before: list[WalletStatus] = []

    async def look(
        self,
        market: MarketFacts,
        runs: Known[tuple[RunFacts, ...]] = (),
        under_way: tuple[PendingTransaction, ...] = (),
    ) -> Departures:
        chain: Any = self.node
        wallet = WalletView("secret", KEY, None, UNKNOWN, runs)
        return await self.departures.compare(chain, UID, market, [wallet], self.before, under_way)

    def evicted(self) -> list[str]:
        return list(self.departures.take_evicted(UID))


async def test_a_run_that_is_seen_at_once_explains_it() -> None:
    lab = Lab()
    await lab.look(STANDS)
    found = await lab.look(EMPTY, (run(),))
    assert (found.unexplained, found.held_back, lab.evicted()) == (frozenset(), frozenset(), [])
    assert lab.node.asked == 0


async def test_a_run_that_is_seen_before_the_queue_without_the_key_explains_it() -> None:
    lab = Lab()
    old = run("5")
    await lab.look(STANDS, (old,))
    for runs in ((old, run()), (run(),)):
        found = await lab.look(STANDS, runs)
        assert (found.unexplained, found.held_back) == (frozenset(), frozenset())
    found = await lab.look(EMPTY, (run(),))
    assert (found.unexplained, found.held_back, lab.node.asked) == (frozenset(), frozenset(), 0)
    assert lab.departures.take_evicted(UID) == []


async def test_a_run_that_the_snapshot_lacks_is_found_by_asking() -> None:
    lab = Lab()
    await lab.look(STANDS, (run("5"),))
    lab.node.runs = (run("5"), run())
    found = await lab.look(EMPTY, (run("5"),))
    assert found.wallets[0].runs == (run("5"), run())
    assert (found.unexplained, lab.evicted(), lab.node.asked) == (frozenset(), [], 1)


@pytest.mark.parametrize("snapshot", [(), UNKNOWN])
async def test_while_nobody_answers_it_counts(snapshot: Known[tuple[RunFacts, ...]]) -> None:
    lab = Lab()
    await lab.look(STANDS)
    lab.node.runs = None
    for _ in range(2):
        found = await lab.look(EMPTY, snapshot)
        assert (found.unexplained, lab.evicted()) == (frozenset({KEY}), [])
    lab.node.runs = (run(),)
    found = await lab.look(EMPTY)
    assert (found.unexplained, lab.evicted()) == (frozenset(), [])


async def test_put_out_is_told_once_and_held_back_for_a_while() -> None:
    lab = Lab()
    await lab.look(STANDS, (run("5"),))
    lab.node.runs = (run("5"),)
    found = await lab.look(EMPTY, (run("5"),))
    assert (found.unexplained, found.held_back, lab.evicted()) == (frozenset(), {KEY}, [KEY])  # type: ignore[comparison-overlap]
    assert (await lab.look(EMPTY, (run("5"),))).held_back == {KEY}
    assert lab.evicted() == []
    lab.clock.advance(HOLD_BACK.total_seconds())
    assert (await lab.look(EMPTY, (run("5"),))).held_back == frozenset()


@pytest.mark.parametrize("fate", [Fate.CONFIRMED, Fate.FINALIZED])
async def test_our_own_stop_explains_it_once_it_has_landed(fate: Fate) -> None:
    lab = Lab()
    await lab.look(STANDS)
    found = await lab.look(EMPTY, (), pending("stop", fate))
    assert (found.unexplained, found.held_back, lab.evicted(), lab.node.asked) == (
        frozenset(),
        frozenset(),
        [],
        0,
    )


@pytest.mark.parametrize("kind", ["stop", "work"])
@pytest.mark.parametrize("fate", [Fate.PENDING, Fate.UNKNOWN, Fate.FAILING])
async def test_a_transaction_under_way_may_have_come_too_late(kind: str, fate: Fate) -> None:
    lab = Lab()
    await lab.look(STANDS)
    lab.node.runs = None
    assert (await lab.look(EMPTY, (), pending(kind, fate))).unexplained == {KEY}
    lab.node.runs = (run(),)
    found = await lab.look(EMPTY, (), pending(kind, fate))
    assert (found.unexplained, found.wallets[0].runs) == (frozenset(), (run(),))


@pytest.mark.parametrize("kind", ["stop", "work"])
async def test_nobody_is_blamed_while_a_transaction_of_ours_is_under_way(kind: str) -> None:
    """A fork may have taken a `work` back, and it will land again."""
    lab = Lab()
    await lab.look(STANDS)
    found = await lab.look(EMPTY, (), pending(kind))
    assert (found.unexplained, found.held_back, lab.evicted(), lab.node.asked) == (
        frozenset(),
        frozenset(),
        [],
        1,
    )


async def test_a_dead_stop_explains_nothing() -> None:
    lab = Lab()
    await lab.look(STANDS)
    await lab.look(EMPTY, (), pending("stop", Fate.EXPIRED))
    assert lab.evicted() == [KEY]


async def test_after_a_restart_the_status_tells_who_stood() -> None:
    lab = Lab()
    lab.before = [WalletStatus(secret="secret", address=KEY, standing=True)]
    await lab.look(EMPTY)
    assert lab.evicted() == [KEY]
    lab = Lab()
    lab.before = [WalletStatus(secret="secret", address=KEY, standing=True)]
    await lab.look(EMPTY, (run(),))
    assert lab.evicted() == [], "a run that it has may be the one"


async def test_who_put_it_there_is_remembered() -> None:
    lab = Lab()
    assert (await lab.look(STANDS)).queued_by_us == frozenset(), "nobody knows by whose doing"
    assert (await lab.look(STANDS, (), pending("work"))).queued_by_us == {KEY}
    assert (await lab.look(STANDS)).queued_by_us == {KEY}
    await lab.look(EMPTY, (run(),))
    assert (await lab.look(STANDS, (run(),))).queued_by_us == frozenset()


async def test_what_is_gone_is_forgotten() -> None:
    lab = Lab()
    await lab.look(STANDS)
    lab.departures.forget_all_but({"uid-2"})
    await lab.look(EMPTY)
    assert (lab.evicted(), lab.node.asked) == ([], 0)
