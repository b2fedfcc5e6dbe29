"""Starts the engine's process for a log, and ends it in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
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
"""The captures of a pattern on all lines, or the text of what is wrong with it."""

_WORKER: Final = Path(__file__).with_name("worker.py")
_TYPES: Final = {"stdin": 1, "stdout": 2, "stderr": 4, "nodeerr": 8}
_ALL: Final = 15
_CHUNK: Final = 256 * 1024
_AT_ONCE: Final = 2
_ANSWER_OVERHEAD: Final = 6
"""Bytes of JSON for one byte captured, at most (`\\u0000`)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What strangers' patterns may cost."""

    cpu: int = 5
    """Seconds of one core for each pattern (whole ones; the kernel counts them)."""
    total: float = 15.0
    """Seconds by the clock for all patterns of a call, from its turn."""
    memory: int = 512 * 1024 * 1024
    """Bytes of the engine's address space."""


class RegexRunner:
    """Tries JavaScript's regular expressions on the lines of a log, each call in a process of its own.

    A pattern that breaks a limit gets a text for its value; the other patterns of the call are not harmed.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def match(self, searches: Sequence[Search], lines: Sequence[Line], budget: int) -> list[Value]:
        """A value for each search, in order.

        For each line that matches: the whole match, then each capture group (None when it took no part).
        `budget`: UTF-8 bytes that all values together may take. Raises RegexUnavailable.
        """
        async with self._turn:
            return await self._match(searches, lines, budget)

    async def _match(self, searches: Sequence[Search], lines: Sequence[Line], budget: int) -> list[Value]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.total
        values: list[Value] = []
        while len(values) < len(searches):
            left = deadline - loop.time()
            if left <= 0:
                late = f"not tried: the results of this op took longer than {self._limits.total:g} s together"
                values += [late] * (len(searches) - len(values))
                break
            kept = budget - sum(_bytes(value) for value in values)
            answered, broken = await self._attempt(searches[len(values) :], lines, kept, left)
            values += answered
            if len(values) < len(searches):
                log.warning("a regular expression of a job definition was given up: %s", broken)
                values.append(broken)
        return values

    async def _attempt(
        self, searches: Sequence[Search], lines: Sequence[Line], budget: int, seconds: float
    ) -> tuple[list[Value], str]:
        """The values of one process; when there are too few, why the next pattern has none."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_WORKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},  # nothing of ours for a process that runs strangers' patterns
                limit=_ANSWER_OVERHEAD * max(budget, 0) + _CHUNK,
            )
        except OSError as error:
            raise RegexUnavailable(
                f"a process for regular expressions cannot be started: {error.strerror or error}; "
                "the node may lack memory or processes"
            ) from error
        values: list[Value] = []
        try:
            async with asyncio.timeout(seconds):
                with contextlib.suppress(ConnectionError):
                    await _send(process.stdin, self._header(searches, budget), lines)
                while len(values) < len(searches) and (answer := await _read(process.stdout)) is not None:
                    values.append(answer)
                return values, self._cause(await process.wait())
        except TimeoutError:
            return values, f"given up: results of this op took longer than {self._limits.total:g} s together"
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
            return f"given up: this regular expression took longer than {self._limits.cpu} s; make it simpler"
        # Out of memory ends it in several ways, an abort of the engine and an error of Python's among them.
        return (
            "given up: this regular expression needs more memory than it may have "
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
    """The lines as frames, a piece at a time: a log of many megabytes is not held once more."""
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
    """The next answer; None when the process ended without it."""
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
