"""`nosana-operator crds` and `nosana-operator schema`: the schemas of what users write."""

from __future__ import annotations

import json

import click

from nosana_operator import definition
from nosana_operator.api import crds_yaml


@click.command()
def crds() -> None:
    """Print the CustomResourceDefinitions as YAML, for `kubectl apply --server-side -f -`."""
    click.echo(crds_yaml(), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of job definitions, for editors."""
    click.echo(json.dumps(definition.schema(), indent=2, ensure_ascii=False))
