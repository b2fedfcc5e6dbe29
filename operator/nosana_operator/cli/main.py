"""Root of the command; each sub-command lives in a module of its own beside this one."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nosana-operator")
def main() -> None:
    """Make a Kubernetes cluster a host on the Nosana GPU marketplace."""
