"""The operator's background tasks: when one ends, the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from nosana_operator.runtime.errors import BackgroundFailed


class TaskSupervisor:
    """Runs tasks that must not end; when one does, waiting raises BackgroundFailed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_end: set[asyncio.Task[None]] = set()

    def start(self, name: str, part: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task; it runs until it is cancelled."""
        task = asyncio.create_task(part, name=name)
        self._tasks.add(task)
        return task

    def expect_end(self, task: asyncio.Task[None]) -> None:
        """Allow this task to end."""
        self._may_end.add(task)

    async def wait_until(self, stop: asyncio.Event) -> None:
        """Return when `stop` is set; raise BackgroundFailed when a task ends before."""
        await self.finish(_never(), stop)

    async def finish(self, step: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
        """Run one step. True when it is done, False when `stop` is set first; raises when a task ends first."""
        stopping = asyncio.create_task(_set(stop), name="stop")
        stepping = asyncio.create_task(step, name="step")
        try:
            await asyncio.wait({*self._tasks, stopping, stepping}, return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done() and task not in self._may_end:
                    raise BackgroundFailed(_why_it_ended(task)) from _error(task)
            if stepping.done():
                stepping.result()
                return True
            return False
        finally:
            await cancel_all({stopping, stepping})

    async def cancel(self) -> None:
        """Cancel all tasks and wait for them."""
        await cancel_all(self._tasks)


async def cancel_all(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait until all have ended; their errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _why_it_ended(task: asyncio.Task[None]) -> str:
    error = _error(task)
    cause = f"{type(error).__name__}: {error}" if error is not None else "without an error"
    return f"The task {task.get_name()!r} ended ({cause}); the operator exits, so that it is restarted."
