"""Builds a job's result: ops and logs → the exact FlowState bytes (docs/protocol/node.md#flowstate). Pure."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, Literal

from nosana_operator.api import JobReason, OpStatus, parse_timestamp
from nosana_operator.api.result import ResultTooLarge, result_secrets
from nosana_operator.definition.flowstate import (
    MAX_LOG_BYTES,
    EndReason,
    FlowError,
    FlowState,
    LogEntry,
    LogTail,
    OpState,
)
from nosana_operator.definition.limits import MAX_MESSAGE, MAX_PATTERNS
from nosana_operator.definition.literals import ResultValue
from nosana_operator.jobs.decision.effects import StoreResult
from nosana_operator.jobs.decision.ending import STOPS
from nosana_operator.jobs.decision.ops import OpReason
from nosana_operator.jobs.decision.view import PodView
from nosana_operator.ports import Body

MAX_LOG_READ: Final = 16 * 1024 * 1024
"""Bytes read of one stream of a container's log; kubelets rotate at 10 MiB by default."""
MAX_JOB_LOGS: Final = 32 * 1024 * 1024
"""Bytes of the logs of all ops of a job, in memory and in the result; each op has an equal share."""
_NOT_KEPT: Final = "not kept: the results of this job's ops do not fit into its result; capture less"
_LONGEST_NAME: Final = 256
_STAMP: Final = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d)$")
_FLOW_STATUS: Final[Mapping[str, Literal["success", "failed", "stopped"]]] = {
    "Succeeded": "success",
    "Failed": "failed",
    "Stopped": "stopped",
}
_OPERATOR_REASONS: Final = frozenset(OpReason)


