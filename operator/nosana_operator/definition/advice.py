"""Warnings."""

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.model import Definition


def advice(definition: Definition) -> list[Problem]:
    return []
