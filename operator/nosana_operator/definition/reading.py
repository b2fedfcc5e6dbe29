"""Parses JSON or YAML into plain data, with bounded memory for any input.

Definitions come from strangers, so every step checks its limits before it allocates: size, nesting, and for
YAML the size after aliases are expanded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import yaml

from nosana_operator.definition.errors import DefinitionError, Problem
from nosana_operator.definition.limits import MAX_BYTES, MAX_DEPTH, MAX_VALUES
from nosana_operator.json_paths import ROOT, json_path, quoted

# The place of a value: its parent's place and its own key or position; None is the document.
_Place = tuple["_Place | None", str | int]


class Syntax(Enum):
    """The syntax of a text. Definitions on IPFS are JSON only; people's files may be YAML."""

    JSON = "JSON"
    YAML = "YAML"
    AUTO = "AUTO"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Plain JSON data (dict, list, str, int, float, bool, None), and warnings about its text."""

    value: Any
    warnings: tuple[Problem, ...] = ()


def load(text: str | bytes, *, source: str = "", syntax: Syntax = Syntax.AUTO) -> Loaded:
    """Read JSON or YAML text (at most 1 MiB, 64 levels deep) into plain data.

    `source` is the file's name. With `Syntax.AUTO` it decides the syntax: `.yaml` and `.yml` are YAML, `.json`
    is JSON, anything else is JSON when the text starts with a brace.
    Raises DefinitionError when the text is neither, or too large.
    """
    text = _decode(text)
    repeated: _Repeated = []
    read = _load_yaml if _is_yaml(text, source, syntax) else _load_json
    value = read(text, repeated)
    return Loaded(value, tuple(inspect(value, repeated)))


def inspect(value: Any, repeated: _Repeated | None = None) -> list[Problem]:
    """Check that `value` is plain JSON data within the limits; return warnings for repeated keys.

    Raises DefinitionError naming the first value that JSON cannot hold (a date, NaN, half a surrogate pair).
    """
    warnings: list[Problem] = []
    repeated_keys = {id(owner): keys for owner, keys in repeated or ()}
    values_left, text_left = MAX_VALUES, MAX_BYTES
    todo: list[tuple[Any, int, _Place | None]] = [(value, 0, None)]
    while todo:
        item, depth, place = todo.pop()
        values_left -= 1
        if values_left < 0:
            raise _refuse(f"the document has more than {MAX_VALUES} values", "split the job")
        kind = type(item)
        if kind is str:
            text_left -= len(item)
            if text_left < 0:
                # A YAML alias repeats a text, so values may have more text than the document.
                raise _refuse(f"the values have more than {MAX_BYTES} characters", "repeat less text", place)
            if not item.isascii() and not _is_unicode(item):
                raise _refuse("text holds half of a surrogate pair", "write the whole character", place)
        elif kind is dict or kind is list:
            if depth >= MAX_DEPTH:
                raise _refuse(f"more than {MAX_DEPTH} levels are nested", "flatten the document", place)
            if kind is list:
                todo.extend((child, depth + 1, (place, at)) for at, child in enumerate(item))
                continue
            for key, child in item.items():
                if type(key) is not str:
                    raise _refuse(f"key {key!r:.40} is not text", "put it in quotes", place)
                if not key.isascii() and not _is_unicode(key):
                    raise _refuse("a key holds half of a surrogate pair", "write the whole character", place)
                text_left -= len(key)
                todo.append((child, depth + 1, (place, key)))
            warnings.extend(
                Problem(_path((place, key)), "the key is given more than once; the last one counts")
                for key in repeated_keys.get(id(item), ())
            )
        elif kind is float:
            if not math.isfinite(item):
                raise _refuse("not a finite number", "JSON has no NaN and no infinity", place)
        elif item is not None and kind is not bool and kind is not int:
            raise _refuse(f"a {kind.__name__} is not a JSON value", "use text or a number", place)
    return warnings


# Objects with repeated keys, and those keys. The reference keeps the object's id from being reused.
_Repeated = list[tuple[dict[str, Any], list[str]]]


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise _refuse(
            f"the document is larger than {MAX_BYTES} bytes", "a definition contains settings, not data"
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _refuse(f"byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    elif not text.isascii() and (not _is_unicode(text) or len(text.encode()) > MAX_BYTES):
        raise _refuse(f"the document is not text of at most {MAX_BYTES} bytes", "save it as UTF-8")
    return text.removeprefix("\ufeff")


def _is_yaml(text: str, source: str, syntax: Syntax) -> bool:
    if syntax is not Syntax.AUTO:
        return syntax is Syntax.YAML
    name = source.lower()
    if name.endswith((".yaml", ".yml")):
        return True
    return not name.endswith(".json") and not text.lstrip().startswith("{")


def _load_json(text: str, repeated: _Repeated) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            repeated.append((built, _twice(key for key, _ in pairs)))
        return built

    try:
        return json.loads(text, object_pairs_hook=build, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _refuse(f"not JSON, {where}: {error.msg}", "check quotes, commas and brackets there") from None
    except RecursionError:
        raise _refuse(f"more than {MAX_DEPTH} levels are nested", "flatten the document") from None
    except ValueError:
        # Python's own limit on the digits of a whole number; its message would quote them.
        raise _refuse("not JSON: a number has too many digits", "write a shorter number") from None


def _no_constant(name: str) -> Any:
    raise _refuse(f"not JSON: {name} is not a JSON value", "use a number")


def _twice(keys: Iterator[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for key in keys:
        if key in seen:
            twice[key] = None
        seen.add(key)
    return list(twice)


# --- YAML ----------------------------------------------------------------------------------------------
# PyYAML's own constructors follow YAML 1.1 (`no` is false, `1_000` and dates are values) and expand aliases
# without bound. Nosana's tools follow YAML 1.2's core schema, so its rules are applied to the event stream.

_YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WHOLE = re.compile(r"[-+]?[0-9]+\Z")
_OCTAL = re.compile(r"0o[0-7]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NOT_FINITE = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")
_MAX_DIGITS = 400
_CORE = "tag:yaml.org,2002:"


@dataclass(slots=True)
class _Open:
    """A list or object that is not complete yet."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    size_before: int
    key: str | None = None
    repeated: dict[str, None] = field(default_factory=dict)


