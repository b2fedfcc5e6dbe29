"""`nosana-operator run`: the operator itself, until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from nosana_operator.errors import NosanaError


@click.command()
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file (YAML); without it, private jobs only.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: $KUBECONFIG, the pod's service account, ~/.kube/config.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    help="Serve NosanaJobs and NosanaMarkets of this namespace only (repeatable; overrides the settings).",
)
@click.option(
    "--identity",
    envvar="NOSANA_OPERATOR_IDENTITY",
    help="Name under which this process holds the Lease; no other running process may use it. An operator that "
    "restarts under the same name does not wait for its own Lease to expire. Default: the host's name and a random "
    "suffix.",
)
def run(
    settings_file: Path | None, kubeconfig: Path | None, namespaces: tuple[str, ...], identity: str | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C. Stopping it leaves pods and chain as they are."""
    # Not at the top: kopf and kubernetes take half a second to import, and other commands need neither.
    from nosana_operator.kube import load_credentials
    from nosana_operator.runtime.compose import build_loops
    from nosana_operator.runtime.logging import configure_logging
    from nosana_operator.runtime.operator import Operator
    from nosana_operator.runtime.settings import load_settings

    try:
        settings = load_settings(settings_file)
        if namespaces:
            settings = settings.model_copy(update={"watch_namespaces": namespaces})
        configure_logging(settings.log)
        credentials = load_credentials(kubeconfig)

        async def main() -> None:
            await Operator(settings, credentials, build_loops, identity=identity).run()

        asyncio.run(main())
    except NosanaError as error:
        click.echo(f"nosana-operator: {error}", err=True)
        sys.exit(1)
