"""Carries out health checks beside the work queue; a job is woken when the health of one of its ports changed.

What is known is of this process: after a restart of the operator all is asked anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nosana_operator.definition import HealthCheck, HttpHealthCheck, Port
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
"""Rounds of one job under way at the same time."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Target:
    """A running container to be asked. `container` is another one after each start."""

    container: str
    address: str
    ports: tuple[Port, ...]
    """Those that have checks."""


def targets(view: JobView) -> dict[int, Target]:
    """The containers of a job to ask, by op index."""
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
    """Checks of one job. Ops may answer as slowly as they like; that is not to keep other jobs' waiting."""

    ops: dict[int, _Watched] = field(default_factory=dict)
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))


@dataclass(slots=True)
class _Watched:
    target: Target
    health: dict[int, PortHealth] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class HealthMonitor:
    """Health of the ops of all jobs; `wake` puts a job's key back into the work queue."""

    def __init__(self, prober: Prober, clock: Clock, wake: Callable[[Key], None], sleep: Sleep) -> None:
        self._prober = prober
        self._clock = clock
        self._wake = wake
        self._sleep = sleep
        self._jobs: dict[str, _Job] = {}

    def look(self, uid: str, key: Key, targets: Mapping[int, Target]) -> dict[int, OpHealth]:
        """What is known of a job's ops; from now on exactly `targets`, by op index, are asked.

        Raises what a check died of, a defect of ours: the work queue shows it and calls again.
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
        """The job is over or gone."""
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
        """Round after round, as long as there is something to ask."""
        number = port.number
        coming = next_round(watched.health[number], port.health_checks)
        while coming is not None:
            async with job.turn:
                begun = self._clock.now()
                answer = await self._round(watched.target.address, number, coming)
            before, health = watched.health[number], after_round(watched.health[number], answer)
            watched.health[number] = health
            # The words of a problem may change with every round, and a write each is not worth it.
            if (health.passed, health.state, health.restarts) != (
                before.passed,
                before.state,
                before.restarts,
            ):
                self._wake(key)
            coming = next_round(health, port.health_checks)
            if coming is not None:
                took = (self._clock.now() - begun).total_seconds()
                await self._sleep(max(0.0, coming.every - took))

    async def _round(self, address: str, port: int, asked: Round) -> Answer:
        for check in asked.checks:
            try:
                answer = await self._ask(address, port, check, asked.seconds)
            except Refused as error:
                return Answer(False, str(error), check)
            except Unavailable as error:
                return Answer(None, str(error), check)
            if not answer.passed:
                return answer
        return Answer(True)

    async def _ask(self, address: str, port: int, check: HealthCheck, seconds: float) -> Answer:
        if isinstance(check, HttpHealthCheck):
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
        message = await self._prober.websocket(address, port, listen=listens(check), seconds=seconds)
        return judge_websocket(check, port, message)


def _stop(watched: _Watched) -> None:
    for task in watched.tasks:
        task.cancel()
