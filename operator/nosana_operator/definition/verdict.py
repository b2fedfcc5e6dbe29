"""Entry points of this package: text or plain data → a checked `Definition`, or every problem."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from nosana_operator.definition import messages
from nosana_operator.definition.advice import advice
from nosana_operator.definition.errors import MAX_PROBLEMS, DefinitionError, Problem
from nosana_operator.definition.model import Definition
from nosana_operator.definition.reading import Syntax, inspect, load
from nosana_operator.definition.rules import broken_rules
from nosana_operator.json_paths import ROOT


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of validation. `definition` is set exactly when there are no errors."""

    definition: Definition | None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the definition is accepted; warnings do not count."""
        return not self.errors


def validate(value: object) -> Report:
    """Check plain JSON data against the language; never raises for any content of `value`."""
    try:
        return _report(value, inspect(value))
    except DefinitionError as error:
        return Report(None, error.problems)


def check(text: str | bytes, *, source: str = "", syntax: Syntax = Syntax.AUTO) -> Report:
    """Read and check a document (see `load`); a document that cannot be read is an error in the report."""
    try:
        loaded = load(text, source=source, syntax=syntax)
    except DefinitionError as error:
        return Report(None, error.problems)
    return _report(loaded.value, loaded.warnings)


def parse(document: str | bytes | object, *, syntax: Syntax = Syntax.AUTO) -> Definition:
    """The checked definition of a text (JSON or YAML) or of plain JSON data.

    Raises DefinitionError with every problem of an invalid definition. `plan` checks whether its ops can be
    put in an order.
    """
    if isinstance(document, str | bytes):
        value = load(document, syntax=syntax).value
    else:
        inspect(document)
        value = document
    return _checked(value)


def _report(value: object, warnings: list[Problem] | tuple[Problem, ...]) -> Report:
    try:
        definition = _checked(value)
    except DefinitionError as error:
        return Report(None, error.problems, tuple(warnings[:MAX_PROBLEMS]))
    return Report(definition, (), (*warnings, *advice(definition))[:MAX_PROBLEMS])


def _checked(value: Any) -> Definition:
    if not isinstance(value, dict):
        found = {list: "a list", str: "a string", type(None): "nothing"}.get(type(value), "a bare value")
        raise DefinitionError(
            [
                Problem(
                    ROOT, f"a definition must be an object, found {found}", 'start with {"version": "0.1", …}'
                )
            ]
        )
    try:
        definition = Definition.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise DefinitionError(messages.problems(details[: 4 * MAX_PROBLEMS], value)[:MAX_PROBLEMS]) from None
    broken = list(islice(broken_rules(definition), MAX_PROBLEMS))
    if broken:
        raise DefinitionError(broken)
    return definition
