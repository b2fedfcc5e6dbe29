"""Pin services that are silent or slow: who waits for them, and for how long.

The lab's clock is that of chain and cluster; the loop's, virtual too, tells how long a look at a run holds its
worker.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fakes.market import MarketLab, Posted
from fakes.pins import FakePins
from fakes.virtual_time import run_virtually
from nosana_operator.api import JobReason
from nosana_operator.errors import Unavailable

AT_ONCE = 8
LONGEST_LOOK = 1.0


@dataclass
class SlowPins(FakePins):
    """A pin service that says nothing before `answers` is set."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    asked: int = 0
    open: int = 0
    most: int = 0
    """Asked at the same time."""
    left: int = 0
    """Requests that were not waited for to their end."""

    async def pin(self, data: bytes, *, name: str) -> None:
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.answers.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.open -= 1
        if self.fails:
            raise Unavailable("out of order")
        await super().pin(data, name=name)


def slow_lab(jobs: int = 1) -> tuple[MarketLab, SlowPins]:
    """A market with such a service, whose jobs end at one moment."""
    lab = MarketLab(gpus=jobs, seconds=lambda: (end - lab.clock.now()).total_seconds())
    end = lab.clock.now() + timedelta(seconds=100)
    lab.pins = pins = SlowPins()
    lab.boot()
    return lab, pins


def timed(lab: MarketLab) -> list[float]:
    """How long each look at a run from now on holds its worker."""
    looks: list[float] = []
    look, loop = lab.process.keeper.reconcile, asyncio.get_running_loop()

    async def noted(key: tuple[str, str]) -> float | None:
        began = loop.time()
        again = await look(key)
        looks.append(loop.time() - began)
        return again

    lab.process.keeper.reconcile = noted  # type: ignore[method-assign]
    return looks


async def ended(lab: MarketLab, jobs: int = 1) -> list[Posted]:
    """Jobs that have run to their end."""
    await lab.until(lab.standing)
    posted = [lab.post(content=bytes([n]), timeout=600) for n in range(jobs)]
    await lab.until(lambda: all(lab.says("Complete", one) for one in posted))
    return posted


def settlement(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    body = lab.job_of(posted) or {}
    return dict((body.get("status") or {}).get("settlement") or {})


def complaints(lab: MarketLab) -> int:
    return [reason for _, reason, _ in lab.events.seen].count(JobReason.PIN_UNAVAILABLE)


def test_a_silent_service_holds_no_worker_and_delays_the_pay_by_half_a_minute() -> None:
    async def main() -> None:
        lab, pins = slow_lab(jobs=12)
        looks = timed(lab)
        posted = await ended(lab, 12)
        await lab.until(lambda: len(lab.metrics.sent) == 12, 60)
        assert max(looks) <= LONGEST_LOOK
        assert sum(looks) <= AT_ONCE * 2 * LONGEST_LOOK, "once a request, and once more after the half minute"
        assert pins.most == AT_ONCE
        await asyncio.sleep(0)
        assert (pins.open, pins.left) == (0, pins.asked), "the finish is not waited for any more"
        assert all(30 <= seconds <= 33 for seconds in lab.metrics.sent)
        assert complaints(lab) == 12
        pins.answers.set()
        await lab.until(lab.settled())
        assert all(settlement(lab, one)["pinned"] for one in posted), "pinned afterwards"
        lab.check_books()

    run_virtually(main())


def test_a_slow_service_has_the_result_before_the_finish() -> None:
    async def main() -> None:
        lab, pins = slow_lab()
        [posted] = await ended(lab)
        await lab.pass_time(5)
        assert lab.metrics.sent == []
        assert complaints(lab) == 0, "five seconds are no outage"
        pins.answers.set()
        await lab.until(lambda: bool(lab.metrics.sent), 3)
        assert pins.asked == 1, "it goes on from one look to the next"
        await lab.until(lab.settled())
        assert settlement(lab, posted)["pinned"] is True

    run_virtually(main())


def test_a_service_that_fails_after_a_while_is_asked_again() -> None:
    async def main() -> None:
        lab, pins = slow_lab()
        pins.fails = True
        [posted] = await ended(lab)
        await lab.pass_time(5)
        pins.answers.set()
        await lab.until(lambda: lab.says("Settled", posted) == ("False", "PinUnavailable"), 3)
        pins.fails = False
        await lab.until(lambda: bool(lab.metrics.sent), 3)
        await lab.until(lab.settled())
        assert settlement(lab, posted)["pinned"] is True

    run_virtually(main())


def test_a_process_that_comes_after_the_half_minute_asks_once_and_briefly() -> None:
    async def main() -> None:
        lab, pins = slow_lab()
        await ended(lab)
        lab.processes.clear()
        await lab.pass_time(60)
        asked = pins.asked
        lab.boot()
        looks = timed(lab)
        await lab.until(lambda: bool(lab.metrics.sent), 10)
        assert max(looks) <= LONGEST_LOOK
        assert pins.asked == asked + 1

    run_virtually(main())
