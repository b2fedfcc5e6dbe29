"""`nosana-operator submit`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from nosana_operator.api import JOB_KIND, JobCondition, condition_is_true, find_condition
from nosana_operator.cli.cluster import kubeconfig_option, sign_in
from nosana_operator.cli.documents import (
    SUFFIX,
    DocumentError,
    JobDocument,
    checked_context,
    problems_of,
    read_job,
)
from nosana_operator.errors import Conflict, NosanaError, NotFound, Unavailable
from nosana_operator.ports import Body, Kube

MANAGER: Final = "nosana-operator-submit"
_POLL_SECONDS: Final = 1.0
_NAME_CHARACTERS: Final = "bcdfghjklmnpqrstvwxz2456789"


@click.command()
@click.argument("file")
@click.option("--wait", is_flag=True, help="Follow the job to its end; exit 0 on Complete, 1 on Failed.")
@click.option("--name", help="Name of the NosanaJob. Default for a definition: made from the file's name.")
@click.option("--namespace", help="Namespace of the NosanaJob. Default: the file's, or the kubeconfig's.")
@kubeconfig_option
def submit(file: str, wait: bool, name: str | None, namespace: str | None, kubeconfig: Path | None) -> None:
    """Run a job privately on this cluster, and print the NosanaJob's name.

    FILE holds a Nosana job definition (each call creates a new NosanaJob) or a NosanaJob (which is applied), JSON
    or YAML; `-` is standard input. A job that the operator would refuse is not sent.
    """
    try:
        job = read_job(file, name=name, namespace=namespace)
        checked_context(job)
        succeeded = asyncio.run(_submit(job, unique=name is None, wait=wait, kubeconfig=kubeconfig))
    except NosanaError as error:
        for line in problems_of(error):
            click.echo(f"{file}: {line}", err=True)
        raise SystemExit(1) from None
    raise SystemExit(0 if succeeded else 1)


async def _submit(job: JobDocument, *, unique: bool, wait: bool, kubeconfig: Path | None) -> bool:
    async with sign_in(kubeconfig) as (kube, namespace):
        made = await send(kube, job, namespace=namespace, unique=unique)
        click.echo(made["metadata"]["name"])
        return await follow(kube, made, lambda line: click.echo(line, err=True)) if wait else True


async def send(kube: Kube, job: JobDocument, *, namespace: str, unique: bool) -> Body:
    """Create the NosanaJob of a bare definition, or apply the one in the file. Returns the object.

    `namespace` is used when the job names none. `unique` appends random characters to a name made from the file's
    name, so that one definition can be submitted many times.
    """
    metadata = {"namespace": namespace} | job.body["metadata"]
    # `kubectl get -o yaml` shows these, and nobody may set them.
    body = {key: value for key, value in job.body.items() if key != "status"} | {"metadata": metadata}
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        metadata.pop(field, None)
    if not job.bare:
        try:
            return await kube.apply(body, manager=MANAGER)
        except NotFound:
            raise _nowhere(metadata["namespace"]) from None
    if unique:
        metadata["name"] += "-" + "".join(secrets.choice(_NAME_CHARACTERS) for _ in range(SUFFIX - 1))
    try:
        return await kube.create(body)
    except NotFound:
        raise _nowhere(metadata["namespace"]) from None
    except Conflict:
        raise DocumentError(
            f"there is a NosanaJob {metadata['name']} in {metadata['namespace']} already; "
            "give another --name, or delete that one"
        ) from None
    except Unavailable:
        # It may have been created all the same. Nobody else uses the random name, so a read tells.
        if not unique:
            raise
        try:
            return await kube.get(JOB_KIND, metadata["namespace"], metadata["name"])
        except NotFound:
            raise DocumentError(
                "the Kubernetes API did not answer and created no NosanaJob; try again"
            ) from None


def _nowhere(namespace: str) -> DocumentError:
    return DocumentError(
        f"the cluster has no namespace {namespace}, or does not serve NosanaJobs yet; create the namespace, or "
        "apply the CRDs with nosana-operator crds | kubectl apply --server-side -f -"
    )


async def follow(
    kube: Kube,
    made: Mapping[str, Any],
    write: Callable[[str], object],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Write a line for each change of the job until it has ended. Returns whether it ended as Complete.

    An API server that does not answer ends nothing: the job continues without us.
    """
    previous = ""
    while True:
        line, succeeded = await _read(kube, made["metadata"])
        if line != previous:
            write(line)
            previous = line
        if succeeded is not None:
            return succeeded
        await sleep(_POLL_SECONDS)


async def _read(kube: Kube, metadata: Mapping[str, Any]) -> tuple[str, bool | None]:
    """A line about the job's current state, and whether it ended as Complete; None while it has not ended."""
    try:
        now = await kube.get(JOB_KIND, metadata["namespace"], metadata["name"])
    except Unavailable as error:
        return f"waiting for the Kubernetes API: {error}", None
    except NotFound:
        return "the NosanaJob was deleted", False
    if now["metadata"]["uid"] != metadata["uid"]:
        return "the NosanaJob was deleted, and somebody created another one of that name", False
    return _describe(now), _ended(now)


def _ended(job: Mapping[str, Any]) -> bool | None:
    conditions = (job.get("status") or {}).get("conditions")
    if condition_is_true(conditions, JobCondition.COMPLETE):
        return True
    return False if condition_is_true(conditions, JobCondition.FAILED) else None


def _describe(job: Mapping[str, Any]) -> str:
    """One line: the phase, the reason, and the URLs."""
    status = job.get("status") or {}
    conditions = status.get("conditions")
    kinds = (JobCondition.FAILED, JobCondition.COMPLETE, JobCondition.READY, JobCondition.ACCEPTED)
    # The first condition that says something about now: a pending end says nothing.
    ends = (JobCondition.FAILED, JobCondition.COMPLETE)
    condition = next(
        (
            found
            for kind in kinds
            if (found := find_condition(conditions, kind)) and (kind not in ends or found["status"] == "True")
        ),
        None,
    )
    line = str(status.get("phase") or "Pending")
    if condition and condition.get("message"):
        line += f": {condition['message']}"
    urls = [endpoint["url"] for endpoint in status.get("endpoints") or () if endpoint.get("url")]
    return f"{line} ({', '.join(urls)})" if urls else line
