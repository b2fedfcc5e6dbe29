"""docs/reference/settings.md: every key of the settings file, from the dataclasses and what is said of them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from nosana_operator.runtime.settings import Settings
from nosana_tools.reference.tables import code, table

_HEAD: Final = """\
# Settings
Every key of the settings file, made from the code by `make docs`. A key that is not listed is refused. The file
as a whole, with what belongs together: [settings](../settings.md). Of what a network requires, `ws` follows from
`rpc`, the staking and rewards programs are known, and those of networks named `mainnet` and `devnet` all are.

"""
_WORDS: Final = {str: "text", int: "integer", bool: "true or false", float: "number", Path: "file"}

Said = Mapping[str, Mapping[str, str]]
"""Class → attribute → what its docstring says."""


def settings_page(module: types.ModuleType) -> str:
    """The page as Markdown; `module` is where the dataclasses stand."""
    return _HEAD + table(("key", "type", "default", ""), _rows(Settings, "", _said(module)))


def _rows(owner: Any, path: str, said: Said) -> Iterator[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        wanted = hints[field.name]
        key = path + re.sub(r"_(\w)", lambda found: found[1].upper(), field.name)
        text = said[owner.__name__].get(field.name, "")
        inner, mark = _group(wanted)
        if inner is None:
            yield f"`{key}`", _type(wanted), _default(field), text
        else:
            told = text or inspect.getdoc(inner) or ""
            yield f"`{key}`", {"": "", ".": "", "[].": "list", ".NAME.": "by name"}[mark], "", told
            yield from _rows(inner, f"{key}{mark}", said)


def _group(wanted: Any) -> tuple[Any, str]:
    """The dataclass that stands below a key, and how its keys are reached; None where there is none."""
    if dataclasses.is_dataclass(wanted):
        return wanted, "."
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple and dataclasses.is_dataclass(arguments[0]):
        return arguments[0], "[]."
    if (
        origin not in (None, tuple, Literal)
        and len(arguments) == 2
        and dataclasses.is_dataclass(arguments[1])
    ):
        return arguments[1], ".NAME."
    return None, ""


def _type(wanted: Any) -> str:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return next(_type(argument) for argument in arguments if argument is not types.NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is not None:
        return f"map of {_type(arguments[1])}"
    return _WORDS[wanted]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return code(list(field.default) if isinstance(field.default, tuple) else field.default)
    if field.default_factory is not dataclasses.MISSING:
        return code(field.default_factory())
    return "required"


def _said(module: types.ModuleType) -> Said:
    """The docstrings that stand under the attributes of a module's classes."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                before.target.id: inspect.cleandoc(after.value.value)
                for before, after in zip(node.body, node.body[1:], strict=False)
                if isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            }
    return found
