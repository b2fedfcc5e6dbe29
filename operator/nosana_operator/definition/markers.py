"""Collection markers: `__spread__`, `__pairs__` and `__remove-if-empty__`, applied after literals.

(docs/protocol/job-definition.md#markers)

A marker's value is the value of its literal: a list of captured strings, or one string. Unlike other arguments
it is parsed as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from nosana_operator.definition.limits import MAX_ARGS_BYTES
from nosana_operator.definition.model import PAIRS, REMOVE_IF_EMPTY, SPREAD
from nosana_operator.errors import NosanaError

MARKER_KEYS = frozenset({SPREAD, PAIRS, REMOVE_IF_EMPTY})
_CHUNKED = "chunked"
_EXPONENT_FROM = 1e21


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