class _YamlBuilder:
    """Builds plain data from YAML events; counts every value that an alias repeats."""

    def __init__(self, repeated: _Repeated) -> None:
        self._repeated = repeated
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = 0
        self.documents: list[Any] = []

    def feed(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._place(_scalar(event), event, event.anchor)
            case yaml.MappingStartEvent():
                self._start({}, event, "map")
            case yaml.SequenceStartEvent():
                self._start([], event, "seq")
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end(event)
            case yaml.AliasEvent():
                self._alias(event)

    def _start(self, value: list[Any] | dict[str, Any], event: Any, kind: str) -> None:
        if event.tag not in (None, "!", _CORE + kind):
            raise _yaml_refuse(f"tag {quoted(event.tag)} is not supported", event)
        if len(self._open) >= MAX_DEPTH:
            raise _yaml_refuse(f"more than {MAX_DEPTH} levels are nested", event)
        self._open.append(_Open(value, event.anchor, self._size))

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        if done.repeated and isinstance(done.value, dict):
            self._repeated.append((done.value, list(done.repeated)))
        if done.anchor:
            self._anchors[done.anchor] = (done.value, self._size - done.size_before + 1)
        self._place(done.value, event, None)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise _yaml_refuse(f"alias {quoted(event.anchor)} names no complete value before it", event)
        value, size = self._anchors[event.anchor]
        self._size += size - 1
        self._place(value, event, None)

    def _place(self, value: Any, event: Any, anchor: str | None) -> None:
        self._size += 1
        if self._size > MAX_VALUES:
            raise _yaml_refuse(f"with its aliases it has more than {MAX_VALUES} values", event)
        if anchor:
            self._anchors[anchor] = (value, 1)
        if not self._open:
            self.documents.append(value)
            return
        into = self._open[-1]
        if isinstance(into.value, list):
            into.value.append(value)
        elif into.key is None:
            if not isinstance(value, str):
                raise _yaml_refuse("a key is not text; put it in quotes", event)
            if value in into.value:
                into.repeated[value] = None
            into.key = value
        else:
            into.value[into.key] = value
            into.key = None


def _load_yaml(text: str, repeated: _Repeated) -> Any:
    builder = _YamlBuilder(repeated)
    try:
        for event in yaml.parse(text, Loader=_YAML_LOADER):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
        problem = error.problem or error.context or "cannot be read"
        raise _refuse(f"not YAML{where}: {problem}", "check the indentation and quotes there") from None
    except (yaml.YAMLError, ValueError):
        raise _refuse("not YAML: it contains characters that YAML does not allow", "remove them") from None
    if len(builder.documents) != 1:
        count = len(builder.documents) or "no"
        raise _refuse(f"{count} documents found, one is expected", "put exactly one definition in each file")
    return builder.documents[0]


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.tag not in (None, "!"):
        return _tagged(text, event)
    return _plain(text, event) if event.implicit[0] else text


def _tagged(text: str, event: Any) -> Any:
    if event.tag == _CORE + "str":
        return text
    value = _plain(text, event)
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),),
    }  # fmt: skip
    if type(value) not in kinds.get(event.tag.removeprefix(_CORE), ()):
        raise _yaml_refuse(f"tag {quoted(event.tag)} does not fit here", event)
    return value


def _plain(text: str, event: Any) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    readers: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
        (_WHOLE, int),
        (_OCTAL, lambda digits: int(digits, 8)),
        (_HEX, lambda digits: int(digits, 16)),
        (_FLOAT, float),
    )
    for pattern, read in readers:
        if pattern.match(text):
            return read(text)
    if _NOT_FINITE.match(text):
        raise _yaml_refuse("not a finite number; JSON has no NaN and no infinity", event)
    return text


def _yaml_refuse(message: str, event: Any) -> DefinitionError:
    mark = event.start_mark
    return _refuse(f"not usable YAML, line {mark.line + 1} column {mark.column + 1}: {message}", "")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(place: _Place | None) -> str:
    parts: list[str | int] = []
    while place is not None:
        place, part = place
        parts.append(part)
    return json_path(reversed(parts)) if parts else ROOT


def _refuse(message: str, hint: str, place: _Place | None = None) -> DefinitionError:
    return DefinitionError([Problem(_path(place), message, hint)])
