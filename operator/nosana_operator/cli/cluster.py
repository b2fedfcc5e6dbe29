"""What the commands that talk to a cluster share: options, sign-in, and how they report errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nosana_operator.api import GROUP, JOB_KIND, PLURALS, VERSION
from nosana_operator.errors import NosanaError, NotFound
from nosana_operator.ports import Body, Kube

if TYPE_CHECKING:
    from nosana_operator.kube import KubeClient

Command = TypeVar("Command", bound=Callable[..., Any])
USER_AGENT = "nosana-operator-cli"


class JobNotFoundError(NotFound):
    """There is no such NosanaJob."""


kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The cluster's kubeconfig. Default: $KUBECONFIG, the pod's service account, or ~/.kube/config.",
)


def job_options(command: Command) -> Command:
    """The argument and options of a command about one NosanaJob."""
    namespace = click.option(
        "-n", "--namespace", help="Namespace of the NosanaJob. Default: the kubeconfig's."
    )
    return click.argument("job")(namespace(kubeconfig_option(command)))


@asynccontextmanager
async def sign_in(kubeconfig: Path | None) -> AsyncIterator[tuple[KubeClient, str]]:
    """A client of the cluster, and the namespace of the kubeconfig. Raises KubeError."""
    # Not at the top: importing the Kubernetes client takes longer than the other commands run.
    from nosana_operator.kube import CORE_KINDS, KubeClient, Resource, load_credentials

    credentials = load_credentials(kubeconfig)
    kinds = {**CORE_KINDS, **{kind: Resource(kind, GROUP, VERSION, name) for kind, name in PLURALS.items()}}
    async with credentials.open_session(user_agent=USER_AGENT) as session:
        yield KubeClient(session, kinds=kinds), credentials.namespace


def on_cluster(
    kubeconfig: Path | None, namespace: str | None, work: Callable[[KubeClient, str], Awaitable[int]]
) -> None:
    """Call `work` with a client and the namespace, and exit with the code that it returns; a NosanaError exits 1."""

    async def run() -> int:
        async with sign_in(kubeconfig) as (kube, default):
            return await work(kube, namespace or default)

    try:
        code = asyncio.run(run())
    except NosanaError as error:
        click.echo(f"nosana-operator: {error}", err=True)
        code = 1
    except KeyboardInterrupt:
        code = 130
    raise SystemExit(code)


async def find_job(kube: Kube, namespace: str, name: str) -> Body:
    """Read the NosanaJob. Raises JobNotFoundError with what to try."""
    try:
        return await kube.get(JOB_KIND, namespace, name)
    except NotFound:
        raise JobNotFoundError(
            f"there is no NosanaJob {name} in namespace {namespace}; list them with kubectl get nj -A "
            "(which also shows whether the cluster has the CRDs), or give --namespace"
        ) from None


def status_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The job's status; empty when the operator has not written one yet."""
    return job.get("status") or {}
