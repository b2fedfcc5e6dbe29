"""`python -m nosana_tools.chart`: generates the files that depend on the chart (`make manifests`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from nosana_operator.errors import NosanaError
from nosana_sandbox.cluster.build import ensure_helm
from nosana_tools.chart.generate import generated


def main() -> None:
    """Write each file that has changed."""
    # The order matters: Helm checks the schema when it renders the manifests.
    for path, text in generated(ensure_helm(click.echo)):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            click.echo(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path} is new")


if __name__ == "__main__":
    try:
        main()
    except (NosanaError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")