@dataclass(frozen=True, slots=True)
class RunLog:
    """The log of one run of a container, each line led by its timestamp.

    `stderr` is None where the cluster cannot separate the streams: `stdout` then has the lines of both.
    """

    stdout: bytes = b""
    stderr: bytes | None = None

    @property
    def first_timestamp(self) -> str | None:
        """The timestamp of its first line."""
        stamps = (leading_timestamp(self.stdout), leading_timestamp(self.stderr or b""))
        return min((stamp for stamp in stamps if stamp is not None), default=None)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.stdout) + len(self.stderr or b"")

    def newest(self, max_bytes: int) -> RunLog:
        """The newest lines, at most so many bytes of both streams together."""
        if self.size <= max_bytes:
            return self
        if self.stderr is None:
            return RunLog(_newest(self.stdout, max_bytes))
        # A stream that needs less than half leaves the rest to the other one.
        stderr = _newest(self.stderr, max(max_bytes // 2, max_bytes - len(self.stdout)))
        return RunLog(_newest(self.stdout, max_bytes - len(stderr)), stderr)

    def lines(self) -> Iterator[LogEntry]:
        """The lines of both streams in the order in which they were written."""
        if not self.stderr:
            return log_lines(self.stdout)
        streams = (log_lines(self.stdout), log_lines(self.stderr, "stderr"))
        return (entry for _, entry in heapq.merge(*map(_in_time, streams), key=itemgetter(0)))


@dataclass(frozen=True, slots=True)
class Log:
    """The log of an op as far as it could be read, first run first; `problem` says what is missing."""

    runs: tuple[RunLog, ...] = ()
    problem: str | None = None

    @property
    def streams_apart(self) -> bool:
        """Whether each line is known to be from stdout or from stderr."""
        return all(run.stderr is not None for run in self.runs)


def result_parts(job: Body, plan: StoreResult, logs: Mapping[int, Log]) -> tuple[Body, ...]:
    """The Secrets that hold the result.

    Until it fits, the oldest log lines are left out, and then the captured results. What is left has at most
    64 ids and some sentences, so there is always a result that can be stored.
    """
    budget = op_log_share(len(logs))
    while True:
        try:
            return result_secrets(job, flow_state(plan, logs, budget).chunks())
        except ResultTooLarge:
            if budget == 0 and not plan.results:
                raise
            if budget == 0:
                shorter = {index: _not_kept(values) for index, values in plan.results.items()}
                plan = replace(plan, results=shorter if shorter != plan.results else {})
            budget //= 2


def op_log_share(ops: int) -> int:
    """Bytes of the log of each op in the result of a job with so many of them."""
    return min(MAX_LOG_BYTES, MAX_JOB_LOGS // max(1, ops))


def _not_kept(values: Mapping[str, ResultValue]) -> Mapping[str, ResultValue]:
    return {name[:_LONGEST_NAME]: _NOT_KEPT for name in list(values)[:MAX_PATTERNS]}


def flow_state(plan: StoreResult, logs: Mapping[int, Log], log_bytes: int = MAX_LOG_BYTES) -> FlowState:
    """The result; each op's log has at most `log_bytes`."""
    if plan.problems:
        return FlowState.unusable(plan.problems, status=plan.status, start=plan.start_ms, end=plan.end_ms)
    pods = {pod.op_index: pod for pod in plan.pods}
    return FlowState(
        plan.status,
        plan.start_ms,
        plan.end_ms,
        ops=tuple(_op(op, pods.get(op.index), logs.get(op.index, Log()), plan, log_bytes) for op in plan.ops),
    )


def retained(log: Log, log_bytes: int = MAX_LOG_BYTES) -> LogTail:
    """The lines of a log that the result keeps, and that `results` are captured from."""
    tail = LogTail(max_bytes=log_bytes)
    for run in log.runs:
        tail.extend(run.lines())
    return tail


def _op(op: OpStatus, pod: PodView | None, log: Log, plan: StoreResult, log_bytes: int) -> OpState:
    return OpState(
        operation_id=op.id,
        group=op.stage,
        status=_FLOW_STATUS[op.state],
        provider_id=pod.container_id if pod else None,
        start_time=_milliseconds(op.started_at),
        end_time=_milliseconds(op.ended_at),
        exit_code=op.exit_code,
        logs=_entries(op, log, log_bytes),
        errors=_errors(op),
        results=plan.results.get(op.index),
        reason=_reason(op, plan),
        state=_engine_state(op) if op.exit_code is not None else None,
    )


def _entries(op: OpStatus, log: Log, log_bytes: int) -> Iterator[LogEntry]:
    if (
        op.state == "Failed"
        and op.reason in _OPERATOR_REASONS
        and op.reason != OpReason.EXIT_CODE
        and op.message
    ):
        yield LogEntry("nodeerr", f"{op.message}\n")
    yield from retained(log, log_bytes).entries()
    if log.problem is not None:
        yield LogEntry("nodeerr", f"{log.problem[:MAX_MESSAGE]}\n")


def log_lines(data: bytes, stream: Literal["stdout", "stderr"] = "stdout") -> Iterator[LogEntry]:
    """Lines of a container's log as the API server serves them, each led by its timestamp."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end + 1
        line = data[start:end]
        start = end
        stamp, space, text = line.partition(b" ")
        if space and _STAMP.match(stamp):
            yield LogEntry(stream, text.decode("utf-8", "replace"), stamp.decode())
        else:
            yield LogEntry(stream, line.decode("utf-8", "replace"))


def _newest(data: bytes, max_bytes: int) -> bytes:
    """The last whole lines; the first bytes of the last line, when even that is longer."""
    if len(data) <= max_bytes:
        return data
    begin = data.find(b"\n", len(data) - max_bytes - 1) + 1
    if 0 < begin < len(data):
        return data[begin:]
    last = data.rfind(b"\n", 0, len(data) - 1) + 1
    return data[last : last + max_bytes]


def leading_timestamp(data: bytes) -> str | None:
    """The timestamp at the start of a log; None without a complete one."""
    stamp = data.partition(b" ")[0]
    return stamp.decode() if _STAMP.match(stamp) else None


def _in_time(lines: Iterator[LogEntry]) -> Iterator[tuple[str, LogEntry]]:
    """Each line with its sort key, the timestamp; a line without one stays behind the line before it."""
    latest = ""
    for entry in lines:
        latest = entry.timestamp or latest
        yield latest, entry


def _errors(op: OpStatus) -> Sequence[FlowError]:
    """Why an op failed, in the node's terms; a non-zero exit code is not an error of this kind."""
    if op.state != "Failed" or op.reason == OpReason.EXIT_CODE:
        return ()
    event = "operation-error" if op.reason in _OPERATOR_REASONS else "container-runtime-error"
    return (FlowError(event, op.message or op.reason or "failed"),)


def _reason(op: OpStatus, plan: StoreResult) -> EndReason:
    """Why the op was stopped, if it did not end by itself."""
    cause = plan.cause
    if cause is not None and op.reason in (cause.reason, OpReason.NEVER_STARTED):
        return EndReason(
            host_shut_down=plan.host_shut_down,
            job_stopped=cause.reason in STOPS,
            job_expired=cause.reason is JobReason.EXPIRED,
            sentence=cause.message,
        )
    if op.reason in (OpReason.EXPIRED, OpReason.DEPENDENCY_ENDED):
        return EndReason(sentence=op.message)
    return EndReason()


def _engine_state(op: OpStatus) -> dict[str, Any]:
    """The container's final state in the format of a container engine, as Nosana's node reports it."""
    return {
        "Status": "exited",
        "ExitCode": op.exit_code,
        "OOMKilled": op.reason == "OOMKilled",
        "StartedAt": op.started_at,
        "FinishedAt": op.ended_at,
        "RestartCount": (op.restarts or 0) + (op.health_restarts or 0),
    }


def _milliseconds(stamp: str | None) -> int | None:
    return None if stamp is None else int(parse_timestamp(stamp).timestamp() * 1000)
