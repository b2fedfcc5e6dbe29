"""How far the fetch is, and the lines that tell it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

_EVERY: Final = 1.0
"""Seconds between two lines."""
_SMOOTH: Final = 0.3
"""Weight of the last second in the rate that is told."""


@dataclass(slots=True)
class Progress:
    """Counts of one fetch. Its methods may be called from any thread."""

    bytes: int = 0
    files: int = 0
    _sizes: dict[Path, int | None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def of(self) -> int:
        """How many files there are in all."""
        return len(self._sizes or ())

    @property
    def total(self) -> int | None:
        """Bytes of all files; None while a file's size is not known."""
        with self._lock:
            sizes = list(self._sizes.values()) if self._sizes is not None else [None]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def expect(self, sizes: Mapping[Path, int | None]) -> None:
        """The files that are to come, and their sizes as far as they are known."""
        with self._lock:
            self._sizes = dict(sizes)

    def learn(self, file: Path, size: int) -> None:
        """The size of a file that the listing did not tell."""
        with self._lock:
            if self._sizes is not None:
                self._sizes[file] = size

    def add(self, count: int) -> None:
        """Bytes came; negative when some have to be fetched again."""
        with self._lock:
            self.bytes += count

    def file_done(self) -> None:
        """One file is complete."""
        with self._lock:
            self.files += 1


class Reporter:
    """Writes one JSON line a second while it is entered.

    `{"event": "fetching", "bytes": 1, "total": 2, "rate": 3, "files": 0, "of": 1}`: bytes, bytes, bytes per
    second; `total` is null while it is not known.
    """

    def __init__(
        self, progress: Progress, out: IO[str] = sys.stdout, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress
        self._out = out
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._started = clock()

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def say(self, event: str, **fields: Any) -> None:
        """Write one line."""
        self._out.write(json.dumps({"event": event, **fields}) + "\n")
        self._out.flush()

    def retrying(self, what: str, why: str, wait: float) -> None:
        """An attempt failed and another follows."""
        self.say("retrying", file=what, message=why, seconds=round(wait, 1))

    def done(self) -> None:
        """Everything is there; the rate is that of the whole."""
        seconds = max(self._clock() - self._started, 1e-3)
        self._tell("fetched", self._progress.bytes / seconds)

    def _run(self) -> None:
        before, at, rate = 0, self._clock(), 0.0
        while not self._stop.wait(_EVERY):
            now, count = self._clock(), self._progress.bytes
            latest = max(0, count - before) / max(now - at, 1e-3)
            rate = latest if not rate else (1 - _SMOOTH) * rate + _SMOOTH * latest
            before, at = count, now
            self._tell("fetching", rate)

    def _tell(self, event: str, rate: float) -> None:
        p = self._progress
        self.say(event, bytes=p.bytes, total=p.total, rate=round(rate), files=p.files, of=p.of)
