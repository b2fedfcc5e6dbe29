"""What stand-ins print so that the `results` of an op are found in its log, and what later ops make of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_BEHIND: Final = re.compile(r"\(\?<=(.+)\)\.[*+]")
"""The usual shape: all of a line behind some words."""
_NUMBER: Final = re.compile(r"\\d[*+]?")


def lines(definition: Mapping[str, Any], operation: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a line for each of the op's results that is the rest of a line behind some plain words."""
    results = operation.get("results")
    found = []
    for key, pattern in results.items() if isinstance(results, Mapping) else ():
        regex = pattern.get("regex") if isinstance(pattern, Mapping) else pattern
        match = _BEHIND.fullmatch(regex) if isinstance(regex, str) else None
        if match is not None:
            words = _NUMBER.sub("1", match[1])
            found.append(words + _value(definition, str(operation.get("id")), key))
    return tuple(found)


def spelled_out(definition: Mapping[str, Any], text: str) -> str:
    """Return `text` as it will be when the stand-ins have printed their lines."""
    for operation in operations(definition):
        results = operation.get("results")
        for key in results if isinstance(results, Mapping) else ():
            name = str(operation.get("id"))
            text = text.replace(_literal(name, key), _value(definition, name, key))
    return text


def _value(definition: Mapping[str, Any], name: str, key: str) -> str:
    """Of a result that is spread out no item; of any other what could be a word, an image or a host's name."""
    spread = json.dumps({"__spread__": _literal(name, key)})[1:-1]
    return "[]" if spread in json.dumps(definition) else "stand-in-" + re.sub("[^a-z0-9]+", "-", key.lower())


def _literal(name: str, key: str) -> str:
    return f"%%ops.{name}.results.{key}%%"


def operations(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The ops of a definition as parsed from JSON, as far as they are objects."""
    found = definition.get("ops")
    for operation in found if isinstance(found, list) else []:
        if isinstance(operation, Mapping):
            yield operation
