"""The FlowState document: the result of a job as Nosana's clients read it (docs/protocol/node.md#flowstate).

Times are milliseconds since the epoch. Key order and compact form are fixed, so that equal states have equal
bytes and equal CIDs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.model import LogType

MAX_LOG_ENTRIES = 24_999
# A compressed result has to fit into the Secrets that hold it until it is pinned.
MAX_LOG_BYTES = 16 * 1024 * 1024

_PIECE_BYTES = 64 * 1024
_ENTRY_BYTES = 64

OpStatus = Literal["init", "running", "success", "failed", "stopped"]


class FlowStatus(Enum):
    """Every value of `status` that clients know."""

    BLANK = ""
    INIT = "init"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    STOPPED = "stopped"
    WAITING_FOR_DEFINITION = "waiting-for-job-definition"
    WAITING_FOR_RESULT = "waiting-for-result"
    LOGISTICS_ERROR = "logistics-error"
    VALIDATION_ERROR = "validation-error"
    INIT_ERROR = "init error"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of an op's log. `timestamp` is the container runtime's (RFC 3339); None for lines we add."""

    type: LogType
    log: str
    timestamp: str | None = None


@dataclass(frozen=True, slots=True)
class FlowError:
    """An error in the result: `event` is the node's name for its kind, `code` an HTTP status."""

    event: str
    message: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class EndReason:
    """Why an op was stopped, if it did not end by itself; `sentence` is for people."""

    host_shut_down: bool = False
    job_stopped: bool = False
    job_expired: bool = False
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class OpState:
    """One op in the result; an op that never started has status `init` and everything else empty.

    `provider_id`: the container's id. `state`: the container runtime's last state block with RestartCount.
    `logs` may be an iterator, so that not all logs of a job are in memory at once; then it is read only once.
    """

    operation_id: str
    group: str
    status: OpStatus = "init"
    provider_id: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    exit_code: int | None = None
    logs: Iterable[LogEntry] = ()
    errors: Sequence[FlowError] = ()
    results: Mapping[str, ResultValue] | None = None
    reason: EndReason = EndReason()
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FlowState:
    """A job's whole result. `ops` are in the definition's order; `end_time` is None while the job runs."""

    status: FlowStatus
    start_time: int
    end_time: int | None = None
    ops: Sequence[OpState] = ()
    errors: Sequence[FlowError] = ()

    @classmethod
    def unusable(cls, problems: Sequence[Problem], *, status: FlowStatus, start: int, end: int) -> FlowState:
        """The result of a job whose definition cannot run: every problem, no ops.

        `status`: `VALIDATION_ERROR` for a definition that breaks the language's rules, `LOGISTICS_ERROR` for one
        that its poster did not deliver, `INIT_ERROR` for one that cannot be fetched or can never run here.
        """
        event = "init-error" if status is FlowStatus.INIT_ERROR else status.value
        return cls(status, start, end, errors=tuple(FlowError(event, str(problem)) for problem in problems))

    def blank(self) -> FlowState:
        """The public stand-in for a confidential job's result: status, times and errors only."""
        return FlowState(self.status, self.start_time, self.end_time, errors=self.errors)

    def chunks(self) -> Iterator[bytes]:
        """The exact bytes that are pinned: compact JSON with keys in a fixed order, UTF-8, in pieces.

        A piece is small, except for the results of an op: encoding a piece holds the interpreter's lock.
        """
        document: dict[str, Any] = {
            "status": self.status.value,
            "startTime": self.start_time,
            "endTime": self.end_time,
            # The node's API puts the URLs of a running job here; a result never contains any.
            "secrets": {},
        }
        if self.errors:
            document["errors"] = [_error(error) for error in self.errors]
        yield _encoded(document).removesuffix(b"}") + b',"opStates":['
        for index, op in enumerate(self.ops):
            yield b"," if index else b""
            yield from _op(op)
        yield b"]}"

    def to_bytes(self) -> bytes:
        """All `chunks` together."""
        return b"".join(self.chunks())


