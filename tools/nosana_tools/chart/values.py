"""values.yaml as a document: each key with the comment above it, in the file's order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from nosana_tools.chart.errors import UndocumentedValue

Path = tuple[str, ...]

_KEY: Final = re.compile(r"( *)([A-Za-z][A-Za-z0-9_./-]*):(?: .*)?")
_COMMENT: Final = re.compile(r" *# ?(.*)")


@dataclass(frozen=True, slots=True)
class Value:
    """One key: its path, its default and its description ("" for a key that only groups others)."""

    path: Path
    default: Any
    description: str


def read_values(text: str) -> list[Value]:
    """Every key that has a comment, and every group of such keys. Raises UndocumentedValue.

    Keys below a key with a comment are part of its default, unless they have comments too.
    """
    comments = dict(_comments(text))
    return list(_walk((), yaml.safe_load(text), comments))


def _walk(path: Path, data: Mapping[str, Any], comments: Mapping[Path, str]) -> Iterator[Value]:
    for key, default in data.items():
        full = (*path, key)
        description = comments.get(full, "")
        documented = [other for other in comments if len(other) > len(full) and other[: len(full)] == full]
        if not description and not documented:
            if comments.get(path):
                continue
            raise UndocumentedValue(f"values.yaml: {'.'.join(full)} has no comment; write one above it")
        yield Value(full, default, description)
        if documented:
            yield from _walk(full, default, comments)


def _comments(text: str) -> Iterator[tuple[Path, str]]:
    """(path of a key, the comment right above it as one line)."""
    above: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        if comment := _COMMENT.fullmatch(line):
            above.append(comment[1])
            continue
        if key := _KEY.fullmatch(line):
            indent = len(key[1])
            parents = [parent for parent in parents if parent[0] < indent]
            parents.append((indent, key[2]))
            if above:
                yield tuple(name for _, name in parents), " ".join(above)
        above = []
