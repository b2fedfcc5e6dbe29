"""The election in virtual time: who leads when, in which epoch, and never two at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fakes.kube import FakeKube
from fakes.virtual_time import run_virtually
from nosana_operator.errors import NotFound
from nosana_operator.kube import (
    AlwaysLeading,
    Election,
    ElectionSettings,
    KubeRefused,
    KubeUnavailable,
    LeadershipLost,
)

NAMESPACE, NAME = "system", "the-lease"
Body = dict[str, Any]


@dataclass
class Line:
    """One process' way to the API: it may be cut, hang, or lose the reply."""

    kube: FakeKube
    cut: bool = False
    hangs: bool = False
    mute: bool = False
    """Requests take effect, and nobody hears of it."""
    refuses: bool = False
    slow: Callable[[], float] = lambda: 0.0
    """Seconds that a request is on its way, and its reply as long."""
    asked: int = 0

    async def get(self, kind: str, namespace: str | None, name: str) -> Body:
        return await self._carry(lambda: self.kube.get(kind, namespace, name))

    async def create(self, body: Mapping[str, Any]) -> Body:
        return await self._carry(lambda: self.kube.create(body))

    async def patch(self, kind: str, namespace: str | None, name: str, patch: Mapping[str, Any]) -> Body:
        return await self._carry(lambda: self.kube.patch(kind, namespace, name, dict(patch)))

    async def _carry(self, request: Callable[[], Awaitable[Body]]) -> Body:
        self.asked += 1
        if self.refuses:
            raise KubeRefused("leases is forbidden", code=403)
        if self.cut:
            raise KubeUnavailable("no answer")
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        delay = self.slow()
        # What was sent arrives, whether or not its sender still waits.
        sent = asyncio.ensure_future(_late(delay, request))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        reply = await asyncio.shield(sent)
        await asyncio.sleep(delay)
        if self.mute:
            raise KubeUnavailable("no answer")
        return reply


async def _late(delay: float, request: Callable[[], Awaitable[Body]]) -> Body:
    await asyncio.sleep(delay)
    return await request()


