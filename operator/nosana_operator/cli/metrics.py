"""`nosana-operator metrics`."""

from __future__ import annotations

import click


@click.command()
def metrics() -> None:
    """Print the reference of the metrics that the operator serves, as Markdown."""
    # It loads the chain's libraries, which other commands need not wait for.
    from nosana_operator.runtime.metrics.page import metrics_page

    click.echo(metrics_page(), nl=False)
