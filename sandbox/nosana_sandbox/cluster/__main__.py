"""`python -m nosana_sandbox.cluster up|down|status`: the cluster alone, without the chain and the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nosana_sandbox.cluster.errors import ClusterError
from nosana_sandbox.cluster.local import LocalCluster


@click.command()
@click.argument("what", type=click.Choice(["up", "down", "status"]))
@click.option("--name", default="default", show_default=True)
@click.option(
    "--state", type=click.Path(path_type=Path), help="Folder  [default: /var/lib/nosana-sandbox/NAME]"
)
@click.option("--gpus", default=4, show_default=True)
@click.option("--nodes", default=2, show_default=True)
def main(what: str, name: str, state: Path | None, gpus: int, nodes: int) -> None:
    """Start or stop the sandbox's Kubernetes cluster, or print its status."""
    try:
        folder = (state or Path("/var/lib/nosana-sandbox") / name).absolute()
        cluster = LocalCluster(folder, name, gpus, nodes, lambda line: click.echo(line, err=True))
        if what == "up":
            click.echo(cluster.up())
        elif what == "down":
            cluster.down()
        else:
            click.echo(cluster.status())
    except ClusterError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
