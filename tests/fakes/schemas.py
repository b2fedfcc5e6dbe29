"""The schemas of every kind, as the API server applies them: our CRDs' and Kubernetes' own.

A schema is compiled once into closures: thousands of lives write hundreds of thousands of objects. Fields that have
not changed are not judged again, as the API server's validation ratcheting has it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes_validate

from nosana_operator.api import crds

Body = dict[str, Any]
Problems = list[str]
Check = Callable[[Any, Any, str, Problems], None]
"""(value, the value before or None, path, where the problems go)."""
KUBERNETES = "v1.34.0-local-strict"
_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / KUBERNETES
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


def _one_source(value: Any, _: Any) -> bool:
    return len(value.keys() & {"ipfs", "configMap", "secret"}) == 1


def _each_wallet_once(value: Any, _: Any) -> bool:
    keys = [(one["secretRef"]["name"], one["secretRef"].get("key", "id.json")) for one in value]
    return len(keys) == len(set(keys))


def _same_definition(value: Any, old: Any) -> bool:
    return all(value.get(name) == old.get(name) for name in ("definition", "definitionFrom"))


def _job_name(value: Any, _: Any) -> bool:
    name = value["metadata"]["name"]
    return len(name) <= 52 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None


RULES: dict[str, Callable[[Any, Any], bool]] = {
    "[has(self.ipfs), has(self.configMap), has(self.secret)].filter(x, x).size() == 1": _one_source,
    "self == oldSelf": lambda value, old: value == old,
    "has(self.definition) != has(self.definitionFrom)": lambda value, _: (
        ("definition" in value) != ("definitionFrom" in value)
    ),
    "!has(self.run) || !has(self.suspend) || !self.suspend": lambda value, _: (
        "run" not in value or not value.get("suspend")
    ),
    "has(self.run) == has(oldSelf.run)": lambda value, old: ("run" in value) == ("run" in old),
    "has(self.definition) == has(oldSelf.definition) && (!has(self.definition) || self.definition == "
    "oldSelf.definition) && has(self.definitionFrom) == has(oldSelf.definitionFrom) && (!has(self.definitionFrom)"
    " || self.definitionFrom == oldSelf.definitionFrom)": _same_definition,
    "self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')": _job_name,
    "self.all(w, self.exists_one(v, v.secretRef.name == w.secretRef.name && v.secretRef.key == "
    "w.secretRef.key))": _each_wallet_once,
    "self.metadata.name.size() <= 63": lambda value, _: len(value["metadata"]["name"]) <= 63,
}
"""The CRDs' CEL rules in Python, by their text; `tests/api/test_fake_api_server.py` keeps them complete."""


def compiled(schema: Mapping[str, Any]) -> Check:
    """A schema's check: structural ones, and Kubernetes' own JSON Schemas."""
    if "$ref" in schema:
        return _referenced(schema["$ref"].rpartition("/")[2])
    if "oneOf" in schema:
        kinds = tuple(t for one in schema["oneOf"] for t in _TYPES[_type_of(one)])
        return lambda value, old, path, out: (
            None if isinstance(value, kinds) else out.append(f"{path}: {value!r} is of another type")
        )
    kind = _type_of(schema)
    if not kind:
        return lambda value, old, path, out: None
    parts = [_typed(_TYPES[kind], kind)]
    parts += _PARTS.get(kind, lambda _: [])(schema)
    if "enum" in schema:
        words = schema["enum"]
        parts.append(
            lambda value, old, path, out: (
                None if value in words else out.append(f"{path}: {value!r} is not one of {words}")
            )
        )
    for rule in schema.get("x-kubernetes-validations", ()):
        parts.append(_ruled(rule))

    def check(value: Any, old: Any, path: str, out: Problems) -> None:
        before = len(out)
        for part in parts:
            part(value, old, path, out)
            if len(out) > before:
                return

    return check


def _type_of(schema: Mapping[str, Any]) -> str:
    kind: str | list[str] = schema.get("type", "")
    # Null is nothing given, which every field may be.
    return kind if isinstance(kind, str) else next(one for one in kind if one != "null")


def _typed(kinds: tuple[type, ...], name: str) -> Check:
    def check(value: Any, old: Any, path: str, out: Problems) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            out.append(f"{path}: has to be of type {name}, not {type(value).__name__}")

    return check


def _ruled(rule: Mapping[str, str]) -> Check:
    holds, message = RULES.get(rule["rule"]), rule["message"]
    of_change = "oldSelf" in rule["rule"]

    def check(value: Any, old: Any, path: str, out: Problems) -> None:
        if holds is not None and not (of_change and old is None) and not holds(value, old):
            out.append(f"{path}: {message}")

    return check


