"""Whose transactions a key's history holds: what nodes leave out or tell twice makes nobody a stranger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from fakes.edges import FakeClock
from nosana_operator.errors import Unavailable
from nosana_operator.market.facts import Past
from nosana_operator.market.keys.foreign_use import (
    FINALITY_DELAY,
    HISTORY_LAG,
    LATER_PASSES,
    PASS_INTERVAL,
    REMEMBERED_AT_MOST,
    REQUESTS_AT_ONCE,
    TRIES_PER_PASS,
    ForeignUse,
    acknowledged_signatures,
)
from nosana_operator.market.keys.polls import BACKLOG

KEY = "4" * 32


class Away(Unavailable):
    """No answer."""


@dataclass
class History:
    """A node's answers: a key's finalized transactions, and which of them the key signed."""

    past: list[Past] = field(default_factory=list)
    signed: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    away: bool = False
    mute: bool = False
    """It gives no histories."""
    forgets: bool = False
    """It does not know the transaction from which on it is asked."""

    lost: set[str] = field(default_factory=set)
    """Signatures that it names and does not give."""

    async def read_history(
        self, key: str, *, until: str | None, before: str | None, limit: int
    ) -> list[Past]:
        self.asked.append(until)
        if self.mute:
            raise Away("away")
        newest = sorted(self.past, key=lambda one: one.slot)[::-1]
        names = [one.signature for one in newest]
        if before is not None and (before not in names or self.forgets):
            return []
        start = names.index(before) + 1 if before is not None else 0
        end = names.index(until) if until in names and not self.forgets else len(newest)
        return newest[start:end][:limit]

    async def signed_by(self, signature: str, key: str) -> str | None:
        if self.away or signature in self.lost:
            raise Away("away")
        self.read.append(signature)
        return self.signed.get(signature)


class Lab:
    """A ForeignUse that looks when it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.history = History()
        self.foreign_use = ForeignUse(self.clock)
        self.lamports = 10

    def intents(self, *signatures: str) -> None:
        transactions = [{"signature": one} for one in signatures]
        self.foreign_use.record_intents([{"status": {"transactions": transactions}}], [])

    def lands(self, signature: str, slot: int, kind: str | None = "work", *, failed: bool = False) -> None:
        self.history.past.append(Past(signature, slot, failed))
        if kind is not None:
            self.history.signed[signature] = kind

    async def look(self, known: str | None = None, *, seconds: float = PASS_INTERVAL) -> str | None:
        self.clock.advance(seconds)
        chain: Any = self.history
        self._seen(known)
        await self.foreign_use.examine(chain, "net", [KEY])
        return self._seen(known)

    def _seen(self, known: str | None) -> str | None:
        return self.foreign_use.observe("net", KEY, slot=100, lamports=self.lamports, reported=known)

    def dust(self, many: int, slot: int) -> None:
        """So many transfers to the key, a hundred in a slot, that it did not sign."""
        for n in range(many):
            self.lands(f"dust-{slot}-{n}", slot + n // 100, None)

    async def all_judged(self, looks: int = 2000) -> int:
        """Look until nothing is in question; the looks that it took."""
        for n in range(looks):
            if self.foreign_use.is_examined("net", KEY):
                return n
            await self.look(seconds=BACKLOG)
        raise AssertionError(f"not judged in {looks} looks")


async def test_a_change_of_the_balance_is_looked_into_once_it_is_final() -> None:
    lab = Lab()
    await lab.look()
    for _ in range(10):
        await lab.look(seconds=FINALITY_DELAY)
    assert lab.history.asked == [], "a key that does nothing costs nothing"
    lab.lands("theirs", 101)
    lab.lamports -= 5
    assert await lab.look(seconds=1) is None
    lab.lamports -= 5
    assert await lab.look(seconds=FINALITY_DELAY - 1) is None
    assert await lab.look(seconds=1) == "theirs"
    await lab.look(seconds=FINALITY_DELAY)
    assert len(lab.history.asked) == 1
    lab.lamports -= 5
    await lab.look(seconds=1)
    await lab.look(seconds=FINALITY_DELAY)
    assert len(lab.history.asked) == 2


async def test_silence_is_asked_again_after_a_pause() -> None:
    lab = Lab()
    await lab.look()
    lab.lands("theirs", 101)
    lab.history.away = True
    assert await lab.look() is None
    assert await lab.look(seconds=1) is None
    assert len(lab.history.asked) == 1
    lab.history.away = False
    assert await lab.look(seconds=FINALITY_DELAY) == "theirs"


async def test_what_was_there_at_the_first_look_is_not_judged() -> None:
    lab = Lab()
    lab.lands("old", 90)
    assert await lab.look() is None
    assert lab.history.asked == [], "the first look costs nothing"
    assert await lab.look() is None
    lab.lands("new", 101)
    assert await lab.look() == "new"
    assert lab.history.read == ["new"]


async def test_ours_failed_ones_and_what_the_key_did_not_sign_are_nobodys_business() -> None:
    lab = Lab()
    await lab.look()
    lab.intents("ours")
    job = {"status": {"settlement": {"transaction": {"signature": "finished"}}}}
    lab.foreign_use.record_intents([], [job, {"status": {}}, {}])
    lab.lands("ours", 101)
    lab.lands("finished", 102, "finish")
    lab.lands("gift", 103, None)
    lab.lands("rejected", 104, failed=True)
    assert await lab.look() is None
    assert lab.history.read == ["gift"]


async def test_an_intent_that_has_left_its_object_stays_ours() -> None:
    lab = Lab()
    await lab.look()
    lab.intents("ours")
    lab.intents()
    lab.lands("ours", 101)
    assert await lab.look() is None


async def test_ours_are_known_however_many_stand_in_the_objects() -> None:
    """A settled NosanaJob keeps its intent for as long as it is kept."""
    lab = Lab()
    await lab.look()
    settled = [f"settled-{n}" for n in range(25_000)]
    for n in range(4):
        lab.intents(*settled, f"ours-{n}")
        for _ in range(10):
            lab.intents(*settled)
        lab.lands(f"ours-{n}", 101 + n)
        assert await lab.look() is None
    assert lab.history.read == []


async def test_ours_are_known_until_they_are_judged_a_day_at_most() -> None:
    """A node that gives transactions and no histories: ours leave the objects meanwhile."""
    lab = Lab()
    await lab.look()
    lab.history.mute = True
    for n in range(4):
        lab.intents(f"ours-{n}")
        lab.intents()
        lab.lands(f"ours-{n}", 101 + n)
        assert await lab.look(seconds=6 * 3600 - 60) is None
    lab.history.mute = False
    assert await lab.look(seconds=FINALITY_DELAY) is None
    lab.history.mute = True
    lab.intents("too long ago")
    lab.intents()
    lab.lands("too long ago", 200)
    await lab.look()
    lab.clock.advance(2 * REMEMBERED_AT_MOST)
    lab.intents()
    lab.history.mute = False
    assert await lab.look(seconds=FINALITY_DELAY) == "too long ago"


async def test_ours_that_were_judged_are_let_go() -> None:
    lab = Lab()
    await lab.look()
    for n in range(50):
        lab.intents(f"ours-{n}")
        lab.intents()
        lab.lands(f"ours-{n}", 101 + n)
        assert await lab.look() is None
    assert len(lab.foreign_use._former_intents) <= HISTORY_LAG / PASS_INTERVAL + 2


async def test_nothing_is_judged_twice_even_where_a_node_has_forgotten_or_lags() -> None:
    lab = Lab()
    await lab.look()
    for slot in range(101, 105):
        lab.lands(f"gift-{slot}", slot, None)
    await lab.look()
    lab.history.forgets = True
    await lab.look()
    newer, lab.history.past = lab.history.past, lab.history.past[:2]
    await lab.look()
    lab.history.past = newer
    lab.lands("same-slot", 104, None)
    await lab.look()
    assert sorted(lab.history.read) == ["gift-101", "gift-102", "gift-103", "gift-104", "same-slot"]
    assert lab.history.asked[-1] == "gift-104"


async def test_a_node_that_does_not_give_it_is_asked_again() -> None:
    lab = Lab()
    await lab.look()
    lab.lands("theirs", 101)
    lab.history.away = True
    assert await lab.look() is None
    lab.history.away = False
    assert await lab.look() == "theirs"


@pytest.mark.parametrize("known", [True, False], ids=["from a known one on", "from the beginning"])
@pytest.mark.parametrize("dust", [49, 50, 999, 1000, 1001, 2500])
async def test_transfers_on_top_hide_no_transaction(dust: int, known: bool) -> None:
    """A node gives a thousand at once, or the newest fifty: there are more, at 0.000005 SOL each."""
    lab = Lab()
    await lab.look()
    if known:
        lab.lands("first", 101, None)
        await lab.look()
    lab.lands("theirs", 102)
    lab.dust(dust, 103)
    await lab.look()
    await lab.all_judged()
    assert await lab.look() == "theirs"
    assert len(lab.history.read) == len(set(lab.history.read)) == dust + 1 + known, "each once"
    assert lab.history.asked[-1] == lab.history.past[-1].signature, "the next look begins there"


async def test_a_stranger_does_not_keep_the_other_keys_waiting() -> None:
    lab = Lab()
    await lab.look()
    lab.dust(900, 101)
    await lab.look()
    assert len(lab.history.read) < REQUESTS_AT_ONCE
    assert lab.foreign_use.has_backlog("net"), "it goes on at once"
    assert not lab.foreign_use.is_examined("net", KEY), "and until then the key gets no new job"
    assert await lab.all_judged() >= 900 / REQUESTS_AT_ONCE - 1
    assert not lab.foreign_use.has_backlog("net")


async def test_a_key_may_work_once_it_was_seen_and_nothing_is_due() -> None:
    lab = Lab()
    assert not lab.foreign_use.is_examined("net", KEY)
    await lab.look()
    assert lab.foreign_use.is_examined("net", KEY)
    lab.lamports -= 5
    await lab.look(seconds=1)
    assert lab.foreign_use.is_examined("net", KEY), "it is not final yet"
    lab.clock.advance(FINALITY_DELAY)
    assert not lab.foreign_use.is_examined("net", KEY), "now it is"
    lab.lands("dust", 101, None)
    lab.history.away = True
    await lab.look(seconds=0)
    assert lab.foreign_use.is_examined("net", KEY), (
        "a node that is silent about it keeps no key from its work"
    )


async def test_one_that_no_node_gives_hides_no_other_and_is_let_go() -> None:
    lab = Lab()
    await lab.look()
    lab.lands("theirs", 101)
    lab.lands("lost", 102, None)
    lab.history.lost = {"lost"}
    await lab.look()
    assert await lab.look(seconds=FINALITY_DELAY) == "theirs"
    for _ in range(TRIES_PER_PASS):
        await lab.look(seconds=FINALITY_DELAY)
    lab.lands("theirs again", 103)
    await lab.look()
    assert await lab.look(seconds=FINALITY_DELAY) == "theirs again"
    for _ in range((TRIES_PER_PASS + 1) * (LATER_PASSES + 2)):
        await lab.look()
    asked = len(lab.history.read)
    lab.history.lost = set()
    await lab.look()
    assert len(lab.history.read) == asked, "it is not asked for any more"


async def test_one_that_is_given_later_is_judged_then() -> None:
    lab = Lab()
    await lab.look()
    lab.lands("theirs", 101)
    lab.history.lost = {"theirs"}
    for _ in range(2 * TRIES_PER_PASS):
        assert await lab.look() is None
    lab.history.lost = set()
    assert await lab.look() == "theirs"


async def test_a_node_that_does_not_know_where_to_go_on_is_no_end() -> None:
    lab = Lab()
    await lab.look()
    lab.lands("first", 101, None)
    await lab.look()
    lab.lands("theirs", 102)
    lab.dust(1200, 103)
    await lab.look()
    lab.history.forgets = True
    for _ in range(1200 // REQUESTS_AT_ONCE + 1):
        await lab.look(seconds=BACKLOG)
    assert lab.foreign_use.is_examined("net", KEY), "for a while"
    lab.history.forgets = False
    await lab.look()
    await lab.all_judged()
    assert await lab.look() == "theirs"


async def test_the_newest_is_told_and_a_restart_knows_it_from_the_status() -> None:
    lab = Lab()
    assert await lab.look(known="earlier") == "earlier"
    lab.lands("one", 101)
    lab.lands("two", 102, "stop")
    assert await lab.look() == "two"


async def test_what_the_status_says_is_known_however_late_it_is_told() -> None:
    lab = Lab()
    assert lab.foreign_use.observe("net", KEY, slot=None, lamports=None, reported="earlier") == "earlier"
    assert not lab.foreign_use.is_examined("net", KEY), "the chain has not answered"
    assert await lab.look() is None, "as another NosanaMarket has it, to which the key is new"
    assert await lab.look(known="earlier") == "earlier"
    assert await lab.look() == "earlier"


def test_what_admins_have_acknowledged() -> None:
    one = {"metadata": {"annotations": {"nosana.io/key-use-acknowledged": "a b"}}}
    other = {"metadata": {"annotations": {"nosana.io/key-use-acknowledged": "c"}}}
    assert acknowledged_signatures([one, other, {"metadata": {}}]) == {"a", "b", "c"}