class LogTail:
    """The newest lines of one op's log, within the limits of a result; it counts the lines that it drops.

    The oldest lines are dropped first, as on Nosana's node (docs/protocol/node.md#log-limits). Unlike the node,
    `entries` reports it: its first entry is then a `nodeerr` line with the number of lines. Extract `results`
    from `lines`, which does not contain that entry.
    """

    def __init__(self, *, max_entries: int = MAX_LOG_ENTRIES, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._lines: deque[LogEntry] = deque()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.dropped = 0

    def extend(self, entries: Iterable[LogEntry]) -> None:
        """Add lines that came after all earlier ones. A line that is longer than the limit is cut."""
        for entry in entries:
            entry = _cut(entry, self._max_bytes)
            self._lines.append(entry)
            self._bytes += _size(entry)
            while self._bytes > self._max_bytes or len(self._lines) > self._max_entries:
                self._drop_oldest()

    def lost(self, count: int) -> None:
        """Count lines that could not be read, for example because the kubelet rotated the log."""
        self.dropped += count

    @property
    def lines(self) -> tuple[LogEntry, ...]:
        """The op's own lines that were not dropped, oldest first."""
        return tuple(self._lines)

    def entries(self) -> tuple[LogEntry, ...]:
        """The log in the result: the lines, after a notice of how many were dropped, if any."""
        if not self.dropped:
            return self.lines
        lines, dropped = self.lines, self.dropped
        if len(lines) == self._max_entries:
            # The notice takes the place of one line.
            lines, dropped = lines[1:], dropped + 1
        notice = LogEntry(
            "nodeerr", f"{dropped} earlier log lines were left out: a result holds the newest ones\n"
        )
        return (notice, *lines)

    def _drop_oldest(self) -> None:
        self._bytes -= _size(self._lines.popleft())
        self.dropped += 1


def _size(entry: LogEntry) -> int:
    return len(entry.log) if entry.log.isascii() else len(entry.log.encode("utf-8", "replace"))


def _cut(entry: LogEntry, max_bytes: int) -> LogEntry:
    """The entry, its text cut to `max_bytes` with a note of what is missing."""
    size = _size(entry)
    if size <= max_bytes:
        return entry
    note = f" … {size} bytes: the rest of this line was left out\n"
    kept = entry.log.encode("utf-8", "replace")[: max(0, max_bytes - len(note.encode()))]
    return replace(entry, log=kept.decode("utf-8", "ignore") + note)


def _encoded(data: Any) -> bytes:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # A container may print half of a surrogate pair, which UTF-8 cannot encode: it becomes a question mark.
    return text.encode("utf-8", errors="replace")


def _op(op: OpState) -> Iterator[bytes]:
    document: dict[str, Any] = {
        "operationId": op.operation_id,
        "group": op.group,
        "providerId": op.provider_id,
        "status": op.status,
        "startTime": op.start_time,
        "endTime": op.end_time,
        "exitCode": op.exit_code,
    }
    yield _encoded(document).removesuffix(b"}") + b',"logs":['
    yield from _logs(op.logs)
    document = {"errors": [_error(error) for error in op.errors]}
    if op.results is not None:
        document["results"] = dict(op.results)
    reason: dict[str, Any] = {
        "hostShutDown": op.reason.host_shut_down,
        "jobStopped": op.reason.job_stopped,
        "jobExpired": op.reason.job_expired,
    }
    if op.reason.sentence is not None:
        reason["reason"] = op.reason.sentence
    document["diagnostics"] = {"reason": reason}
    if op.state is not None:
        document["diagnostics"]["state"] = dict(op.state)
    yield b"]," + _encoded(document).removeprefix(b"{")


def _logs(entries: Iterable[LogEntry]) -> Iterator[bytes]:
    """The entries as JSON, separated by commas, in pieces."""
    piece: list[dict[str, Any]] = []
    size, separator = 0, b""
    for entry in entries:
        piece.append(_log(entry))
        size += len(entry.log) + _ENTRY_BYTES
        if size >= _PIECE_BYTES:
            yield separator + _encoded(piece)[1:-1]
            piece, size, separator = [], 0, b","
    if piece:
        yield separator + _encoded(piece)[1:-1]


def _log(entry: LogEntry) -> dict[str, Any]:
    document = {"type": entry.type, "log": entry.log}
    if entry.timestamp is not None:
        document["timestamp"] = entry.timestamp
    return document


def _error(error: FlowError) -> dict[str, Any]:
    document: dict[str, Any] = {"event": error.event, "message": error.message}
    if error.code is not None:
        document["code"] = error.code
    return document
