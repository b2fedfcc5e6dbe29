"""The recorded definitions use everything that the language has."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from nosana_operator.cli.documents import read_job
from nosana_operator.definition import Definition
from support.definitions import CASES, SHOWN

Use = tuple[str, str]
"""A field, and a shape or a word that it may have."""

TRAVELS = "logist"
"""Of a confidential job: objects are made of the definition that is brought, which holds nothing of this."""


def possible(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[Use]:
    """Every field of a model and of those below it, with each shape and each word that its type allows."""
    if model in seen:
        return
    seen.add(model)
    for name, hint in typing.get_type_hints(model).items():
        if name in model.model_fields:
            for shape in shapes(hint):
                if isinstance(shape, type) and issubclass(shape, BaseModel):
                    yield f"{model.__name__}.{name}", shape.__name__
                    yield from possible(shape, seen)
                elif shape is not type(None):
                    yield (
                        f"{model.__name__}.{name}",
                        named(shape) if isinstance(shape, type) else repr(shape),
                    )


def shapes(hint: Any) -> Iterator[Any]:
    """Types and words of an annotation; lists and mappings count by what they hold too."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        yield from arguments
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from shapes(argument)
    elif origin in (list, dict):
        yield origin
        yield from shapes(arguments[-1])
    elif hint is not Any:
        yield hint


def used(value: BaseModel) -> Iterator[Use]:
    """What a definition uses."""
    for name in value.model_fields_set & type(value).model_fields.keys():
        for item in items(getattr(value, name)):
            if isinstance(item, BaseModel):
                yield f"{type(value).__name__}.{name}", type(item).__name__
                yield from used(item)
            else:
                yield f"{type(value).__name__}.{name}", named(type(item))
                yield f"{type(value).__name__}.{name}", repr(item)


def named(shape: type) -> str:
    """JSON knows one kind of number."""
    return "number" if shape in (int, float) else shape.__name__


def items(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from items(item)


def test_every_field_shape_and_word_of_the_language_is_recorded() -> None:
    wanted = {use for use in possible(Definition, set()) if TRAVELS not in use[0].lower()}
    found = {use for source in CASES + SHOWN for use in used(read_job(str(source)).definition)}  # type: ignore[arg-type]
    assert len(wanted) > 130
    assert sorted(wanted - found) == []
