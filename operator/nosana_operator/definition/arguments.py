"""Replaces literals and expands markers in an op's arguments, and validates the outcome.

(docs/protocol/job-definition.md#how-values-are-put-in)

`interpolate` runs just before the op starts. The markers `__spread__`, `__pairs__` and `__remove-if-empty__` are
applied after literals (docs/protocol/job-definition.md#markers): a marker's value is the value of its literal, a
list of captured strings or one string, and unlike other arguments it is parsed as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from nosana_operator.definition import messages
from nosana_operator.definition.errors import MAX_PROBLEMS, LiteralError, Problem
from nosana_operator.definition.exposure import expose_items
from nosana_operator.definition.limits import MAX_ARGS_BYTES, MAX_VALUES
from nosana_operator.definition.literals import Context, GrowthError, UnresolvedLiteralError, as_text, replace
from nosana_operator.definition.model import (
    PAIRS,
    REMOVE_IF_EMPTY,
    SPREAD,
    Global,
    Operation,
    RunArgs,
    Spread,
    VolumeArgs,
)
from nosana_operator.definition.rules import args_limits, doubled_ports
from nosana_operator.errors import NosanaError
from nosana_operator.json_paths import json_path

MARKER_KEYS = frozenset({SPREAD, PAIRS, REMOVE_IF_EMPTY})
_CHUNKED = "chunked"
_EXPONENT_FROM = 1e21


def interpolate(op: Operation, context: Context, defaults: Global | None = None) -> RunArgs | VolumeArgs:
    """The arguments of `op`, same type, with every literal and marker replaced.

    Raises LiteralError, naming each argument that has no value, no longer fits its type, or exceeds a limit
    together with the definition's `defaults`. Memory is bounded by the limits, however far the text would grow.
    """
    raw = op.args.model_dump(by_alias=True, exclude_unset=True)
    filled = interpolate_args(raw, context, op_id=op.id)
    try:
        args = type(op.args).model_validate(filled)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise LiteralError(op.id, messages.problems(details, filled, root=type(op.args))) from None
    if isinstance(args, RunArgs):
        problems = [*_left_over(args), *args_limits(("args",), args, defaults)]
        if problems:
            raise LiteralError(op.id, problems[:MAX_PROBLEMS])
    return args


def interpolate_args(args: Mapping[str, Any], context: Context, *, op_id: str = "") -> dict[str, Any]:
    """Replace literals and expand markers in plain arguments, without validating the outcome.

    Raises LiteralError with the problem of every argument that cannot be replaced.
    """
    fill = _Fill(context)
    filled: dict[str, Any] = {}
    for key, value in args.items():
        try:
            filled[key] = fill.argument(key, value)
        except GrowthError as error:
            fill.problem(
                Problem("", str(error), "capture less in `results`, or fetch large data as a resource")
            )
            break
        except _EnoughError:
            break
    if fill.problems:
        raise LiteralError(op_id, fill.problems)
    return without_empty(filled)


def _left_over(args: RunArgs) -> Iterator[Problem]:
    """What a definition may contain before its literals are replaced, but not after."""
    if any(isinstance(item, str | Spread) for item in expose_items(args)):
        yield Problem(
            "expose", "must be a port number once its literal is replaced", "the literal's value is no port"
        )
    if any(isinstance(item, str | Spread) for item in args.resources or ()):
        yield Problem(
            "resources",
            "must be resources once its markers are replaced",
            "capture a JSON array of resources",
        )
    yield from doubled_ports((), args)


class _EnoughError(Exception):
    """Nobody reads more problems than were found already."""


class _Fill:
    """Walks an op's arguments once and collects problems instead of stopping at the first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._text_left = MAX_ARGS_BYTES
        self._values_left = MAX_VALUES
        self._place: list[str | int] = []
        self.problems: list[Problem] = []

    def argument(self, key: str, value: Any) -> Any:
        self._place = [key]
        if key == "expose":
            return self._expose(value)
        filled = self._value(value)
        if key == "env" and isinstance(filled, dict):
            return {name: env_text(item) for name, item in filled.items()}
        return filled

    def _expose(self, value: Any) -> Any:
        """Captured ports are text, but a port is a number; a literal or marker may stand for several ports."""
        alone = isinstance(value, str) or is_splice(value)
        items = self._value([value] if alone else value)
        if not isinstance(items, list):
            return items
        ports = [int(item) if isinstance(item, str) and _is_port_text(item) else item for item in items]
        return ports[0] if isinstance(value, str) and len(ports) == 1 else ports

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return as_text(self._replaced(value))
        if isinstance(value, list):
            return list(self._items(value))
        if isinstance(value, dict):
            return self._object(value)
        return value

    def _items(self, values: list[Any]) -> Iterator[Any]:
        for position, value in enumerate(values):
            self._place.append(position)
            if isinstance(value, str):
                replaced = self._replaced(value)
                yield from [replaced] if isinstance(replaced, str) else [item or "" for item in replaced]
            elif is_splice(value):
                yield from self._spliced(value)
            else:
                yield self._value(value)
            self._place.pop()

    def _spliced(self, marker: dict[str, Any]) -> list[Any]:
        raw = {key: self._replaced(item) if isinstance(item, str) else item for key, item in marker.items()}
        try:
            items = spliced(raw)
            self._count(len(items))
            return items
        except MarkerError as error:
            self.problem(Problem("", str(error), "its literal has to give JSON text"))
            return []

    def _object(self, values: dict[str, Any]) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        for key, value in values.items():
            self._place.append(key)
            if key in MARKER_KEYS and isinstance(value, str):
                filled[key] = self._replaced(value)
            else:
                filled[key] = self._value(value)
            self._place.pop()
        try:
            entries = merged(filled)
            self._count(len(entries))
            return entries
        except MarkerError as error:
            self.problem(Problem("", str(error), "its literal has to give JSON text"))
            return {}

    def _replaced(self, text: str) -> Any:
        try:
            value = replace(text, self._context, self._text_left)
        except UnresolvedLiteralError as error:
            self.problem(error.problem)
            return text
        texts = (value,) if isinstance(value, str) else value
        self._text_left -= sum(len(item or "") for item in texts)
        self._count(len(texts))
        return value

    def _count(self, values: int) -> None:
        """Count values that the arguments gain. Raises GrowthError."""
        self._values_left -= values
        if self._text_left < 0:
            raise GrowthError(f"the arguments grow beyond {MAX_ARGS_BYTES} characters")
        if self._values_left < 0:
            raise GrowthError(f"the arguments grow beyond {MAX_VALUES} values")

    def problem(self, problem: Problem) -> None:
        """Add a problem at the current place."""
        self.problems.append(Problem(json_path(["args", *self._place]), problem.message, problem.hint))
        if len(self.problems) == MAX_PROBLEMS:
            raise _EnoughError


