"""`nosana-operator render`."""

from __future__ import annotations

import click
import yaml

from nosana_operator.cli.documents import (
    DocumentError,
    JobDocument,
    checked_context,
    problems_of,
    read_job,
)
from nosana_operator.errors import NosanaError
from nosana_operator.workload import objects


class _PlainDumper(yaml.SafeDumper):
    """Without anchors: a reader expects each object written out."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@click.command()
@click.argument("file")
@click.option(
    "--name", help="Name of the NosanaJob; a definition file's name is made from the file otherwise."
)
@click.option("--namespace", help="Namespace of the NosanaJob.")
def render(file: str, name: str | None, namespace: str | None) -> None:
    """Print the Kubernetes objects that a job becomes, as YAML. Needs no cluster.

    FILE holds a NosanaJob or a Nosana job definition, JSON or YAML; `-` is standard input. What only the
    cluster knows (the job's uid, its own name) is filled with zeros and words; everything else is what the
    operator would create.
    """
    try:
        text = render_job(read_job(file, name=name, namespace=namespace))
    except NosanaError as error:
        for line in problems_of(error):
            click.echo(f"{file}: {line}", err=True)
        raise SystemExit(1) from None
    click.echo(text, nl=False)


def render_job(job: JobDocument) -> str:
    """The objects of a job as one YAML stream.

    Raises DefinitionError or DocumentError when the operator would refuse the job.
    """
    ctx = checked_context(job)
    if ctx is None:
        raise DocumentError(
            "spec.definitionFrom points to a definition that is not at hand; render the definition's own file"
        )
    return yaml.dump_all(
        objects(ctx), Dumper=_PlainDumper, sort_keys=False, width=110, explicit_start=True, allow_unicode=True
    )
