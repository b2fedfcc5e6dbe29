"""`python -m nosana_sandbox.prepare`: builds and installs whatever takes minutes, once per machine, before the tests.

Tests have time limits; building Kubernetes within one of them would look like a failure of it.
"""

from __future__ import annotations

import os
import sys

import click

from nosana_operator.errors import NosanaError
from nosana_sandbox.cluster import machine
from nosana_sandbox.cluster.build import (
    ensure_helm,
    ensure_kubo,
    ensure_programs,
    ensure_stand_in,
    ensure_verdicts,
)
from nosana_sandbox.images.debian import fetch_image, operator_image
from nosana_sandbox.prometheus import ensure_prometheus
from nosana_sandbox.resources.moto import moto_environment


def prepare() -> None:
    """Build and install what is missing. Raises NosanaError."""
    ensure_programs(click.echo)
    ensure_stand_in(click.echo)
    ensure_helm(click.echo)
    ensure_verdicts(click.echo)
    ensure_kubo(click.echo)
    moto_environment()
    # Without root the cluster ring is skipped, and so is what only it needs.
    if sys.platform == "linux" and os.geteuid() == 0:
        machine.prepare(click.echo)
        fetch_image(click.echo)
        operator_image(click.echo)
        ensure_prometheus(click.echo)


if __name__ == "__main__":
    try:
        prepare()
    except NosanaError as error:
        sys.exit(f"error: {error}")
