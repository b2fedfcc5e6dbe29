"""docs/reference/api.md: NosanaJob and NosanaMarket, from the CRDs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nosana_tools.reference.tables import code, table

Schema = Mapping[str, Any]

_HEAD: Final = """\
# NosanaJob and NosanaMarket
Made from the CRDs by `make docs`; `kubectl explain nosanajob.spec` tells the same. A field that is not listed
is refused. How to use them: [job definitions](../job-definitions.md), [markets](../markets.md).
"""


def kinds_page(crds: Sequence[Schema]) -> str:
    """The page as Markdown."""
    return "\n".join([_HEAD, *(part for crd in crds for part in _kind(crd))])


def _kind(crd: Schema) -> Iterator[str]:
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    yield f"## {names['kind']}\n`{crd['spec']['group']}/{version['name']}`, short name `{names['shortNames'][0]}`.\n"
    for part, owner in (("spec", "yours"), ("status", "the operator's")):
        inner = schema["properties"][part]
        yield f"### {names['kind']}: {part} ({owner})\n"
        yield table(("field", "type", "default", ""), _rows(inner))
    yield "Rules beyond the types:\n"
    rules = [*_rules(schema), *_rules(schema["properties"]["spec"], "spec")]
    yield "".join(f"- {rule}\n" for rule in dict.fromkeys(rules))


def _rows(schema: Schema, path: str = "") -> Iterator[tuple[str, str, str, str]]:
    needed = set(schema.get("required") or ())
    for name, field in (schema.get("properties") or {}).items():
        here = f"{path}{name}"
        default = field.get("default")
        told = "required" if name in needed else "" if isinstance(default, Mapping) else code(default)
        yield f"`{here}`", _type(field), told, field.get("description", "")
        inner, mark = field, "."
        if field.get("type") == "array":
            inner, mark = field["items"], "[]."
        if not field.get("x-kubernetes-preserve-unknown-fields"):
            yield from _rows(inner, f"{here}{mark}")


def _type(field: Schema) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {_type(field['items'])}"
    if kind == "object" and isinstance(field.get("additionalProperties"), Mapping):
        return f"map of {_type(field['additionalProperties'])}"
    if kind == "string" and field.get("format") == "date-time":
        return "time"
    if kind == "integer":
        return f"integer{_bounds(field)}"
    return str(kind)


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", from {low}" if low is not None else f", up to {high}" if high is not None else ""


def _rules(schema: Schema, path: str = "") -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations") or ():
        said = rule["message"]
        yield said if not path or path in said else f"`{path}`: {said}"
    for name, field in (schema.get("properties") or {}).items():
        if path:
            yield from _rules(field, f"{path}.{name}")
