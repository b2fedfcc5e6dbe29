"""The literals in an op's arguments, with their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nosana_operator.definition import Operation
from nosana_operator.definition.literals import Reference, references

Place = tuple[str | int, ...]


def literals(op: Operation) -> Iterator[tuple[Place, Reference]]:
    """Every literal in the arguments of an op; its path starts with `args`."""
    for place, text in _texts(op.args.model_dump(by_alias=True, exclude_unset=True), ("args",)):
        for reference in references(text):
            yield place, reference


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, index))
