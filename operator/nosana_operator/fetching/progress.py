"""Counts the progress of a fetch and logs it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

_INTERVAL: Final = 1.0
"""Seconds between two lines."""
_SMOOTHING: Final = 0.3
"""Weight of the last second in the logged rate."""


@dataclass(slots=True)
class Progress:
    """Counters of one fetch. Thread-safe."""

    bytes: int = 0
    files: int = 0
    _sizes: dict[Path, int | None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def of(self) -> int:
        """The number of all files."""
        return len(self._sizes or ())

    @property
    def total(self) -> int | None:
        """Bytes of all files; None while the size of a file is unknown."""
        with self._lock:
            sizes = list(self._sizes.values()) if self._sizes is not None else [None]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def expect(self, sizes: Mapping[Path, int | None]) -> None:
        """Set the files to fetch, with their sizes where listed."""
        with self._lock:
            self._sizes = dict(sizes)

    def set_size(self, file: Path, size: int) -> None:
        """Set the size of a file that was listed without one."""
        with self._lock:
            if self._sizes is not None:
                self._sizes[file] = size

    def add(self, count: int) -> None:
        """Count received bytes; negative when some have to be fetched again."""
        with self._lock:
            self.bytes += count

    def file_done(self) -> None:
        """Count a complete file."""
        with self._lock:
            self.files += 1


class Reporter:
    """Context manager that writes a JSON line every second.

    `{"event": "fetching", "bytes": 1, "total": 2, "rate": 3, "files": 0, "of": 1}`: bytes, bytes, bytes per
    second; `total` is null while it is unknown.
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

    def write(self, event: str, **fields: Any) -> None:
        """Write one line."""
        self._out.write(json.dumps({"event": event, **fields}) + "\n")
        self._out.flush()

    def retrying(self, name: str, reason: str, wait: float) -> None:
        """Log that an attempt failed and will be repeated after `wait` seconds."""
        self.write("retrying", file=name, message=reason, seconds=round(wait, 1))

    def done(self) -> None:
        """Log that everything is complete, with the mean rate."""
        seconds = max(self._clock() - self._started, 1e-3)
        self._write_counts("fetched", self._progress.bytes / seconds)

    def _run(self) -> None:
        before, at, rate = 0, self._clock(), 0.0
        while not self._stop.wait(_INTERVAL):
            now, count = self._clock(), self._progress.bytes
            latest = max(0, count - before) / max(now - at, 1e-3)
            rate = latest if not rate else (1 - _SMOOTHING) * rate + _SMOOTHING * latest
            before, at = count, now
            self._write_counts("fetching", rate)

    def _write_counts(self, event: str, rate: float) -> None:
        p = self._progress
        self.write(event, bytes=p.bytes, total=p.total, rate=round(rate), files=p.files, of=p.of)