def _is_port_text(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


class MarkerError(NosanaError):
    """A marker's value is not the JSON that it has to be; the message never quotes the value.

    `interpolate` turns it into a LiteralError with the marker's path.
    """


def spliced(marker: Mapping[str, Any]) -> list[Any]:
    """The items that a marker object stands for inside a list. Raises MarkerError.

    Each captured string that is a JSON array gives its items, any other stays itself; with `chunked` all
    strings are joined first and must be one JSON array.
    """
    value = marker[SPREAD] if SPREAD in marker else marker[PAIRS]
    if isinstance(value, str) or marker.get(_CHUNKED) is True:
        if value == []:
            return []
        items = _read(value if isinstance(value, str) else "".join(item or "" for item in value))
        if not isinstance(items, list):
            raise MarkerError("the marker's value is not a JSON array")
        return items
    items = []
    for captured in value:
        read = _try_read(captured)
        items.extend(read if isinstance(read, list) else [captured if not isinstance(read, dict) else read])
    return items


def is_splice(item: Any) -> bool:
    """Whether a list item is a marker object that stands for other items."""
    return (
        isinstance(item, dict) and (SPREAD in item or PAIRS in item) and len(item) - (_CHUNKED in item) == 1
    )


def merged(values: Mapping[str, Any]) -> dict[str, Any]:
    """An object with its markers replaced by the entries that they stand for; these override siblings.

    Raises MarkerError.
    """
    result = {key: value for key, value in values.items() if key not in MARKER_KEYS}
    if SPREAD in values:
        result.update(_object(values[SPREAD]))
    if PAIRS in values:
        result.update(_pairs(values[PAIRS]))
    if REMOVE_IF_EMPTY in values:
        # Only list items are removed; as a key it does nothing, except that an empty array is written as "".
        value = values[REMOVE_IF_EMPTY]
        result[REMOVE_IF_EMPTY] = "" if value in ([], "[]") else value
    return result


def without_empty(args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without the `__remove-if-empty__` items; a list that contains nothing else is left out."""
    kept: dict[str, Any] = {}
    for key, value in args.items():
        if isinstance(value, list) and REMOVE_IF_EMPTY in value:
            value = [item for item in value if item != REMOVE_IF_EMPTY]
            if not value:
                continue
        kept[key] = value
    return kept


def env_text(value: Any) -> str:
    """An environment value as text: null is empty, anything else but text is written as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _object(value: Any) -> dict[str, Any]:
    if value == []:
        return {}
    read = _read(_single(value))
    if not isinstance(read, dict):
        raise MarkerError(f"the value of {SPREAD} is not a JSON object")
    return read


def _pairs(value: Any) -> dict[str, Any]:
    if value == []:
        return {}
    read = _read(_single(value))
    if not isinstance(read, list) or not all(
        isinstance(item, dict) and isinstance(item.get("key"), str) for item in read
    ):
        raise MarkerError(f"the value of {PAIRS} is not a JSON array of objects with key and value")
    return {item["key"]: item.get("value", "") for item in read}


def _single(value: Any) -> str:
    return value if isinstance(value, str) else "".join(item or "" for item in value)


def _try_read(text: str | None) -> Any:
    try:
        return _read(text or "")
    except MarkerError:
        return None


def _read(text: str) -> Any:
    if len(text) > MAX_ARGS_BYTES:
        raise MarkerError(f"the marker's value is larger than {MAX_ARGS_BYTES} characters")
    try:
        return json.loads(text, parse_float=_number)
    except (ValueError, RecursionError):
        raise MarkerError("the marker's value is not JSON") from None


def _number(text: str) -> int | float:
    """As in JavaScript, which has one number type and writes whole numbers without a decimal point."""
    number = float(text)
    if not math.isfinite(number):
        raise MarkerError("the marker's value holds a number that is too large")
    # JavaScript keeps the exponent from here on; written out, the number would have up to 309 digits.
    return int(number) if number.is_integer() and abs(number) < _EXPONENT_FROM else number
