"""A leader stopped at each of its requests while another takes over, and then let go on.

As SIGSTOP and SIGCONT do: what was on its way arrives late, and what was decided is stale. Whether or not the
stopped one notices that it leads no more: one transaction for each end, every payment once, nothing served twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from typing import Any

import pytest

from fakes.kube import Request
from fakes.market import MarketLab, closed_runs
from fakes.market_objects import ADMIN, MARKET
from fakes.other_hosts import add_market, matches, post_to, spec
from fakes.trouble import Silence
from nosana_operator.api import JOB_KIND, MARKET_KIND
from nosana_operator.kube import LeadershipLost

_WRITES = ("apply", "create", "delete", "patch", "sendTransaction")


class Term:
    """Leadership that a test ends."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.over = False

    def check(self, seen: int = 0) -> int:
        if self.over:
            raise LeadershipLost("This process does not lead.")
        return self.epoch


class Stopped:
    """A lab whose first process stops at its `at`-th request, before or after that takes effect.

    `writes`: of those that change something.
    """

    def __init__(self, at: int, *, writes: bool = False, **options: Any) -> None:
        self.at = at
        self.writes = writes
        self.term = Term(1)
        self.lab = MarketLab(seconds=lambda: 3.0, leadership=self.term, **options)
        self.old = self.lab.process
        self.steps = 0
        self.where = ""
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._slot = self.old.slot
        self.old.slot = self._one_slot  # type: ignore[method-assign]
        self.lab.kube.interrupt = lambda request, when: self._gate(f"{when} {request.verb} {request.kind}")
        self.lab.rpc.gate = lambda method, when: self._gate(f"{when} {method}")

    async def _gate(self, where: str) -> None:
        if self._task is None or asyncio.current_task() is not self._task:
            return
        if self.writes and where.split()[1] not in _WRITES:
            return
        self.steps += 1
        if self.steps == self.at:
            self.where = where
            self.stopped.set()
            await self.go_on.wait()

    async def _one_slot(self) -> None:
        """The lab's slot goes on when this process has done its part or is stopped in the middle of it."""
        self._task = asyncio.create_task(self._slot())
        stop = asyncio.create_task(self.stopped.wait())
        await asyncio.wait({self._task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._task.done():
            await self._task
        else:
            self.lab.processes.remove(self.old)

    async def resume(self) -> None:
        """What it was at comes to its end."""
        assert self._task is not None
        self.go_on.set()
        await self._task

    def watch_again(self) -> None:
        """Its watches bring all that happened; it works on, as one that has not noticed anything."""
        kube, cache = self.lab.kube, self.old.cache
        for kind in (JOB_KIND, MARKET_KIND):
            bodies = kube.objects(kind)
            cache.retain(kind, [body["metadata"]["uid"] for body in bodies], as_of=str(10**9))
            for body in bodies:
                cache.put(body)
        self.old.slot = self._slot  # type: ignore[method-assign]
        self.old.wake_all()
        self.lab.processes.append(self.old)


async def live(at: int, *, slots: int | None, notices: bool) -> str | None:
    """One job's life; where the first process was stopped, None when the life has no such point.

    `slots`: for how long; None: until the other one has settled the job. `notices`: it knows of its
    deposition when it goes on.
    """
    scene = Stopped(at)
    lab = scene.lab
    await lab.until(lambda: scene.stopped.is_set() or lab.standing())
    posted = lab.post()
    settled = lab.settled(posted)
    await lab.until(lambda: scene.stopped.is_set() or _rests(lab, settled()))
    if not scene.stopped.is_set():
        return None
    lab.twin(Term(2))
    if slots is None:
        await lab.until(settled)
    else:
        for _ in range(slots):
            await lab.slot()
    scene.term.over = notices
    await scene.resume()
    if not notices:
        scene.watch_again()
    await lab.until(lambda: _rests(lab, settled()))
    lab.check_books()
    assert set(Counter(closed_runs(lab.ledger.history)).values()) == {1}
    assert set(lab.jobs.starts.values()) == {1}
    assert len(lab.seen_jobs) == 1
    assert lab.count("Work") == len({t.wire.signature for t in lab.ledger.history if "Work" in t.names})
    (job,) = lab.nosana_jobs()
    assert job["status"]["settlement"]["transaction"]["epoch"] in (1, 2)
    return scene.where


def _rests(lab: MarketLab, settled: bool) -> bool:
    """The job is settled and the key stands again, once."""
    body = lab.kube.find(MARKET_KIND, ADMIN, MARKET) or {}
    status: dict[str, Any] = body.get("status") or {}
    return settled and lab.standing() and not status.get("transactions")


async def live_with_two_markets(at: int, *, late: bool) -> str | None:
    """As `live`, on a cluster of one GPU with two NosanaMarkets, and jobs wait for the other one meanwhile.

    `late`: whoever takes over comes to the first one last.
    """
    scene = Stopped(at, writes=True, hosts=2, gpus=1)
    lab = scene.lab
    spec(lab, wallets=[{"secretRef": {"name": "wallet-0"}}])
    add_market(lab, "second", ["wallet-1"])
    scene.old.wake_all()
    await lab.until(lambda: scene.stopped.is_set() or lab.standing())
    if not scene.stopped.is_set():
        settled = lab.settled(lab.post())
        await lab.until(lambda: scene.stopped.is_set() or _rests(lab, settled()))
        if not scene.stopped.is_set():
            return None
    post_to(lab, "second", 1, timeout=600)
    new = lab.twin(Term(2))
    reconcile = new.host.reconcile

    async def elsewhere(key: tuple[str, str]) -> float | None:
        return 0.4 if key == (ADMIN, MARKET) else await reconcile(key)

    if late:
        new.host.reconcile = elsewhere  # type: ignore[method-assign]
    # The other market is looked at again after 10 s, and offers then what it can.
    for n in range(40):
        if n == 27:
            new.host.reconcile = reconcile  # type: ignore[method-assign]
            # Of what it was at only the write that was on its way is done.
            scene.term.over = True
            with contextlib.suppress(LeadershipLost):
                await scene.resume()
        await lab.slot()
        assert matches(lab, "market", "second") <= 1, "one GPU was given twice"
    return scene.where


async def stop_at_all(*, slots: tuple[int | None, ...], notices: bool) -> None:
    """A life for each point, with pauses of these lengths in turn."""
    for at in itertools.count(1):
        try:
            where = await live(at, slots=slots[at % len(slots)], notices=notices)
        except Exception as problem:
            raise AssertionError(
                f"stopped at request {at} for {slots[at % len(slots)]} slots: {problem}"
            ) from problem
        if where is None:
            break
    assert at > 100, "a life has many requests"


@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "unnoticed"])
async def test_a_leader_stopped_at_any_request(notices: bool) -> None:
    await stop_at_all(slots=(None, 1, 6), notices=notices)


