"""Starts the process that searches a log, and enforces its time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nosana_operator.regex.errors import RegexUnavailable
from nosana_operator.regex.worker import FRAME

log = logging.getLogger(__name__)

Search = tuple[str, frozenset[str] | None]
"""A regular expression, and the types of the lines it is tried on (None: all)."""
Line = tuple[str, str]
"""A line's log type and its text."""
Value = str | list[str | None]
"""The captures of a pattern on all lines, or its error message."""

_WORKER: Final = Path(__file__).with_name("worker.py")
_TYPES: Final = {"stdin": 1, "stdout": 2, "stderr": 4, "nodeerr": 8}
_ALL: Final = 15
_CHUNK: Final = 256 * 1024
_MAX_PROCESSES: Final = 2
_ANSWER_OVERHEAD: Final = 6
"""JSON bytes per captured byte, at most (`\\u0000`)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The resources that strangers' patterns may use."""

    cpu: int = 5
    """CPU seconds for each pattern (whole seconds, enforced by the kernel)."""
    total: float = 15.0
    """Wall-clock seconds for all patterns of a call, from the start of its process."""
    memory: int = 512 * 1024 * 1024
    """Bytes of the process's address space."""


class RegexRunner:
    """Searches the lines of a log with JavaScript regular expressions, each call in its own process.

    A pattern that exceeds a limit has an error message as its value; the other patterns are not affected.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._processes = asyncio.Semaphore(_MAX_PROCESSES)

    async def match(
        self, searches: Sequence[Search], lines: Sequence[Line], budget: int, seconds: float = math.inf
    ) -> list[Value]:
        """A value for each search, in order.

        For each line that matches: the whole match, then each capture group (None when it did not participate).
        `budget`: UTF-8 bytes for all values together. `seconds`: for all of them, and never more than the limit
        of a call; waiting for a process does not count. Raises RegexUnavailable.
        """
        async with self._processes:
            return await self._match(searches, lines, budget, min(seconds, self._limits.total))

    async def _match(
        self, searches: Sequence[Search], lines: Sequence[Line], budget: int, seconds: float
    ) -> list[Value]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        values: list[Value] = []
        while len(values) < len(searches):
            left = deadline - loop.time()
            if left <= 0:
                late = f"not tried: the results of this op took longer than {seconds:.3g} s together"
                values += [late] * (len(searches) - len(values))
                break
            bytes_left = budget - sum(_bytes(value) for value in values)
            answers, problem = await self._attempt(searches[len(values) :], lines, bytes_left, left, seconds)
            values += answers
            if len(values) < len(searches):
                log.warning("a regular expression of a job definition was stopped: %s", problem)
                values.append(problem)
        return values

    async def _attempt(
        self, searches: Sequence[Search], lines: Sequence[Line], budget: int, left: float, seconds: float
    ) -> tuple[list[Value], str]:
        """The values from one process, and the error message for the next pattern if values are missing."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_WORKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},  # a process for strangers' patterns gets no variables of ours
                limit=_ANSWER_OVERHEAD * max(budget, 0) + _CHUNK,
            )
        except OSError as error:
            raise RegexUnavailable(
                f"a process for regular expressions cannot be started: {error.strerror or error}; "
                "the node may lack memory or processes"
            ) from error
        values: list[Value] = []
        try:
            async with asyncio.timeout(left):
                with contextlib.suppress(ConnectionError):
                    await _send(process.stdin, self._header(searches, budget), lines)
                while len(values) < len(searches) and (answer := await _read(process.stdout)) is not None:
                    values.append(answer)
                return values, self._cause(await process.wait())
        except TimeoutError:
            return (
                values,
                f"stopped: the results of this op took longer than {seconds:.3g} s together",
            )
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    def _header(self, searches: Sequence[Search], budget: int) -> bytes:
        header = {
            "searches": [[pattern, _bits(types)] for pattern, types in searches],
            "budget": budget,
            "cpu": self._limits.cpu,
            "memory": self._limits.memory,
        }
        data = json.dumps(header).encode()
        return len(data).to_bytes(4, "big") + data

    def _cause(self, code: int) -> str:
        if code == -signal.SIGXCPU:
            return f"stopped: this regular expression took longer than {self._limits.cpu} s; make it simpler"
        # Without memory the process ends in several ways, for example an abort of the engine or a Python error.
        return (
            "stopped: this regular expression needs more memory than it may have "
            f"({self._limits.memory >> 20} MiB); make it simpler"
        )


async def _send(stdin: asyncio.StreamWriter | None, header: bytes, lines: Sequence[Line]) -> None:
    assert stdin is not None  # noqa: S101 - it is a pipe
    stdin.write(header)
    for chunk in _chunks(lines):
        stdin.write(chunk)
        await stdin.drain()
    stdin.close()
    await stdin.wait_closed()


def _chunks(lines: Sequence[Line]) -> Iterator[bytes]:
    """The lines as frames, in chunks, so that a large log is not copied as a whole."""
    chunk = bytearray()
    for kind, text in lines:
        data = text.encode("utf-8", "replace")
        chunk += FRAME.pack(_TYPES.get(kind, _ALL), len(data))
        chunk += data
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


async def _read(stdout: asyncio.StreamReader | None) -> Value | None:
    """The next answer; None when the process ended without one."""
    assert stdout is not None  # noqa: S101 - it is a pipe
    line = await stdout.readline()
    if not line.endswith(b"\n"):
        return None
    answer = json.loads(line)
    value: Value = answer["error"] if "error" in answer else answer["values"]
    return value


def _bits(types: frozenset[str] | None) -> int:
    return _ALL if types is None else sum(_TYPES.get(kind, 0) for kind in types)


def _bytes(value: Value) -> int:
    return 0 if isinstance(value, str) else sum(4 + len((text or "").encode()) for text in value)
