"""Root of the command; each sub-command lives in a module of its own beside this one."""

from __future__ import annotations

import click

from nosana_operator.cli.doctor import doctor
from nosana_operator.cli.earnings import earnings
from nosana_operator.cli.leave import leave
from nosana_operator.cli.logs import logs
from nosana_operator.cli.metrics import metrics
from nosana_operator.cli.render import render
from nosana_operator.cli.result import result
from nosana_operator.cli.run import run
from nosana_operator.cli.schemas import crds, schema
from nosana_operator.cli.status import status
from nosana_operator.cli.submit import submit
from nosana_operator.cli.validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nosana-operator")
def main() -> None:
    """Make a Kubernetes cluster a host on the Nosana GPU marketplace."""


main.add_command(crds)
main.add_command(earnings)
main.add_command(doctor)
main.add_command(leave)
main.add_command(logs)
main.add_command(metrics)
main.add_command(render)
main.add_command(result)
main.add_command(run)
main.add_command(schema)
main.add_command(status)
main.add_command(submit)
main.add_command(validate)
