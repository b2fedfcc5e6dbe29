"""Runs health checks beside the work queue, and wakes a job when the health of one of its ports changed.

The health is kept in this process only: after a restart of the operator all checks start over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

from nosana_operator.definition import HealthCheck, HttpHealthCheck, Port, WebSocketHealthCheck
from nosana_operator.errors import Refused, Unavailable
from nosana_operator.jobs.decision.health import (
    Answer,
    Round,
    after_round,
    checked_ops,
    judge_http,
    judge_websocket,
    listens,
    next_round,
    request_body,
)
from nosana_operator.jobs.decision.view import JobView, OpHealth, PortHealth
from nosana_operator.jobs.ports import Clock, Key, Prober

_AT_ONCE: Final = 16
"""How many rounds of one job run at the same time."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Target:
    """A running container to check. `container` identifies one run: it changes with each restart."""

    container: str
    address: str
    ports: tuple[Port, ...]
    """The ports that have checks."""


def targets(view: JobView) -> dict[int, Target]:
    """The containers of a job to check, by op index."""
    return {
        index: Target(f"{pod.uid}/{pod.restarts}", pod.address, ports)
        for index, ports in checked_ops(view).items()
        if (pod := view.pods.get(index)) is not None
        and pod.address is not None
        and pod.started_at is not None
        and pod.ended is None
        and not pod.stopping
    }


@dataclass(slots=True)
class _Job:
    """The checks of one job. Its limit is its own, so that slow ops do not delay the checks of other jobs."""

    ops: dict[int, _Watched] = field(default_factory=dict)
    limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))


@dataclass(slots=True)
class _Watched:
    target: Target
    health: dict[int, PortHealth] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class HealthMonitor:
    """The health of the ops of all jobs; `wake` puts a job's key back into the work queue."""

    def __init__(self, prober: Prober, clock: Clock, wake: Callable[[Key], None], sleep: Sleep) -> None:
        self._prober = prober
        self._clock = clock
        self._wake = wake
        self._sleep = sleep
        self._jobs: dict[str, _Job] = {}

    def health(self, uid: str, key: Key, targets: Mapping[int, Target]) -> dict[int, OpHealth]:
        """The current health of a job's ops; from now on exactly `targets`, by op index, are checked.

        Raises the exception of a check that failed by a defect of ours; the work queue reports it and retries.
        """
        job = self._jobs.get(uid)
        if job is None:
            if not targets:
                return {}
            job = self._jobs[uid] = _Job()
        watched = job.ops
        for index in [i for i, each in watched.items() if targets.get(i) != each.target]:
            _stop(watched.pop(index))
        for index, each in list(watched.items()):
            for task in each.tasks:
                if task.done() and task.exception() is not None:
                    _stop(watched.pop(index))
                    task.result()
        for index, target in targets.items():
            if index not in watched:
                watched[index] = self._start(key, job, target)
        if not watched:
            del self._jobs[uid]
        return {index: OpHealth(dict(each.health)) for index, each in watched.items()}

    def forget(self, uid: str) -> None:
        """End the checks of a job that has ended or is gone."""
        job = self._jobs.pop(uid, None)
        for watched in job.ops.values() if job is not None else ():
            _stop(watched)

    async def close(self) -> None:
        """End all checks."""
        tasks = [t for job in self._jobs.values() for watched in job.ops.values() for t in watched.tasks]
        for uid in list(self._jobs):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: Key, job: _Job, target: Target) -> _Watched:
        watched = _Watched(target)
        for port in target.ports:
            watched.health[port.number] = PortHealth()
            name = f"health of {key[0]}/{key[1]} port {port.number}"
            watched.tasks.append(asyncio.create_task(self._watch(key, job, watched, port), name=name))
        return watched

    async def _watch(self, key: Key, job: _Job, watched: _Watched, port: Port) -> None:
        """Run round after round while a round is due."""
        number = port.number
        due = next_round(watched.health[number], port.health_checks)
        while due is not None:
            async with job.limit:
                begun = self._clock.now()
                answer = await self._round(watched.target.address, number, due)
            before, health = watched.health[number], after_round(watched.health[number], answer)
            watched.health[number] = health
            # The message of a problem may differ in every round; it does not deserve a write each time.
            if (health.passed, health.state, health.restarts) != (
                before.passed,
                before.state,
                before.restarts,
            ):
                self._wake(key)
            due = next_round(health, port.health_checks)
            if due is not None:
                took = (self._clock.now() - begun).total_seconds()
                await self._sleep(max(0.0, due.every - took))

    async def _round(self, address: str, port: int, checks: Round) -> Answer:
        for check in checks.checks:
            try:
                answer = await self._check(address, port, check, checks.seconds)
            except Refused as error:
                return Answer(False, str(error), check)
            except Unavailable as error:
                return Answer(None, str(error), check)
            if not answer.passed:
                return answer
        return Answer(True)

    async def _check(self, address: str, port: int, check: HealthCheck, seconds: float) -> Answer:
        match check:
            case HttpHealthCheck():
                headers, body = request_body(check)
                status = await self._prober.http(
                    address,
                    port,
                    method=check.method,
                    path=check.path,
                    headers=headers,
                    body=body,
                    seconds=seconds,
                )
                return judge_http(check, port, status)
            case WebSocketHealthCheck():
                message = await self._prober.websocket(address, port, listen=listens(check), seconds=seconds)
                return judge_websocket(check, port, message)
            case _:
                assert_never(check)


def _stop(watched: _Watched) -> None:
    for task in watched.tasks:
        task.cancel()
