"""`nosana-operator status`: one job's state for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from nosana_operator.api import JobCondition, find_condition, parse_timestamp
from nosana_operator.cli.cluster import find_job, job_options, on_cluster, status_of
from nosana_operator.ports import Kube

_NOS: Final = 1_000_000
"""Base units of one NOS."""
_TIMES: Final = (
    "matched",
    "created",
    "accepted",
    "scheduled",
    "fetched",
    "pulled",
    "started",
    "ready",
    "ended",
    "settled",
)
_OVER: Final = ("Succeeded", "Failed", "Stopped")

Body = Mapping[str, Any]


@click.command()
@job_options
def status(job: str, namespace: str | None, kubeconfig: Path | None) -> None:
    """Show NosanaJob JOB: its stages and ops, its endpoints, what it waits for, and its times."""

    async def work(kube: Kube, place: str) -> int:
        for line in describe(await find_job(kube, place, job), datetime.now(UTC)):
            click.echo(line)
        return 0

    on_cluster(kubeconfig, namespace, work)


def describe(job: Body, now: datetime) -> Iterator[str]:
    """The lines that `status` prints."""
    status, meta = status_of(job), job["metadata"]
    yield f"{meta['namespace']}/{meta['name']}: {status.get('phase') or 'Pending'}"
    if reason := _reason(job):
        yield _row("why", reason)
    yield from _run(job, now)
    yield from _ops(status, now)
    yield from _endpoints(status)
    if times := _times(status.get("timing") or {}):
        yield _row("times", times)
    if status.get("resultSecrets"):
        cid = f"{status['resultCID']} on IPFS; " if status.get("resultCID") else ""
        yield _row("result", f"{cid}nosana-operator result {meta['name']} -n {meta['namespace']}")


def _row(name: str, text: str) -> str:
    return f"  {name:<10} {text}"


def _reason(job: Body) -> str:
    """The condition that says most about the current phase."""
    conditions = status_of(job).get("conditions")
    for kind in (JobCondition.FAILED, JobCondition.COMPLETE):
        found = find_condition(conditions, kind)
        if found is not None and found["status"] == "True":
            return _message(found)
    accepted = find_condition(conditions, JobCondition.ACCEPTED)
    if accepted is not None and accepted["status"] != "True":
        return _message(accepted)
    found = find_condition(conditions, JobCondition.READY)
    if found is not None:
        return _message(found)
    return "the operator has not seen the job yet; does it run, and does it watch this namespace?"


def _message(condition: Body) -> str:
    return f"{condition['message']} ({condition['reason']})"


def _run(job: Body, now: datetime) -> Iterator[str]:
    """The run and its settlement, of a market's job."""
    run, status = job["spec"].get("run"), status_of(job)
    if run is None:
        return
    yield _row("market", f"{run['market']}, job {run['job']}, {run['price'] / _NOS:g} NOS/s")
    expires = (status.get("run") or {}).get("expiresAt")
    if expires and not status.get("resultSecrets"):
        left = (parse_timestamp(expires) - now).total_seconds()
        yield _row("expires", f"in {_span(left)}" if left > 0 else f"{_span(-left)} ago")
    settled = find_condition(status.get("conditions"), JobCondition.SETTLED)
    settlement = status.get("settlement") or {}
    if settled is not None:
        earned = settlement.get("earned")
        paid = f"; earned {earned / _NOS:g} NOS" if earned is not None else ""
        yield _row("settled", f"{settled['status']}: {_message(settled)}{paid}")


def _ops(status: Body, now: datetime) -> Iterator[str]:
    # A stage's ops need not be adjacent: stages come in the order in which they are first named.
    stages: dict[str, list[Body]] = {}
    for op in status.get("ops") or ():
        stages.setdefault(op["stage"], []).append(op)
    waits_for: str | None = None
    for number, (name, ops) in enumerate(stages.items(), 1):
        yield _row("stage", f"{number} of {len(stages)}: {name}")
        width = max(len(op["id"]) for op in ops)
        for op in ops:
            yield f"    {op['id']:<{width}}  {op['state']:<9}  {_op(op, now, waits_for)}".rstrip()
        if waits_for is None and any(op["state"] not in _OVER for op in ops):
            waits_for = name


def _op(op: Body, now: datetime, waits_for: str | None) -> str:
    facts = []
    if op["state"] == "Waiting" and not op.get("message"):
        facts.append(f"for stage {waits_for!r} to end" if waits_for else "for other ops of its stage")
    if op.get("startedAt"):
        end = parse_timestamp(op["endedAt"]) if op.get("endedAt") else now
        facts.append(_span((end - parse_timestamp(op["startedAt"])).total_seconds()))
    if op.get("exitCode") is not None and not op.get("message"):
        facts.append(f"exit code {op['exitCode']}")
    if restarts := (op.get("restarts") or 0) + (op.get("healthRestarts") or 0):
        facts.append(f"{restarts} restarts")
    if op.get("pod"):
        facts.append(f"pod {op['pod']}" + (f" on {op['node']}" if op.get("node") else ""))
    if op.get("message"):
        facts.append(f"{op['message']} ({op.get('reason')})")
    return ", ".join(facts)


def _endpoints(status: Body) -> Iterator[str]:
    for endpoint in status.get("endpoints") or ():
        at = endpoint.get("url") or endpoint.get("service") or endpoint["id"]
        yield _row("endpoint", f"{endpoint['op']}:{endpoint['port']}  {endpoint['state']:<7}  {at}")


def _times(timing: Body) -> str:
    """Each moment with the seconds since the one before."""
    steps, before = [], None
    for name, moment in sorted(
        ((name, parse_timestamp(timing[name])) for name in _TIMES if name in timing), key=lambda item: item[1]
    ):
        since = f"+{(moment - before).total_seconds():.2f} s" if before else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
        steps.append(f"{name} {since}")
        before = moment
    return ", ".join(steps)


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{max(seconds, 0.0):.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
