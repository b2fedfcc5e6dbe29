"""Reading what the kubelets still have of an op's logs, and knowing what they have no more.

A kubelet hands out a container's current log file and no other: what it has rotated away (at 10 MiB by
default) is out of reach. Nothing tells that this happened, except that a log which began with one line
begins with a later one at the end. So the first line of each running op is looked at soon after its start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus
from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.jobs.decision.view import PodView
from nosana_operator.jobs.errors import LogGone, LogNotReadYet
from nosana_operator.jobs.ports import Clock, Kube, LogStream
from nosana_operator.jobs.result import MAX_LOG_READ, Log, RunLog, first_stamp
from nosana_operator.workload import CONTAINER

_PATIENCE: Final = timedelta(seconds=60)
"""How long a log that cannot be read is asked for again before the result has to do without."""
FIRST_LOOK: Final = timedelta(seconds=5)
"""Many ops are over by then. Kubelets look for logs to rotate every 10 s."""
_LAST_LOOK: Final = timedelta(minutes=10)
"""How long after its start an op that has said nothing is looked at, each time after twice the time."""
_LOOK_PATIENCE: Final = 2.0
_FIRST_LINE: Final = 64
"""Bytes: its timestamp is wanted."""

_DROPPED: Final = b"unable to retrieve container logs for "
"""What a kubelet says, as if it were the log, of a container that it has no more."""
KEEP_BYTES: Final = 4 * 1024 * 1024
"""Of the logs of one job's earlier runs; the newest stay."""


@dataclass(slots=True)
class LogMemory:
    """What is known of the logs of one job. By the ids of containers: each run has one of its own.

    Losing it costs patience, the logs of runs that the kubelet has dropped, and knowing what was rotated.
    """

    trouble_since: datetime | None = None
    began: dict[str, str | None] = field(default_factory=dict)
    """The timestamp of the first line of each run that was looked at; None while it has said nothing."""
    looked: dict[str, datetime] = field(default_factory=dict)
    kept: dict[tuple[str, str], RunLog] = field(default_factory=dict)
    """Logs of runs that are over, the oldest first, by the uid of the pod and the id of the container."""


