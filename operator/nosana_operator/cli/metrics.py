"""`nosana-operator metrics`."""

from __future__ import annotations

import click


@click.command()
def metrics() -> None:
    """Print the reference of the metrics that the operator serves, as Markdown."""
    # Not at the top: this loads the chain's libraries, which other commands do not need.
    from nosana_operator.runtime.metrics.page import metrics_page

    click.echo(metrics_page(), nl=False)
