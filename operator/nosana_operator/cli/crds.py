"""`nosana-operator crds`."""

from __future__ import annotations

import click

from nosana_operator.api import crds_yaml


@click.command()
def crds() -> None:
    """Print the CustomResourceDefinitions as YAML, for `kubectl apply --server-side -f -`."""
    click.echo(crds_yaml(), nl=False)
