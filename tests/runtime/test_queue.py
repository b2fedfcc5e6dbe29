"""Work queue: de-duplication, one worker per key, delays, back-off, the end. On a clock that jumps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from fakes.virtual_time import run_virtually
from nosana_operator.backoff import Backoff
from nosana_operator.errors import Conflict, Unavailable
from nosana_operator.runtime.queue import Result, WorkQueue

Reconcile = Callable[[str], Awaitable[float | None]]


class Recorder:
    """Observer that remembers."""

    def __init__(self) -> None:
        self.adds = 0
        self.results: list[Result] = []
        self.waits: list[float] = []

    def added(self) -> None:
        self.adds += 1

    def started(self, waited: float) -> None:
        self.waits.append(waited)

    def finished(self, result: Result, took: float) -> None:
        self.results.append(result)


async def drive(queue: WorkQueue[str], reconcile: Reconcile, *, until: float, workers: int = 2) -> None:
    task = asyncio.create_task(queue.run(workers, reconcile))
    await asyncio.sleep(until)
    queue.stop()
    await task


def make(observer: Recorder | None = None) -> WorkQueue[str]:
    return WorkQueue("test", observer=observer, backoff=Backoff(0.05, 60.0, jitter=lambda: 1.0))


def test_a_waiting_key_waits_once() -> None:
    async def main() -> None:
        seen: list[str] = []

        async def reconcile(key: str) -> None:
            seen.append(key)

        recorder = Recorder()
        queue = make(recorder)
        for key in ("a", "b", "a", "a"):
            queue.add(key)
        assert queue.depth == 2
        await drive(queue, reconcile, until=1)
        assert seen == ["a", "b"]
        assert recorder.adds == 2

    run_virtually(main())


def test_a_key_added_while_worked_on_runs_again_and_never_twice_at_once() -> None:
    async def main() -> None:
        queue = make()
        at_work = 0
        runs = 0

        async def reconcile(key: str) -> None:
            nonlocal at_work, runs
            at_work += 1
            runs += 1
            assert at_work == 1
            await asyncio.sleep(1)
            if runs == 1:
                queue.add(key)
                queue.add(key)
                assert queue.depth == 1
            at_work -= 1

        queue.add("a")
        await drive(queue, reconcile, until=10, workers=4)
        assert runs == 2

    run_virtually(main())


def test_different_keys_run_at_once() -> None:
    async def main() -> None:
        queue = make()
        ends: list[float] = []

        async def reconcile(key: str) -> None:
            await asyncio.sleep(1)
            ends.append(asyncio.get_running_loop().time())

        for key in "abcd":
            queue.add(key)
        await drive(queue, reconcile, until=10, workers=4)
        assert ends == [1, 1, 1, 1]

    run_virtually(main())


def test_of_several_delays_the_earliest_holds() -> None:
    async def main() -> None:
        queue = make()
        at: list[float] = []

        async def reconcile(key: str) -> None:
            at.append(asyncio.get_running_loop().time())

        queue.add_after("a", 5)
        queue.add_after("a", 2)
        queue.add_after("a", 9)
        await drive(queue, reconcile, until=60)
        assert at == [2]

    run_virtually(main())


def test_adding_now_takes_the_place_of_a_delay() -> None:
    async def main() -> None:
        queue = make()
        at: list[float] = []

        async def reconcile(key: str) -> None:
            at.append(asyncio.get_running_loop().time())

        queue.add_after("a", 5)
        queue.add("a")
        await drive(queue, reconcile, until=60)
        assert at == [0]

    run_virtually(main())


def test_a_returned_delay_calls_again() -> None:
    async def main() -> None:
        recorder = Recorder()
        queue = make(recorder)
        at: list[float] = []

        async def reconcile(key: str) -> float | None:
            at.append(asyncio.get_running_loop().time())
            return 10 if len(at) < 3 else None

        queue.add("a")
        await drive(queue, reconcile, until=100)
        assert at == [0, 10, 20]
        assert recorder.results == ["requeue", "requeue", "success"]

    run_virtually(main())


def test_failures_back_off_to_a_minute_and_success_forgets_them() -> None:
    async def main() -> None:
        recorder = Recorder()
        queue = make(recorder)
        at: list[float] = []

        async def reconcile(key: str) -> None:
            at.append(asyncio.get_running_loop().time())
            if len(at) == 14:
                queue.add_after(key, 1)
                return
            raise Unavailable("the API is away")

        queue.add("a")
        await drive(queue, reconcile, until=520)
        gaps = [round(b - a, 6) for a, b in itertools.pairwise(at)]
        assert gaps[:12] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60]
        assert gaps[12] == 60
        assert gaps[13:16] == [1, 0.05, 0.1]
        assert recorder.results.count("success") == 1

    run_virtually(main())


@pytest.mark.parametrize(
    ("error", "level"),
    [(Conflict("changed"), "DEBUG"), (Unavailable("away"), "WARNING"), (ValueError("bug"), "ERROR")],
)
def test_every_failure_is_retried_and_told_at_its_level(
    error: Exception, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        queue = make()
        runs = 0

        async def reconcile(key: str) -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise error

        queue.add("a")
        await drive(queue, reconcile, until=1)
        assert runs == 2

    with caplog.at_level("DEBUG", logger="nosana_operator.runtime.queue"):
        run_virtually(main())
    assert [record.levelname for record in caplog.records] == [level]


def test_stop_lets_the_key_at_hand_end_and_starts_nothing_more() -> None:
    async def main() -> None:
        queue = make()
        ended: list[str] = []

        async def reconcile(key: str) -> float:
            await asyncio.sleep(5)
            ended.append(key)
            return 1

        queue.add("a")
        queue.add("b")
        queue.add_after("c", 3)
        await drive(queue, reconcile, until=1, workers=1)
        assert ended == ["a"]
        assert asyncio.get_running_loop().time() == 5

    run_virtually(main())


def test_figures_of_waiting_and_running() -> None:
    async def main() -> None:
        recorder = Recorder()
        queue = make(recorder)
        ages: list[float] = []

        async def reconcile(key: str) -> None:
            await asyncio.sleep(3)
            ages.append(queue.longest_running)

        queue.add("a")
        queue.add("b")
        await drive(queue, reconcile, until=10, workers=1)
        assert ages == [3, 3]
        assert recorder.waits == [0, 3]
        assert queue.longest_running == 0

    run_virtually(main())
