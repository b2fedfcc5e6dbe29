"""`nosana-operator result`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nosana_operator.api.result import ResultError, read_result
from nosana_operator.cli.cluster import find_job, job_options, on_cluster, status_of
from nosana_operator.errors import NotFound
from nosana_operator.ports import Kube


@click.command()
@job_options
def result(job: str, namespace: str | None, kubeconfig: Path | None) -> None:
    """Print the result of NosanaJob JOB: the exact FlowState JSON, as the operator pins it for a market's job."""

    async def work(kube: Kube, place: str) -> int:
        data = await fetch_result(kube, await find_job(kube, place, job))
        click.echo(data, nl=sys.stdout.isatty())
        return 0

    on_cluster(kubeconfig, namespace, work)


async def fetch_result(kube: Kube, job: dict[str, Any]) -> bytes:
    """The exact bytes of an ended job's result. Raises ResultError with the reason when there is none."""
    status, meta = status_of(job), job["metadata"]
    names = status.get("resultSecrets") or ()
    if not names:
        phase = status.get("phase") or "Pending"
        raise ResultError(
            f"NosanaJob {meta['name']} is {phase} and has no result yet; "
            f"wait for its end, or see nosana-operator status {meta['name']}"
        )
    try:
        return read_result([await kube.get("Secret", meta["namespace"], name) for name in names])
    except NotFound as error:
        cid = status.get("resultCID")
        raise ResultError(
            f"the result of NosanaJob {meta['name']} was deleted from the cluster ({error})"
            + (f"; it is on IPFS as {cid}" if cid else "")
        ) from None
