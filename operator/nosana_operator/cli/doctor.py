"""`nosana-operator doctor`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click

from nosana_operator.cli.cluster import USER_AGENT, kubeconfig_option
from nosana_operator.doctor.finding import Finding, exit_code
from nosana_operator.errors import NosanaError


@click.command()
@click.option(
    "--settings",
    "settings_file",
    envvar="NOSANA_OPERATOR_SETTINGS",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The operator's settings file; without it, the doctor does not check chains and IPFS. Default: "
    "$NOSANA_OPERATOR_SETTINGS, which is set in the operator's own pod.",
)
@kubeconfig_option
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    help="The operator serves this namespace only (repeatable; overrides the settings, as with run).",
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
def doctor(
    settings_file: Path | None,
    kubeconfig: Path | None,
    namespaces: tuple[str, ...],
    output: Literal["text", "json"],
) -> None:
    """Check cluster, settings, networks and markets, and report what is wrong and what to do.

    Exits with 1 when a check failed, and with 0 otherwise, also when there are warnings. A check whose service did
    not answer is "unknown", which is no failure. The doctor changes nothing.
    """
    # Not at the top: kubernetes and Solana take half a second to import, and --help needs neither.
    from nosana_operator.doctor.report import as_json, as_text

    findings = asyncio.run(_examined(settings_file, kubeconfig, namespaces))
    if output == "json":
        click.echo(as_json(findings, datetime.now(UTC)))
    else:
        for line in as_text(findings):
            click.echo(line)
    raise SystemExit(exit_code(findings))


async def _examined(
    settings_file: Path | None, kubeconfig: Path | None, namespaces: tuple[str, ...]
) -> tuple[Finding, ...]:
    import aiohttp

    from nosana_operator.doctor.checks import examine
    from nosana_operator.doctor.facts import Unknown
    from nosana_operator.doctor.gather import gather
    from nosana_operator.doctor.live import LiveCluster, LiveWorld
    from nosana_operator.kube import load_credentials
    from nosana_operator.runtime.settings import Settings, load_settings

    problem = None
    try:
        settings = load_settings(settings_file)
    except NosanaError as error:
        settings, problem = Settings(), str(error)
    if namespaces:
        settings = settings.model_copy(update={"watch_namespaces": namespaces})
    async with aiohttp.ClientSession(headers={"User-Agent": USER_AGENT}) as http:
        world = LiveWorld(http)
        try:
            credentials = load_credentials(kubeconfig)
        except NosanaError as error:
            return examine(await gather(settings, problem, Unknown(str(error)), world))
        async with credentials.open_session(user_agent=USER_AGENT) as session:
            return examine(
                await gather(settings, problem, LiveCluster(session, credentials.namespace), world)
            )
