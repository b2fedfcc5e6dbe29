"""A leader stopped at any request of a job's life, as SIGSTOP does: another ends the job, and what the old one was
at comes late. The job is as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Literal

import pytest

from fakes.jobs import NAMESPACE, Lab
from fakes.kube import Request
from nosana_operator.jobs import Key
from nosana_operator.kube import LeadershipLost
from support.job_lives import SCENARIOS, Scenario, live, outcome

OLD: ContextVar[bool] = ContextVar("OLD", default=False)
"""Whether what runs is the first process."""


class Stopped:
    """A lab whose first controller stops at its `at`-th request, before or after that takes effect."""

    def __init__(self, lab: Lab, at: int) -> None:
        self.lab = lab
        self.at = at
        self.steps = 0
        self.where = ""
        self.deposed = False
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        lab.guard = self._guard
        lab.boot()
        self.old = lab.controller
        self._reconcile = self.old.reconcile
        self.old.reconcile = self._until_stopped  # type: ignore[method-assign]
        lab.kube.interrupt = self._gate

    def _guard(self) -> None:
        if self.deposed:
            raise LeadershipLost("This process does not lead.")

    async def _gate(self, request: Request, when: Literal["before", "after"]) -> None:
        if not OLD.get():
            return
        self.steps += 1
        if self.steps == self.at:
            self.where = f"{when} {request.verb} {request.kind} {request.name}"
            self.stopped.set()
        if self.stopped.is_set():
            await self.go_on.wait()

    async def _until_stopped(self, key: Key) -> float | None:
        OLD.set(True)
        task = asyncio.create_task(self._reconcile(key))
        OLD.set(False)
        self._tasks.add(task)
        stop = asyncio.create_task(self.stopped.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        self.lab.guard = lambda: None
        self.lab.boot()
        return None

    async def resume(self) -> None:
        """What it was at comes to its end; more it does not get to write."""
        self.deposed = True
        self.go_on.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.old.close()


async def live_on(scenario: Scenario, at: int, rounds: int | None) -> dict[str, Any] | None:
    """One life; None when it has no such point. `rounds` of the new leader pass before the old one goes on."""
    lab = Lab()
    scenario(lab)
    stopped = Stopped(lab, at)
    over = lab.over("run-a")
    await lab.drive(lambda: stopped.stopped.is_set() or over())
    if not stopped.stopped.is_set():
        return None
    if rounds is None:
        await lab.drive(over)
    await stopped.resume()
    await lab.drive(over)
    for _ in range(3):
        lab.wake((NAMESPACE, "run-a"))
        await lab.work()
        lab.kubelet.step()
    await lab.controller.close()
    return outcome(lab) | {"where": stopped.where}


@pytest.mark.parametrize("rounds", [None, 0], ids=["until-the-end", "at-once"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_leader_stopped_at_any_request_changes_nothing(
    scenario: Scenario, rounds: int | None
) -> None:
    clean, chances = await live(scenario)
    for at in range(1, chances + 1):
        told = await live_on(scenario, at, rounds)
        if told is None:
            break
        where = told.pop("where")
        for kind in ("claims", "secrets"):
            # One that comes late is the job's, and goes with it.
            assert set(clean[kind]) <= set(told[kind]), where
            told[kind] = clean[kind]
        assert told == clean, f"stopped at chance {at} of {chances}, {where}"
