"""`nosana-operator render`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import yaml

from nosana_operator.cli.documents import (
    DocumentError,
    JobDocument,
    checked_context,
    problems_of,
    read_job,
)
from nosana_operator.definition import Operation
from nosana_operator.errors import NosanaError
from nosana_operator.json_paths import quoted
from nosana_operator.workload import JobContext, build_op_objects
from nosana_operator.workload.context import literals


class _PlainDumper(yaml.SafeDumper):
    """Writes no anchors: a reader expects each object in full."""

    def ignore_aliases(self, data: object) -> bool:
        return True


@click.command()
@click.argument("file")
@click.option("--name", help="Name of the NosanaJob. Default for a definition: made from the file's name.")
@click.option("--namespace", help="Namespace of the NosanaJob.")
def render(file: str, name: str | None, namespace: str | None) -> None:
    """Print the Kubernetes objects that the operator creates for a job, as YAML. Needs no cluster.

    FILE holds a NosanaJob or a Nosana job definition, JSON or YAML; `-` is standard input. Placeholders stand for
    what only the cluster knows (the job's uid, the cluster's name); everything else is what the operator would
    create. An op that uses other ops' results is a comment until the NosanaJob's status has them.
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
            "spec.definitionFrom points to a definition that is not in the file; render the definition's own file"
        )
    made: set[tuple[str, str]] = set()
    text = ""
    for index, op in enumerate(ctx.definition.ops):
        if open_ := sorted(_open(ctx, op)):
            text += f"# ops[{index}] {quoted(op.id)} waits for {', '.join(map(quoted, open_))}\n"
            continue
        for body in build_op_objects(ctx, index):
            named = body["kind"], body["metadata"]["name"]
            text += "" if named in made else _dumped(body)
            made.add(named)
    return text


def _open(ctx: JobContext, op: Operation) -> set[str]:
    """The literals of an op that get their value only when other ops have run."""
    ids = {each.id for each in ctx.definition.ops}
    return {
        reference.text
        for _, reference in literals(op)
        if reference.is_pending and reference.name in ids
        if reference.path.removeprefix("results.") not in ctx.results.get(reference.name, {})
    }


def _dumped(body: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        body, Dumper=_PlainDumper, sort_keys=False, width=110, explicit_start=True, allow_unicode=True
    )
    return text