class LogReader:
    """Reads the logs of ops that have ended. `kube` and `clock` are shared by all jobs."""

    def __init__(self, kube: Kube, clock: Clock) -> None:
        self._kube = kube
        self._clock = clock
        self._whole: set[str | None] = set()
        """Nodes whose logs come as one stream: their kubelets, or the API server, offer nothing else."""

    async def look(
        self, namespace: str, pods: Iterable[PodView], memory: LogMemory, now: datetime
    ) -> float | None:
        """Note when the logs of running pods began, and keep those of runs that are over before the kubelet does
        not have them any more; the seconds until the next look is due, if one is.
        """
        waits = []
        for pod in pods:
            if pod.ended is None:
                await self._keep(namespace, pod, memory)
            due = _look_due(pod, memory, now)
            if due is None or pod.container_id is None:
                continue
            if due <= now:
                memory.began[pod.container_id] = await self._begins(namespace, pod)
                memory.looked[pod.container_id] = now
                due = _look_due(pod, memory, now)
            if due is not None:
                waits.append((due - now).total_seconds())
        return min(waits, default=None)

    async def read(self, namespace: str, pods: Sequence[PodView], op: OpStatus, memory: LogMemory) -> Log:
        """All that is left of the op's runs, the first one first. Raises LogNotReadYet."""
        mine = [pod for pod in pods if pod.op_index == op.index and pod.started_at is not None]
        runs = [run for pod in mine for run in _runs(pod, memory)]
        limit = MAX_LOG_READ // max(1, len(runs))
        gone = (op.attempt or 0) + 1 + sum(pod.restarts for pod in mine) - len(runs) if mine else 0
        said: list[str] = []
        found: list[RunLog] = []
        for run in runs:
            try:
                log = run.kept or await self._run(namespace, run.pod, run.previous, limit)
            except (NotFound, Refused) as error:
                said.append(f"the log is gone: {error}")
                continue
            except Unavailable as error:
                now = self._clock.now()
                memory.trouble_since = memory.trouble_since or now
                if now - memory.trouble_since < _PATIENCE:
                    raise LogNotReadYet(
                        f"the log of pod {run.pod.name} cannot be read yet: {error}"
                    ) from error
                said.append(f"the log could not be read: {error}")
                continue
            if log in found and _size(log):
                # Of a container that it cannot tell of any more, the kubelet gives the log of the one before.
                gone += 1
                continue
            found.append(log)
            asked = KEEP_BYTES if run.kept else limit
            if max(len(log.stdout), len(log.stderr or b"")) >= asked:
                said.append(f"the log goes on: only its first {asked} bytes were read")
            said += _rotated(log, memory.began.get(run.container or ""))
        if gone > 0:
            said.insert(0, f"the logs of {gone} of the op's runs are gone: only the last ones are kept")
        return Log(tuple(found), "\n".join(said) or None)

    async def _keep(self, namespace: str, pod: PodView, memory: LogMemory) -> None:
        if pod.previous_id is None or (pod.uid, pod.previous_id) in memory.kept:
            return
        try:
            async with asyncio.timeout(_LOOK_PATIENCE):
                log = await self._run(namespace, pod, True, KEEP_BYTES)
        except (NotFound, Refused, Unavailable, TimeoutError):
            return  # The end comes soon enough to try again.
        memory.kept[pod.uid, pod.previous_id] = log
        while sum(map(_size, memory.kept.values())) > KEEP_BYTES and len(memory.kept) > 1:
            del memory.kept[next(iter(memory.kept))]

    async def _run(self, namespace: str, pod: PodView, previous: bool, limit: int) -> RunLog:
        """The log of one run, its streams apart where the cluster can tell them apart."""

        async def ask(stream: LogStream | None) -> bytes:
            data = await self._kube.read_logs(
                namespace, pod.name, CONTAINER, previous=previous, timestamps=True, limit_bytes=limit,
                stream=stream,
            )  # fmt: skip
            if data.startswith(_DROPPED) and b"\n" not in data:
                raise LogGone(f"the node has dropped a container of pod {pod.name}")
            return data

        if pod.node in self._whole:
            return RunLog(await ask(None))
        try:
            stderr = await ask("Stderr")
        except Refused:
            # Whether it is the stream or the whole log that cannot be had shows when the latter is asked for.
            whole = RunLog(await ask(None))
            self._whole.add(pod.node)
            return whole
        stdout = await ask("Stdout")
        if stdout and stdout == stderr:
            # An API server that has never heard of streams gives the whole log each time.
            self._whole.add(pod.node)
            return RunLog(stdout)
        return RunLog(stdout, stderr)

    async def _begins(self, namespace: str, pod: PodView) -> str | None:
        try:
            async with asyncio.timeout(_LOOK_PATIENCE):
                data = await self._kube.read_logs(namespace, pod.name, CONTAINER, limit_bytes=_FIRST_LINE)
        except (NotFound, Refused, Unavailable, TimeoutError):
            return None
        return first_stamp(data)


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a container whose log can be had: `previous` from the kubelet, or `kept`."""

    pod: PodView
    container: str | None
    previous: bool = False
    kept: RunLog | None = None


def _runs(pod: PodView, memory: LogMemory) -> Iterator[_Run]:
    """The runs of a pod's container, the first one first."""
    earlier = {
        cid: log for (uid, cid), log in memory.kept.items() if uid == pod.uid and cid != pod.container_id
    }
    for container, log in earlier.items():
        yield _Run(pod, container, kept=log)
    if pod.previous_id not in (None, pod.container_id, *earlier):
        yield _Run(pod, pod.previous_id, previous=True)
    yield _Run(pod, pod.container_id)


def _size(log: RunLog) -> int:
    return len(log.stdout) + len(log.stderr or b"")


def _look_due(pod: PodView, memory: LogMemory, now: datetime) -> datetime | None:
    """When the log of a running pod is to be looked at next; None: never again."""
    container = pod.container_id
    if container is None or pod.started_at is None or pod.ended is not None:
        return None
    if memory.began.get(container) is not None:
        return None
    looked = memory.looked.get(container)
    if looked is None:
        return pod.started_at + FIRST_LOOK
    lived = looked - pod.started_at
    return looked + max(lived, FIRST_LOOK) if lived < _LAST_LOOK else None


def _rotated(log: RunLog, began: str | None) -> list[str]:
    begins = log.begins
    if began is None or begins is None or begins <= began:
        return []
    return [f"the lines from {began} to {begins} are gone: the node rotated the log while the op ran"]
