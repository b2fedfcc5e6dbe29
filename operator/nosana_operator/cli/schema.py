"""`nosana-operator schema`: the job definition's JSON Schema, for editors."""

from __future__ import annotations

import json

import click

from nosana_operator import definition


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of job definitions, for editors."""
    click.echo(json.dumps(definition.schema(), indent=2, ensure_ascii=False))