def _object(schema: Mapping[str, Any]) -> list[Check]:
    properties = {name: compiled(one) for name, one in schema.get("properties", {}).items()}
    required = tuple(schema.get("required", ()))
    more = schema.get("additionalProperties")
    each = compiled(more) if isinstance(more, dict) else None
    closed = not schema.get("x-kubernetes-preserve-unknown-fields") and each is None and bool(properties)
    most = schema.get("maxProperties", float("inf"))

    def check(value: Body, old: Any, path: str, out: Problems) -> None:
        for name in required:
            if name not in value:
                out.append(f"{path}.{name}: Required value")
        if len(value) > most:
            out.append(f"{path}: Too many: {len(value)}: must have at most {most} items")
        before = old if isinstance(old, dict) else {}
        for name, one in value.items():
            if name in before and before[name] == one:
                continue
            part = properties.get(name, each)
            if part is not None:
                if one is not None:
                    part(one, before.get(name), f"{path}.{name}", out)
            elif closed:
                out.append(f"{path}.{name}: unknown field")

    return [check]


def _array(schema: Mapping[str, Any]) -> list[Check]:
    item = compiled(schema.get("items", {}))
    least, most = schema.get("minItems", 0), schema.get("maxItems", float("inf"))
    keys = schema.get("x-kubernetes-list-map-keys")
    # Only a CRD's lists are refused for a key that is given twice: built-in kinds take them.
    keys = (
        keys
        if schema.get("x-kubernetes-list-type") == "map" and "x-kubernetes-patch-strategy" not in schema
        else None
    )
    is_set = schema.get("x-kubernetes-list-type") == "set"

    def check(value: list[Any], old: Any, path: str, out: Problems) -> None:
        if not least <= len(value) <= most:
            out.append(f"{path}: {len(value)} items; must have {least} to {most}")
            return
        for index, one in enumerate(value):
            item(one, None, f"{path}[{index}]", out)
        if keys and not out:
            names = [tuple(one.get(key) for key in keys) for one in value]
            if len(names) != len(set(names)):
                out.append(f"{path}: Duplicate value")
        if is_set and len({json.dumps(one) for one in value}) != len(value):
            out.append(f"{path}: Duplicate value")

    return [check]


def _string(schema: Mapping[str, Any]) -> list[Check]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", float("inf"))
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
    moment = schema.get("format") == "date-time"

    def check(value: str, old: Any, path: str, out: Problems) -> None:
        if not least <= len(value) <= most:
            out.append(f"{path}: {len(value)} characters; must have {least} to {most}")
        elif pattern is not None and not pattern.search(value):
            out.append(f"{path}: {value!r} does not match {pattern.pattern}")
        elif moment:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                out.append(f"{path}: {value!r} is no date and time")

    return [check]


def _number(schema: Mapping[str, Any]) -> list[Check]:
    bits = {"int32": 2**31, "int64": 2**63}.get(schema.get("format", ""), float("inf"))
    least = max(schema.get("minimum", float("-inf")), -bits)
    most = min(schema.get("maximum", float("inf")), bits - 1)

    def check(value: float, old: Any, path: str, out: Problems) -> None:
        if not least <= value <= most:
            out.append(f"{path}: {value} is not between {least} and {most}")

    return [check]


_PARTS: dict[str, Callable[[Mapping[str, Any]], list[Check]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
}


@functools.cache
def _definitions() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((_SCHEMAS / "_definitions.json").read_text())["$defs"]
    return found


@functools.cache
def _referenced(name: str) -> Check:
    known: list[Check] = []

    def check(value: Any, old: Any, path: str, out: Problems) -> None:
        # Compiled when it is first met: schemas refer to each other in circles.
        if not known:
            known.append(compiled(_definitions()[name]))
        known[0](value, old, path, out)

    return check


@functools.cache
def schema_check(api_version: str, kind: str) -> Check:
    """The check of a whole object; of metadata the schema says little (`admission` does)."""
    for crd in crds():
        spec = crd["spec"]
        for version in spec["versions"]:
            if (f"{spec['group']}/{version['name']}", spec["names"]["kind"]) == (api_version, kind):
                return compiled(_with_metadata(version["schema"]["openAPIV3Schema"]))
    file = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    return compiled(json.loads((_SCHEMAS / f"{kind.lower()}-{file}.json").read_text()))


def _with_metadata(schema: Body) -> Body:
    """A CRD's schema with what the API server adds to each."""
    metadata = _definitions()["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]
    more = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}
    return {**schema, "properties": {**schema.get("properties", {}), **more}}