@pytest.mark.parametrize("late", [True, False], ids=["late", "in turn"])
async def test_a_leader_stopped_at_any_write_with_two_markets_on_one_gpu(late: bool) -> None:
    """A write that comes late to one NosanaMarket offers no slot that the other one has offered meanwhile.

    Whoever is stopped at a reading finds before its next write that it leads no more.
    """
    for at in itertools.count(1):
        try:
            where = await live_with_two_markets(at, late=late)
        except AssertionError as problem:
            raise AssertionError(f"stopped at write {at}: {problem}") from problem
        if where is None:
            break
    assert at > 30, "a life has many writes"


@pytest.mark.soak
@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "unnoticed"])
@pytest.mark.parametrize("slots", [None, 0, 1, 2, 6, 20, 60, 200])
async def test_a_leader_stopped_at_any_request_for_any_time(slots: int | None, notices: bool) -> None:
    await stop_at_all(slots=(slots,), notices=notices)


@pytest.mark.parametrize("stage", ["running", "ended", "intent"])
async def test_the_kubernetes_api_away_for_ten_minutes(stage: str) -> None:
    """Its leader ends after ten seconds; the next one begins when the API is back. Nothing is ended by that."""
    term = Term(1)
    lab = MarketLab(seconds=lambda: 5.0, leadership=term)
    await lab.until(lab.standing)
    posted = lab.post(timeout=3600)
    await lab.until(lambda: (lab.says("RunVerified", posted) or ("",))[0] == "True")
    if stage == "ended":
        await lab.until(lambda: (lab.says("Complete", posted) or ("",))[0] == "True")
    elif stage == "intent":
        await lab.until(lambda: bool(_settlement(lab).get("transaction")))

    async def away(request: Request, when: str) -> None:
        raise Silence("the Kubernetes API is away")

    lab.kube.interrupt = away
    lab.stands_in = False  # The job controller does not get through either.
    await lab.pass_time(10)
    term.over = True
    await lab.pass_time(590)
    lab.kube.interrupt = None
    lab.stands_in = True
    lab.processes.remove(lab.process)
    lab.twin(Term(2))
    await lab.until(lambda: _rests(lab, lab.settled(posted)()))
    lab.check_books()
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert set(Counter(closed_runs(lab.ledger.history)).values()) == {1}
    assert set(lab.jobs.starts.values()) == {1}


def _settlement(lab: MarketLab) -> dict[str, Any]:
    (job,) = lab.nosana_jobs()
    found: dict[str, Any] = (job.get("status") or {}).get("settlement") or {}
    return found
