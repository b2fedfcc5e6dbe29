"""The result of a job as Nosana's clients read it: the FlowState document (docs/protocol/node.md#flowstate).

Times are milliseconds since the epoch. Key order and compact form are fixed, so that equal states are equal
bytes and have equal CIDs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.literals import ResultValue
from nosana_operator.definition.model import Definition, LogType

MAX_LOG_ENTRIES = 24_999
# A result has to fit, compressed, into the Secrets that keep it until it is pinned.
MAX_LOG_BYTES = 16 * 1024 * 1024

OpStatus = Literal["init", "running", "success", "failed", "stopped"]


class FlowStatus(Enum):
    """Every word that a client may find in `status`."""

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
    """One line of an op's log. `timestamp` is the container runtime's (RFC 3339), None for a line of ours."""

    type: LogType
    log: str
    timestamp: str | None = None


@dataclass(frozen=True, slots=True)
class FlowError:
    """Something that went wrong: `event` is the node's word for the kind of error, `code` an HTTP status."""

    event: str
    message: str
    code: int | None = None


@dataclass(frozen=True, slots=True)
class EndReason:
    """Why an op was ended from outside, if it was; `sentence` tells a person."""

    host_shut_down: bool = False
    job_stopped: bool = False
    job_expired: bool = False
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class OpState:
    """One op in the result, also when it was never started (`init`, everything else empty).

    `provider_id`: the container's id. `state`: the container runtime's last state block with RestartCount.
    """

    operation_id: str
    group: str
    status: OpStatus = "init"
    provider_id: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    exit_code: int | None = None
    logs: Sequence[LogEntry] = ()
    errors: Sequence[FlowError] = ()
    results: Mapping[str, ResultValue] | None = None
    reason: EndReason = EndReason()
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FlowState:
    """A job's whole result. `ops` stand in the definition's order; `end_time` is None while it runs."""

    status: FlowStatus
    start_time: int
    end_time: int | None = None
    ops: Sequence[OpState] = ()
    errors: Sequence[FlowError] = ()

    @classmethod
    def initial(cls, definition: Definition, *, now: int) -> FlowState:
        """The state of a job of which nothing has started."""
        return cls(FlowStatus.INIT, now, ops=tuple(OpState(op.id, op.group) for op in definition.ops))

    @classmethod
    def unusable(cls, problems: Sequence[Problem], *, status: FlowStatus, start: int, end: int) -> FlowState:
        """The result of a job whose definition cannot be run: every reason, no ops.

        `status` is `VALIDATION_ERROR` when the language refuses it, `LOGISTICS_ERROR` when its poster did not
        give it, `INIT_ERROR` when it cannot be had otherwise or can never run.
        """
        event = "init-error" if status is FlowStatus.INIT_ERROR else status.value
        return cls(status, start, end, errors=tuple(FlowError(event, str(problem)) for problem in problems))

    def blank(self) -> FlowState:
        """What a confidential job publishes in place of its result: status, times and errors only."""
        return FlowState(self.status, self.start_time, self.end_time, errors=self.errors)

    def to_dict(self) -> dict[str, Any]:
        """The document as plain JSON data, keys in their fixed order."""
        document: dict[str, Any] = {
            "status": self.status.value,
            "startTime": self.start_time,
            "endTime": self.end_time,
            # URLs of a running job stand here on the node's API; a result never holds any.
            "secrets": {},
        }
        if self.errors:
            document["errors"] = [_error(error) for error in self.errors]
        document["opStates"] = [_op(op) for op in self.ops]
        return document

    def to_bytes(self) -> bytes:
        """The exact bytes that are pinned: compact JSON, UTF-8."""
        text = json.dumps(self.to_dict(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # A container may print half of a surrogate pair; what UTF-8 cannot hold becomes a question mark.
        return text.encode("utf-8", errors="replace")


class LogTail:
    """The newest lines of one op's log, within the bounds of a result; what falls out is counted.

    Lines leave in the order in which they came, as on Nosana's node (docs/protocol/node.md#log-limits). What
    the node does silently is told here: when lines were left out, the first entry is a `nodeerr` line that says
    how many. Extract `results` from `lines`, which does not hold it.
    """

    def __init__(self, *, max_entries: int = MAX_LOG_ENTRIES, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._lines: deque[LogEntry] = deque()
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.dropped = 0

    def extend(self, entries: Iterable[LogEntry]) -> None:
        """Add lines that came after all earlier ones."""
        for entry in entries:
            self._lines.append(entry)
            self._bytes += len(entry.log)
            while self._bytes > self._max_bytes and len(self._lines) > 1:
                self._drop_oldest()
            if len(self._lines) > self._max_entries:
                self._drop_oldest()

    def lost(self, count: int) -> None:
        """Count lines that were gone before they could be read (rotated away by the kubelet, say)."""
        self.dropped += count

    @property
    def lines(self) -> tuple[LogEntry, ...]:
        """The op's own lines that are left, oldest first."""
        return tuple(self._lines)

    def entries(self) -> tuple[LogEntry, ...]:
        """What stands in the result: the lines, and in front of them how many were left out, if any."""
        if not self.dropped:
            return self.lines
        lines, dropped = self.lines, self.dropped
        if len(lines) == self._max_entries:
            # The line that tells takes a place itself.
            lines, dropped = lines[1:], dropped + 1
        told = LogEntry(
            "nodeerr", f"{dropped} earlier log lines were left out: a result holds the newest ones\n"
        )
        return (told, *lines)

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._lines.popleft().log)
        self.dropped += 1


def _op(op: OpState) -> dict[str, Any]:
    document: dict[str, Any] = {
        "operationId": op.operation_id,
        "group": op.group,
        "providerId": op.provider_id,
        "status": op.status,
        "startTime": op.start_time,
        "endTime": op.end_time,
        "exitCode": op.exit_code,
        "logs": [_log(entry) for entry in op.logs],
        "errors": [_error(error) for error in op.errors],
    }
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
    return document


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
