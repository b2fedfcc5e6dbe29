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
    help="Serve NosanaJobs and NosanaMarkets of this namespace only (repeatable; over the settings).",
)
@click.option(
    "--identity",
    envvar="NOSANA_OPERATOR_IDENTITY",
    help="Name to hold the Lease under, and no other living process'. Started again under it, the operator need "
    "not wait for its own Lease to run out. Default: the host's name and something random.",
)
def run(
    settings_file: Path | None, kubeconfig: Path | None, namespaces: tuple[str, ...], identity: str | None
) -> None:
    """Run the operator until SIGTERM or Ctrl-C; pods and chain are left as they are then."""
    # Here and not above: kopf and kubernetes take half a second to import; other commands need neither.
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
