"""The literals in an op's arguments, with their places."""

from __future__ import annotations

from collections.abc import Iterator

from nosana_operator.definition import Operation
from nosana_operator.definition.literals import Place, Reference, references, texts


def literals(op: Operation) -> Iterator[tuple[Place, Reference]]:
    """Every literal in the arguments of an op; the place starts at `args`."""
    for place, text in texts(op.args.model_dump(by_alias=True, exclude_unset=True), ("args",)):
        for reference in references(text):
            yield place, reference


__all__ = ["Place", "literals"]
