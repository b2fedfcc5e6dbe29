"""docs/reference/settings.md: every key of the settings file, from the schema of the settings' models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nosana_operator.runtime.settings import Settings
from nosana_tools.reference.tables import code, table

JsonSchema = Mapping[str, Any]

_HEAD: Final = """\
# Settings
Every key of the settings file, generated from the code by `make docs`. A key that is not listed is refused. The
file as a whole, with what belongs together: [settings](../settings.md). Of what a network requires, `ws` follows
from `rpc`, and networks named `mainnet` and `devnet` need neither `program` nor `nosMint`.

"""
_WORDS: Final = {"string": "text", "integer": "integer", "boolean": "true or false"}


def settings_page() -> str:
    """The page as Markdown."""
    schema = Settings.model_json_schema()
    return _HEAD + table(("key", "type", "default", ""), _rows(schema, "", schema["$defs"]))


def _rows(
    owner: JsonSchema, path: str, models: Mapping[str, JsonSchema]
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in owner["properties"].items():
        key, text = path + name, field.get("description", "")
        default = code(field.get("default")) if name not in owner.get("required", ()) else "required"
        match field:
            case {"$ref": model}:
                group, kind, inside = models[model.rsplit("/", 1)[1]], "", "."
            case {"items": {"$ref": model}}:
                group, kind, inside = models[model.rsplit("/", 1)[1]], "list", "[]."
            case {"additionalProperties": {"$ref": model}}:
                group, kind, inside = models[model.rsplit("/", 1)[1]], "by name", ".NAME."
            case _:
                yield f"`{key}`", _type(field), default, text
                continue
        yield f"`{key}`", kind, "", text or group["description"]
        yield from _rows(group, key + inside, models)


def _type(field: JsonSchema) -> str:
    match field:
        case {"anyOf": [some, {"type": "null"}]}:
            return _type(some)
        case {"enum": allowed}:
            return " or ".join(f"`{value}`" for value in allowed)
        case {"items": items}:
            return f"list of {_type(items)}"
        case {"additionalProperties": values}:
            return f"map of {_type(values)}"
        case {"format": "path"}:
            return "file"
    return _WORDS[field["type"]]
