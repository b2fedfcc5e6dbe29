"""`nosana-operator logs`: reads running ops' logs from their pods, and an ended job's from its result."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import click

from nosana_operator import ports
from nosana_operator.api import JobCondition, condition_is_true
from nosana_operator.cli.cluster import find_job, job_options, on_cluster, status_of
from nosana_operator.cli.result import fetch_result
from nosana_operator.errors import NosanaError, NotFound, Refused, Unavailable
from nosana_operator.ports import Body
from nosana_operator.workload import CONTAINER

POLL_SECONDS: Final = 1.0
"""How often a followed job is read."""
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*(?:Z|[+-]\d\d:\d\d)) ")

Write = Callable[[str, str], object]
"""(op id, text with its line break)."""


class NoSuchOpError(NosanaError):
    """The job has no op of that id."""


class Kube(ports.Kube, ports.LogReader, Protocol):
    """The Kubernetes API, and logs as they are written."""

    def follow_logs(
        self, namespace: str, pod: str, container: str, *, since: str | None = None
    ) -> AsyncIterator[bytes]:
        """The container's lines as they come, with timestamps."""


@click.command()
@job_options
@click.option("--op", help="Print the log of this op only.")
@click.option("-f", "--follow", is_flag=True, help="Follow the logs until the job has ended.")
def logs(job: str, op: str | None, follow: bool, namespace: str | None, kubeconfig: Path | None) -> None:
    """Print the logs of NosanaJob JOB, of all its ops or of one.

    With more than one op, each line begins with its op's id.
    """

    async def work(kube: Kube, place: str) -> int:
        body = await find_job(kube, place, job)
        write = _printer(body, op)
        if follow:
            await follow_job(kube, body, write, op=op)
        else:
            await show(kube, body, write, op=op)
        return 0

    on_cluster(kubeconfig, namespace, work)


async def show(kube: Kube, job: Body, write: Write, *, op: str | None = None) -> None:
    """Write the logs so far. Raises NoSuchOpError."""
    ops = _ops(job, op)
    if _over(job):
        await _from_result(kube, job, write, {each["id"] for each in ops})
        return
    for each in ops:
        if each.get("pod"):
            try:
                data = await kube.read_logs(
                    job["metadata"]["namespace"], each["pod"], CONTAINER, timestamps=False
                )
            except (NotFound, Refused):
                continue  # It has not started, or its pod is gone.
            for line in data.splitlines(keepends=True):
                write(each["id"], line.decode("utf-8", "replace"))


async def follow_job(
    kube: Kube,
    job: Body,
    write: Write,
    *,
    op: str | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Write each line as it comes, until the job has ended.

    The log of an op whose pod came and went between two polls is written from the result.
    """
    metadata = job["metadata"]
    followed: dict[str, _Follower] = {}
    try:
        while True:
            ops = _ops(job, op) if status_of(job).get("ops") else ()
            for each in ops:
                if (pod := each.get("pod")) and pod not in followed and not _over(job):
                    followed[pod] = _Follower(kube, metadata["namespace"], pod, each["id"], write)
                    followed[pod].start()
            if _over(job):
                break
            await sleep(POLL_SECONDS)
            for follower in followed.values():
                follower.resume(alive=_live(job, follower.pod))
            try:
                job = await _again(kube, metadata)
            except Unavailable as error:
                click.echo(f"waiting for the Kubernetes API: {error}", err=True)
            except NotFound:
                # Its pods end with it; their last lines may still be on their way.
                for follower in followed.values():
                    await follower.drain()
                raise
        for follower in followed.values():
            await follower.drain()
    finally:
        for follower in followed.values():
            follower.stop()
    written = {follower.op for follower in followed.values() if follower.written}
    missed = {each["id"] for each in _ops(job, op)} - written
    if missed:
        await _from_result(kube, job, write, missed)


@dataclass(slots=True)
class _Follower:
    """Writes one pod's lines, each once, also when the connection breaks in between."""

    kube: Kube
    namespace: str
    pod: str
    op: str
    write: Write
    written: bool = False
    last: bytes = b""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Follow from the last line on."""
        self.task = asyncio.create_task(self._run(), name=f"log of {self.pod}")

    def resume(self, *, alive: bool) -> None:
        """Follow again after a broken connection, while the pod is alive."""
        if alive and self.task is not None and self.task.done():
            self.start()

    async def drain(self) -> None:
        """The job has ended: wait for the last lines."""
        if self.task is not None:
            await asyncio.wait([self.task], timeout=10)

    def stop(self) -> None:
        """Stop following."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        since = self.last.decode() or None
        try:
            async for line in self.kube.follow_logs(self.namespace, self.pod, CONTAINER, since=since):
                match = _STAMP.match(line)
                stamp = match[1] if match else b""
                # `since` counts whole seconds, so the server repeats some lines.
                if since is not None and stamp and stamp <= since.encode():
                    continue
                self.last = stamp or self.last
                self.written = True
                self.write(self.op, line[match.end() if match else 0 :].decode("utf-8", "replace"))
        except (NotFound, Refused, Unavailable):
            return  # Not started yet, gone, or a broken connection; `resume` tries again while the pod is alive.


async def _from_result(kube: Kube, job: Body, write: Write, ops: set[str]) -> None:
    flow = json.loads(await fetch_result(kube, job))
    for error in flow.get("errors") or ():
        click.echo(f"{error.get('event')}: {error.get('message')}", err=True)
    for state in flow["opStates"]:
        if state["operationId"] in ops:
            for entry in state["logs"]:
                write(state["operationId"], entry.get("log") or "")


async def _again(kube: Kube, metadata: Mapping[str, Any]) -> Body:
    job = await find_job(kube, metadata["namespace"], metadata["name"])
    if job["metadata"]["uid"] != metadata["uid"]:
        raise NotFound(
            f"NosanaJob {metadata['name']} was deleted, and somebody created another one of that name"
        )
    return job


def _ops(job: Body, op: str | None) -> Sequence[Mapping[str, Any]]:
    ops = status_of(job).get("ops") or ()
    if op is None:
        return tuple(ops)
    chosen = tuple(each for each in ops if each["id"] == op)
    if not chosen:
        ids = ", ".join(each["id"] for each in ops) or "none yet"
        raise NoSuchOpError(f"NosanaJob {job['metadata']['name']} has no op {op!r}; its ops are: {ids}")
    return chosen


def _live(job: Body, pod: str) -> bool:
    return any(
        each.get("pod") == pod and each["state"] in ("Starting", "Running", "Stopping")
        for each in status_of(job).get("ops") or ()
    )


def _over(job: Body) -> bool:
    conditions = status_of(job).get("conditions")
    return condition_is_true(conditions, JobCondition.COMPLETE) or condition_is_true(
        conditions, JobCondition.FAILED
    )


def _printer(job: Body, op: str | None) -> Write:
    """Writes lines to standard output, with the op's id when there may be several ops."""
    several = op is None and len(status_of(job).get("ops") or ()) != 1

    def write(name: str, text: str) -> None:
        line = text if text.endswith("\n") else f"{text}\n"
        click.echo(f"[{name}] {line}" if several else line, nl=False)

    return write
