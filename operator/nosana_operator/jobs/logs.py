"""Reads the logs that the kubelets still hold, and reports the parts that they no longer have.

A kubelet serves only the current log file of a container: rotated files (10 MiB by default) are out of reach.
The API does not report a rotation. It shows only in the first timestamp of the log:

    at 5 s    12:00:01 started          <- `LogMemory.first_line` remembers 12:00:01
              12:00:02 step 1
    at the    12:40:10 step 900         <- the log now begins later, so the lines between are gone
    end       12:40:11 done

So the first line of each running container is read soon after its start, and compared at the end. The log of
a run that ended is read when the kubelet starts the container again, because it keeps only one earlier run.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus
from nosana_operator.definition.flowstate import MAX_LOG_BYTES
from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.jobs.decision.view import PodView
from nosana_operator.jobs.errors import LogGone, LogNotReadYet
from nosana_operator.jobs.ports import Clock, Kube, LogStream
from nosana_operator.jobs.result import MAX_LOG_READ, Log, RunLog, leading_timestamp
from nosana_operator.workload import CONTAINER

_RETRY_FOR: Final = timedelta(seconds=60)
"""How long an unreadable log is retried before the result is stored without it."""
FIRST_CHECK: Final = timedelta(seconds=5)
"""After the start. Many ops have ended by then; kubelets check every 10 s which logs to rotate."""
_LAST_CHECK: Final = timedelta(minutes=10)
"""After the start. A container that printed nothing is checked until then, at doubling intervals."""
_CHECK_TIMEOUT: Final = 2.0
_FIRST_LINE: Final = 64
"""Bytes; enough for the timestamp of the first line."""

_DROPPED: Final = b"unable to retrieve container logs for "
"""A kubelet answers this in place of the log when it has removed the container."""
KEEP_BYTES: Final = 4 * 1024 * 1024
"""Bytes kept of the logs of one job's earlier runs; the newest stay."""
KEEP_ALL_BYTES: Final = 32 * 1024 * 1024
"""Bytes kept of the logs of all jobs' earlier runs; the job with the most loses its oldest run first."""
_READS: Final = 2
"""Logs read at the same time over all jobs, each of up to `MAX_LOG_READ` bytes a stream. First come, first served."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class LogMemory:
    """The logs of one job so far. Keys are container ids: each run of a container has its own.

    After a restart of the operator it is empty: retries start again, earlier runs that the kubelet has dropped
    are missing from the result, and rotations are not reported.
    """

    trouble_since: datetime | None = None
    first_line: dict[str, str | None] = field(default_factory=dict)
    """The timestamp of the first line of each run that was checked; None while it has printed nothing."""
    checked: dict[str, datetime] = field(default_factory=dict)
    """When the first line of each run was last checked."""
    earlier_runs: dict[tuple[str, str], RunLog] = field(default_factory=dict)
    """Logs of runs that have ended, oldest first, by pod uid and container id."""

    @property
    def size(self) -> int:
        """Bytes of the earlier runs."""
        return sum(log.size for log in self.earlier_runs.values())

    def drop_oldest(self) -> None:
        """Forget the log of the oldest run."""
        del self.earlier_runs[next(iter(self.earlier_runs))]


class LogReader:
    """Reads the logs of ops that have ended. `kube` and `clock` are shared by all jobs."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock
        self._reads = asyncio.Semaphore(_READS)
        self._memories: weakref.WeakSet[LogMemory] = weakref.WeakSet()
        self._whole: set[str | None] = set()
        """Nodes whose logs come as one stream: their kubelet or the API server cannot separate them."""

    async def track(
        self, namespace: str, pods: Iterable[PodView], memory: LogMemory, now: datetime
    ) -> float | None:
        """Remember when the logs of running pods begin, and copy the logs of earlier runs before the kubelet
        drops them. Returns the seconds until the next check is due; None: no check is due.
        """
        waits = []
        for pod in pods:
            if pod.ended is None:
                await self._keep_earlier_run(namespace, pod, memory)
            due = _next_check(pod, memory)
            if due is None or pod.container_id is None:
                continue
            if due <= now:
                memory.first_line[pod.container_id] = await self._first_timestamp(namespace, pod)
                memory.checked[pod.container_id] = now
                due = _next_check(pod, memory)
            if due is not None:
                waits.append((due - now).total_seconds())
        return min(waits, default=None)

    async def read(
        self,
        namespace: str,
        pods: Sequence[PodView],
        op: OpStatus,
        memory: LogMemory,
        max_bytes: int = MAX_LOG_BYTES,
    ) -> Log:
        """The logs of the op's runs that can still be read, first run first. Raises LogNotReadYet.

        The newest lines, at most `max_bytes` of them.
        """
        mine = [pod for pod in pods if pod.op_index == op.index and pod.started_at is not None]
        runs = [run for pod in mine for run in _runs(pod, memory)]
        limit, share = MAX_LOG_READ // max(1, len(runs)), max_bytes // max(1, len(runs))
        missing = (op.attempt or 0) + 1 + sum(pod.restarts for pod in mine) - len(runs) if mine else 0
        problems: list[str] = []
        logs: list[RunLog] = []
        for run in runs:
            try:
                async with self._reads:
                    log = run.kept or await self._run(namespace, run.pod, run.previous, limit)
            except (NotFound, Refused) as error:
                problems.append(f"the log is gone: {error}")
                continue
            except Unavailable as error:
                now = self._clock.now()
                memory.trouble_since = memory.trouble_since or now
                if now - memory.trouble_since < _RETRY_FOR:
                    raise LogNotReadYet(
                        f"the log of pod {run.pod.name} cannot be read yet: {error}"
                    ) from error
                problems.append(f"the log could not be read: {error}")
                continue
            read_limit = KEEP_BYTES if run.kept else limit
            if max(len(log.stdout), len(log.stderr or b"")) >= read_limit:
                problems.append(f"the log is longer: only its first {read_limit} bytes were read")
            problems += _rotated(log, memory.first_line.get(run.container or ""))
            if log.size > share:
                problems.append(f"only the newest {share} of {log.size} bytes of the log are kept")
                log = log.newest(share)
            if log in logs and log.size:
                # For a container whose log it lost, the kubelet serves the log of the container before it.
                missing += 1
                continue
            logs.append(log)
        if missing > 0:
            problems.insert(
                0, f"the logs of {missing} of the op's runs are gone: only the last ones are kept"
            )
        return Log(tuple(logs), "\n".join(problems) or None)

    async def _keep_earlier_run(self, namespace: str, pod: PodView, memory: LogMemory) -> None:
        if pod.previous_id is None or (pod.uid, pod.previous_id) in memory.earlier_runs:
            return
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT), self._reads:
                log = await self._run(namespace, pod, True, KEEP_BYTES)
        except (NotFound, Refused, Unavailable, TimeoutError):
            return  # `read` tries again when the op has ended.
        memory.earlier_runs[pod.uid, pod.previous_id] = log.newest(KEEP_BYTES)
        self._memories.add(memory)
        while memory.size > KEEP_BYTES:
            memory.drop_oldest()
        while sum(each.size for each in self._memories) > KEEP_ALL_BYTES:
            max(self._memories, key=lambda each: each.size).drop_oldest()

    async def _run(self, namespace: str, pod: PodView, previous: bool, limit: int) -> RunLog:
        """The log of one run, with separate streams where the cluster supports that."""

        async def fetch(stream: LogStream | None) -> bytes:
            data = await self._kube.read_logs(
                namespace, pod.name, CONTAINER, previous=previous, timestamps=True, limit_bytes=limit,
                stream=stream,
            )  # fmt: skip
            if data.startswith(_DROPPED) and b"\n" not in data:
                raise LogGone(f"the node has dropped a container of pod {pod.name}")
            return data

        if pod.node in self._whole:
            return RunLog(await fetch(None))
        try:
            stderr = await fetch("Stderr")
        except Refused:
            # The request for both streams shows whether only separate streams are refused, or the log itself.
            whole = RunLog(await fetch(None))
            self._whole.add(pod.node)
            return whole
        stdout = await fetch("Stdout")
        if stdout and stdout == stderr:
            # An API server that does not know the parameter ignores it and serves both streams each time.
            self._whole.add(pod.node)
            return RunLog(stdout)
        return RunLog(stdout, stderr)

    async def _first_timestamp(self, namespace: str, pod: PodView) -> str | None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT):
                data = await self._kube.read_logs(namespace, pod.name, CONTAINER, limit_bytes=_FIRST_LINE)
        except (NotFound, Refused, Unavailable, TimeoutError):
            return None
        return leading_timestamp(data)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a container whose log is available: from the kubelet (`previous` or current), or `kept`."""

    pod: PodView
    container: str | None
    previous: bool = False
    kept: RunLog | None = None


def _runs(pod: PodView, memory: LogMemory) -> Iterator[_Run]:
    """The runs of a pod's container, first run first."""
    earlier = {
        cid: log
        for (uid, cid), log in memory.earlier_runs.items()
        if uid == pod.uid and cid != pod.container_id
    }
    for container, log in earlier.items():
        yield _Run(pod, container, kept=log)
    if pod.previous_id not in (None, pod.container_id, *earlier):
        yield _Run(pod, pod.previous_id, previous=True)
    yield _Run(pod, pod.container_id)


def _next_check(pod: PodView, memory: LogMemory) -> datetime | None:
    """When the first line of a running pod's log has to be checked next; None: never again."""
    container = pod.container_id
    if container is None or pod.started_at is None or pod.ended is not None:
        return None
    if memory.first_line.get(container) is not None:
        return None
    checked = memory.checked.get(container)
    if checked is None:
        return pod.started_at + FIRST_CHECK
    age = checked - pod.started_at
    return checked + max(age, FIRST_CHECK) if age < _LAST_CHECK else None


def _rotated(log: RunLog, first: str | None) -> list[str]:
    begins = log.first_timestamp
    if first is None or begins is None or begins <= first:
        return []
    return [f"the lines from {first} to {begins} are gone: the node rotated the log while the op ran"]
