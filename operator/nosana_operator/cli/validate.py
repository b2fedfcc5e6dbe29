"""`nosana-operator validate`: checks job definitions."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import click

from nosana_operator.definition import MAX_BYTES, Problem, Report, check


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)
def validate(files: tuple[str, ...], output: Literal["text", "json"]) -> None:
    """Check job definitions (JSON or YAML; - reads standard input).

    Exits with 1 when one is refused. Warnings do not count: they name what has no effect or is surprising.
    """
    reports = [(file, _report(file)) for file in files]
    if output == "json":
        click.echo(
            json.dumps([_as_json(file, report) for file, report in reports], indent=2, ensure_ascii=False)
        )
    else:
        for file, report in reports:
            for line in _as_text(file, report):
                click.echo(line)
    if not all(report.valid for _, report in reports):
        sys.exit(1)


def _report(file: str) -> Report:
    try:
        with click.open_file(file, "rb") as stream:
            # One byte more than allowed shows that it is too large, whatever its size.
            text = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return Report(
            None,
            (
                Problem(
                    "$", f"the file cannot be read: {error.strerror or error}", "check its name and rights"
                ),
            ),
        )
    report = check(text, source=file)
    if {"apiVersion", "kind"} <= {error.path for error in report.errors}:
        message = "this is a Kubernetes object, not a job definition"
        return Report(None, (Problem("$", message, "check a NosanaJob with nosana-operator render"),))
    return report


def _as_text(file: str, report: Report) -> list[str]:
    lines = [f"{file}:{problem}" for problem in report.errors]
    lines += [
        f"{file}:{Problem(warning.path, f'warning: {warning.message}', warning.hint)}"
        for warning in report.warnings
    ]
    return [*lines, f"{file}: valid"] if report.valid else lines


def _as_json(file: str, report: Report) -> dict[str, Any]:
    return {
        "file": file,
        "valid": report.valid,
        "errors": [_problem(error) for error in report.errors],
        "warnings": [_problem(warning) for warning in report.warnings],
    }


def _problem(problem: Problem) -> dict[str, str]:
    return {"path": problem.path, "message": problem.message, "hint": problem.hint}