@dataclass
class Wall:
    """The clock on the wall, which people set."""

    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=_now()) + self.offset


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Candidate:
    """A process: it stands, leads, and ends when it has lost."""

    kube: FakeKube
    identity: str = "a"
    floor: Callable[[], int] = lambda: 0
    times: ElectionSettings = field(default_factory=ElectionSettings)
    wall: Wall = field(default_factory=Wall)
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    ahead: float = 0.0
    """What this process' clock has gone on while nothing of it ran."""

    def __post_init__(self) -> None:
        self.line = Line(self.kube)
        self.election = Election(
            self.line,
            namespace=NAMESPACE,
            name=NAME,
            identity=self.identity,
            times=self.times,
            floor=self.floor,
            jitter=lambda: self.rng.uniform(0.8, 1.2),
            clock=lambda: _now() + self.ahead,
            now=self.wall.now,
        )
        self.led_from: float | None = None
        self.epoch: int | None = None
        self.ended: LeadershipLost | None = None
        self.ended_at: float | None = None
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        await self.election.acquire()
        self.led_from, self.epoch = _now(), self.election.check()
        try:
            await self.election.hold()
        except LeadershipLost as lost:
            self.ended, self.ended_at = lost, _now()

    @property
    def leads(self) -> bool:
        return self.election.leading

    async def over(self) -> float:
        """Wait until it has ended by itself; when that was."""
        await asyncio.wait_for(self._task, 60)
        assert self.ended_at is not None
        return self.ended_at

    async def kill(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def end(self) -> None:
        """As SIGTERM does."""
        await self.kill()
        await self.election.release()


async def leader(one: Candidate, seconds: float = 60) -> Candidate:
    """Wait until it leads."""
    end = _now() + seconds
    while not one.leads:
        assert _now() < end, "it does not lead"
        await asyncio.sleep(0.05)
    return one


def lease(kube: FakeKube) -> Body:
    found = kube.find("Lease", NAMESPACE, NAME)
    assert found is not None
    return dict(found["spec"])


Program = Callable[[FakeKube], Awaitable[None]]


def virtually(program: Program) -> Callable[[], None]:
    """A test whose event loop jumps from timer to timer."""

    def test() -> None:
        async def main() -> None:
            await program(FakeKube())

        run_virtually(main())

    test.__name__ = program.__name__
    test.__doc__ = program.__doc__
    return test


@virtually
async def test_the_first_makes_the_lease_and_renews_it(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    made = lease(kube)
    assert (made["holderIdentity"], made["leaseTransitions"], made["leaseDurationSeconds"]) == ("a", 1, 15)
    await asyncio.sleep(100)
    after = lease(kube)
    assert a.leads
    assert (after["acquireTime"], after["leaseTransitions"]) == (made["acquireTime"], 1)
    assert after["renewTime"] > made["renewTime"]
    await a.kill()


@virtually
async def test_a_standby_waits_as_long_as_the_leader_renews(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(3600)
    assert a.leads
    assert not b.leads
    with pytest.raises(LeadershipLost, match="it holds no Lease; it ends, and writes nothing"):
        b.election.check()
    await asyncio.gather(a.kill(), b.kill())


@virtually
async def test_after_a_kill_another_leads_within_twenty_seconds(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(31.9)
    died = _now()
    await a.kill()
    await leader(b)
    assert 13 <= _now() - died <= 17
    assert (b.epoch, lease(kube)["leaseTransitions"]) == (2, 2)
    await b.kill()


@virtually
async def test_what_was_given_back_is_taken_soon(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(30)
    stopped = _now()
    await a.end()
    assert "holderIdentity" not in lease(kube)
    with pytest.raises(LeadershipLost):
        a.election.check()
    await leader(b)
    assert _now() - stopped <= 1.3
    assert b.epoch == 2
    await b.kill()


@virtually
async def test_an_outage_shorter_than_the_deadline_changes_nothing(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(20)
    for line in (a.line, b.line):
        line.cut = True
    await asyncio.sleep(7)
    for line in (a.line, b.line):
        line.cut = False
    await asyncio.sleep(60)
    assert a.leads
    assert a.epoch == 1 == lease(kube)["leaseTransitions"]
    await asyncio.gather(a.kill(), b.kill())


@virtually
async def test_a_leader_that_is_cut_off_ends_before_another_begins(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(20)
    a.line.cut, cut = True, _now()
    while a.leads:
        assert not b.leads
        await asyncio.sleep(0.05)
    assert 8 <= _now() - cut <= 10.1
    await leader(b)
    assert a.ended is not None
    assert a.ended_at is not None
    assert "was not renewed for" in str(a.ended)
    assert b.led_from is not None
    assert b.led_from - a.ended_at >= 2
    assert b.led_from - cut <= 20
    await b.kill()


@virtually
async def test_a_request_that_hangs_does_not_keep_the_leader_past_its_deadline(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    await asyncio.sleep(20)
    a.line.hangs, cut = True, _now()
    assert await a.over() - cut <= 12.1
    assert not a.leads


@virtually
async def test_a_long_outage_for_all_ends_the_leader_and_later_one_leads(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(20)
    a.line.cut = b.line.cut = True
    await asyncio.sleep(600)
    assert a.ended is not None
    assert not b.leads
    again = Candidate(kube, "a2")
    a.line.cut = b.line.cut = False
    await asyncio.sleep(17)  # what changed since it last looked may be new
    assert [one.leads for one in (a, b, again)].count(True) == 1
    assert lease(kube)["leaseTransitions"] == 2
    await asyncio.gather(b.kill(), again.kill())


@virtually
async def test_the_clock_on_the_wall_does_not_matter(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    for offset in (timedelta(days=400), timedelta(days=-400), timedelta(seconds=-14), timedelta()):
        a.wall.offset = offset
        b.wall.offset = -offset
        await asyncio.sleep(60)
        assert a.leads
        assert not b.leads
    await asyncio.gather(a.kill(), b.kill())


@virtually
async def test_a_clock_on_the_wall_that_stands_still_does_not_matter(kube: FakeKube) -> None:
    a = Candidate(kube)
    a.wall.now = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # type: ignore[method-assign]
    await leader(a)
    b = Candidate(kube, "b")
    await asyncio.sleep(120)
    assert a.leads
    await asyncio.gather(a.kill(), b.kill())


@virtually
async def test_a_process_that_was_stopped_knows_it_before_it_asks(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    await asyncio.sleep(20)
    asked = a.line.asked
    a.ahead = 30
    with pytest.raises(LeadershipLost, match="was not renewed for 3"):
        a.election.check()
    await a.over()
    assert a.line.asked == asked
    await a.election.release()
    assert lease(kube)["holderIdentity"] == "a", "what is perhaps another's is not given back"


@virtually
async def test_a_reply_that_comes_late_counts_from_when_it_was_asked_for(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    a.line.slow = lambda: 1.5
    await asyncio.sleep(120)
    assert a.leads
    # Each renewal is granted in time, 4.8 s after it was asked for, and the next one is over after 6.8 s more.
    a.line.slow = lambda: 2.4
    await asyncio.sleep(25)
    assert a.ended is not None


@virtually
async def test_a_reply_that_is_lost_is_no_loss(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    await asyncio.sleep(20)
    a.line.mute = True
    await asyncio.sleep(7)
    a.line.mute = False
    await asyncio.sleep(30)
    assert a.leads
    assert a.epoch == 1 == lease(kube)["leaseTransitions"]
    await asyncio.gather(a.kill(), b.kill())


@virtually
async def test_somebody_who_writes_into_the_lease_changes_nothing(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    for number in range(5):
        await kube.patch("Lease", NAMESPACE, NAME, {"metadata": {"labels": {"n": str(number)}}})
        await asyncio.sleep(3)
        assert a.leads
    assert lease(kube)["leaseTransitions"] == 1
    await a.kill()


@virtually
async def test_a_deleted_lease_is_put_back_by_its_leader(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    b = Candidate(kube, "b")
    c = Candidate(kube, "c", floor=lambda: 1)
    await asyncio.sleep(20)
    await kube.delete("Lease", NAMESPACE, NAME)
    await asyncio.sleep(3)
    assert lease(kube)["holderIdentity"] == "a"
    await asyncio.sleep(60)
    assert a.leads
    assert lease(kube)["leaseTransitions"] == 1
    await asyncio.gather(a.kill(), b.kill(), c.kill())


@virtually
async def test_a_deleted_lease_does_not_take_the_epochs_back(kube: FakeKube) -> None:
    """A new process knows them from the intents, and cannot know whether the last leader still lives."""
    began = _now()
    a = await leader(Candidate(kube, floor=lambda: 7))
    assert a.epoch == 8 == lease(kube)["leaseTransitions"]
    assert _now() - began >= 15
    await a.kill()


@virtually
async def test_a_process_that_is_started_again_under_its_name_leads_at_once(kube: FakeKube) -> None:
    old = await leader(Candidate(kube))
    new = Candidate(kube)
    await asyncio.sleep(0.01)
    assert (new.leads, new.epoch) == (True, 2)
    # Were the old one alive against all rules, it would find out at its next renewal.
    await asyncio.sleep(2.5)
    assert old.ended is not None
    assert "a holds the Lease, in epoch 2" in str(old.ended)
    await asyncio.sleep(60)
    assert new.leads
    await new.kill()


@virtually
async def test_an_intent_of_a_later_epoch_deposes(kube: FakeKube) -> None:
    a = await leader(Candidate(kube))
    assert a.election.check(1) == 1
    with pytest.raises(
        LeadershipLost, match="an intent of epoch 9 was found, and this process leads in epoch 1"
    ):
        a.election.check(9)
    assert not a.leads
    await asyncio.sleep(2.1)
    assert a.ended is not None


@virtually
async def test_a_holder_with_longer_times_is_left_them(kube: FakeKube) -> None:
    a = await leader(Candidate(kube, times=ElectionSettings(lease_seconds=60, renew_seconds=50)))
    b = Candidate(kube, "b")
    died = _now()
    await a.kill()
    await leader(b, 120)
    assert 58 <= _now() - died <= 63
    await b.kill()


@virtually
async def test_without_the_right_it_says_which(kube: FakeKube) -> None:
    a = Candidate(kube)
    a.line.refuses = True
    with pytest.raises(
        KubeRefused, match=r"system/the-lease cannot be held: .* get, create and patch leases"
    ):
        await a.election.acquire()


@virtually
async def test_nobody_else_means_always(kube: FakeKube) -> None:
    alone = AlwaysLeading()
    await alone.acquire()
    assert (alone.leading, alone.check(5)) == (True, 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10_000):
            await alone.hold()


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        kube = FakeKube()
        a = Candidate(kube)
        a.line.cut = True
        await asyncio.sleep(60)
        a.line.cut = False
        await leader(a)
        await a.kill()

    with caplog.at_level(logging.INFO, logger="nosana_operator.kube.election"):
        run_virtually(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "cannot be read: no answer" in caplog.text
    assert "leads, in epoch 1, by Lease system/the-lease" in caplog.text


class Struggle:
    """Processes that die, are cut off, hear late, and are started again; somebody deletes the Lease."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kube = FakeKube()
        self.numbers = itertools.count()
        self.led: dict[int, str] = {}
        """Epoch → who led in it."""
        self.processes: list[Candidate] = []

    async def live(self) -> None:
        for _ in range(3):
            self._start()
        for _ in range(300):
            self._stir()
            for _ in range(20):
                await asyncio.sleep(0.1)
                self._look()
        for one in self.processes:
            one.line.cut, one.line.slow = False, lambda: 0.0
        await asyncio.sleep(40)
        self._look()
        assert any(one.leads for one in self.processes), "in calm, one leads"
        for one in self.processes:
            await one.kill()

    def _start(self) -> None:
        # Each has written an intent in its term.
        new = Candidate(
            self.kube, f"p{next(self.numbers)}", floor=lambda: max(self.led, default=0), rng=self.rng
        )
        self.processes.append(new)

    def _stir(self) -> None:
        rng = self.rng
        one = rng.choice(self.processes)
        drawn = rng.random()
        if drawn < 0.1:
            one.line.cut = not one.line.cut
        elif drawn < 0.25:
            delays = rng.choice([[0.0], [0.0, 0.3], [0.0, 3.0, 12.0]])
            one.line.slow = lambda: rng.choice(delays)
        elif drawn < 0.3:
            asyncio.get_running_loop().create_task(one.kill())
            self.processes.remove(one)
        elif drawn < 0.35:
            asyncio.get_running_loop().create_task(one.end())
            self.processes.remove(one)
        elif drawn < 0.37 and self.kube.find("Lease", NAMESPACE, NAME):
            self.kube.remove("Lease", NAMESPACE, NAME)
        for gone in [each for each in self.processes if each.ended is not None]:
            self.processes.remove(gone)
        while len(self.processes) < 3:
            self._start()

    def _look(self) -> None:
        leading = [one for one in self.processes if one.leads]
        assert len(leading) <= 1, "two lead"
        for one in leading:
            epoch = one.election.check()
            if epoch not in self.led:
                assert epoch > max(self.led, default=0), "epochs go on only"
            assert self.led.setdefault(epoch, one.identity) == one.identity, "an epoch is one process'"


@pytest.mark.parametrize("seed", range(40))
def test_never_two_at_once_and_epochs_go_on_only(seed: int) -> None:
    struggle = Struggle(seed)
    run_virtually(struggle.live())
    assert len(struggle.led) > 3


@pytest.mark.parametrize("seed", range(20))
def test_of_two_that_begin_together_one_leads(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        kube = FakeKube()
        both = [Candidate(kube, name) for name in "ab"]
        for one in both:
            one.line.slow = lambda: rng.uniform(0, 0.01)
        await asyncio.sleep(5)
        assert [one.leads for one in both].count(True) == 1
        for one in both:
            await one.kill()
        with pytest.raises(NotFound):
            await kube.get("Lease", NAMESPACE, "another")

    run_virtually(main())
