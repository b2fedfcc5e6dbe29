"""The market host's checks beside its loop: each in its own time, and an orderly end."""

from __future__ import annotations

import asyncio
from typing import Any

from fakes.virtual_time import run_virtually
from nosana_operator.market import Poll
from nosana_operator.runtime.compose import run_polls
from nosana_operator.runtime.queue import WorkQueue


class Stuck:
    """Checks of which one never gets an answer, and one meets a fault of this program."""

    all: tuple[Poll, ...] = (("a", "funds"), ("a", "history"), ("a", "payout"), ("b", "funds"))

    def __init__(self) -> None:
        self.done: list[Poll] = []

    async def reconcile(self, check: Poll) -> float | None:
        if check == ("a", "history"):
            await asyncio.sleep(10_000)
        if check == ("a", "payout"):
            raise RuntimeError("a fault")
        self.done.append(check)
        return 1.0


def test_no_check_keeps_another_waiting_and_all_end_in_order() -> None:
    async def main() -> None:
        checks: Any = Stuck()
        work: WorkQueue[Poll] = WorkQueue("chain polls")
        task = asyncio.create_task(run_polls(work, checks))
        await asyncio.sleep(10.5)
        assert checks.done.count(("a", "funds")) == checks.done.count(("b", "funds")) == 11
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(100)
        assert len(checks.done) == 22, "nothing goes on"

    run_virtually(main())
