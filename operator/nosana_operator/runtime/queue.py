"""A work queue of keys, not objects: a worker reads the current state when it starts on a key.

The rules are those of Kubernetes' controllers: a key is queued at most once, is never processed by two workers at a
time, and is processed again if it was added meanwhile. Failures back off per key.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from nosana_operator.backoff import Backoff
from nosana_operator.errors import Conflict, NosanaError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

Result = Literal["success", "requeue", "retry"]

_BACKOFF = Backoff(first=0.05, longest=60.0)


class QueueObserver(Protocol):
    """Metrics of a queue; all durations in seconds."""

    def added(self) -> None:
        """A key was added that was not queued already."""

    def started(self, waited: float) -> None:
        """Work on a key began."""

    def finished(self, result: Result, took: float) -> None:
        """Work on a key ended: with success, with a request to run again later, or in failure."""


@dataclass(slots=True)
class _Timer:
    due: float
    handle: asyncio.TimerHandle


class WorkQueue(Generic[K]):
    """A queue of keys. All methods have to be called on the event loop's thread."""

    def __init__(
        self,
        name: str,
        *,
        observer: QueueObserver | None = None,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self.name = name
        self._observer = observer
        self._backoff = backoff
        self._ready: deque[K] = deque()
        self._added_at: dict[K, float] = {}
        """The keys in `_ready`, and since when they wait, in seconds of the event loop."""
        self._running: dict[K, float] = {}
        self._again: set[K] = set()
        """Keys that were added while a worker processed them."""
        self._timers: dict[K, _Timer] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._stopping = False

    def add(self, key: K) -> None:
        """Process `key` as soon as a worker is free."""
        self._cancel_timer(key)
        if key in self._added_at or key in self._again:
            return
        if self._observer is not None:
            self._observer.added()
        if key in self._running:
            self._again.add(key)
            return
        self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Process `key` in this many seconds; of several calls the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        if self._stopping or key in self._added_at or key in self._again:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.due <= due:
                return
            timer.handle.cancel()
        self._timers[key] = _Timer(due, loop.call_at(due, self._timer_fired, key))

    async def run(self, workers: int, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        """Work until `stop()`: pass `workers` keys at a time to `reconcile`.

        `reconcile` returns the seconds after which it wants to be called again, or None. A `NosanaError` is logged,
        and the key is retried with back-off. Any other error is a bug of this program: it is logged with its
        traceback, and the key is retried too, so that one object cannot stop the others.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(reconcile), name=f"{self.name} worker {number}")

    def stop(self) -> None:
        """Let the workers finish the key that they process; nothing more is started."""
        self._stopping = True
        for timer in self._timers.values():
            timer.handle.cancel()
        self._timers.clear()
        self._wake.set()

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._added_at) + len(self._again)

    @property
    def longest_running(self) -> float:
        """Seconds for which the oldest running reconciliation has run; 0 when there is none."""
        if not self._running:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._running.values())

    async def _work(self, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            while not self._ready and not self._stopping:
                self._wake.clear()
                await self._wake.wait()
            if self._stopping:
                return
            await self._work_on(self._ready.popleft(), reconcile)

    async def _work_on(self, key: K, reconcile: Callable[[K], Awaitable[float | None]]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        waited = started - self._added_at.pop(key)
        self._running[key] = started
        if self._observer is not None:
            self._observer.started(waited)
        result: Result = "retry"
        try:
            later = await reconcile(key)
        except asyncio.CancelledError:
            self._running.pop(key, None)
            raise
        except NosanaError as error:
            # Somebody else changed the object between our read and our write, which is ordinary.
            level = logging.DEBUG if isinstance(error, Conflict) else logging.WARNING
            log.log(level, "%s %s failed and is retried: %s", self.name, _text(key), error)
            self._retry(key)
        except Exception:  # one broken object must not stop the others; the traceback goes to the log
            log.exception("%s %s failed because of a bug and is retried", self.name, _text(key))
            self._retry(key)
        else:
            self._failures.pop(key, None)
            result = "success" if later is None else "requeue"
            if later is not None:
                self.add_after(key, later)
        took = loop.time() - started
        del self._running[key]
        if self._observer is not None:
            self._observer.finished(result, took)
        if key in self._again:
            self._again.discard(key)
            self._push(key)

    def _retry(self, key: K) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, self._backoff.wait(failures))

    def _push(self, key: K) -> None:
        self._added_at[key] = asyncio.get_running_loop().time()
        self._ready.append(key)
        self._wake.set()

    def _timer_fired(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.handle.cancel()


def _text(key: object) -> str:
    return "/".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
