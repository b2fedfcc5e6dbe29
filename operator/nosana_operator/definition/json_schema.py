"""The job definition as JSON Schema (2020-12), for editors and other tools.

Generated from the types, so it accepts what they accept; it cannot express unique ids and unique ports.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from nosana_operator.citations import without_citations
from nosana_operator.definition.limits import MAX_OPS
from nosana_operator.definition.model import Definition


class _Generate(GenerateJsonSchema):
    schema_dialect = "https://json-schema.org/draft/2020-12/schema"

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        document = super().generate(schema, mode)
        for part in document.get("$defs", {}).values():
            if "description" in part:
                part["description"] = without_citations(part["description"])
        return {"$schema": self.schema_dialect, **document}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # Absent is not null: None cannot be written in a definition. A default that is an object repeats the
        # defaults of its own fields.
        if not isinstance(schema.get("default"), str | bool):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        # Titles made from field names tell an editor nothing.
        return False


def schema() -> dict[str, Any]:
    """The schema as plain JSON data."""
    document = Definition.model_json_schema(by_alias=True, schema_generator=_Generate)
    document["title"] = "Nosana job definition"
    document["properties"]["ops"]["maxItems"] = MAX_OPS
    return document
