"""Reads the definition in `spec.definition` of a NosanaJob."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from nosana_operator.definition import Definition, DefinitionError, Problem, parse

MAX_INLINE_BYTES: Final = 256 * 1024
"""As compact JSON. Every write and watch event carries the whole NosanaJob, and etcd accepts 1.5 MiB."""


def inline_size(definition: Mapping[str, Any]) -> int:
    """Bytes of `spec.definition` as compact JSON."""
    return len(json.dumps(definition, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))


def parse_inline(definition: Mapping[str, Any]) -> Definition:
    """The definition in `spec.definition`. Raises DefinitionError, also for one above `MAX_INLINE_BYTES`."""
    size = inline_size(definition)
    if size > MAX_INLINE_BYTES:
        message = f"a NosanaJob holds at most {MAX_INLINE_BYTES} bytes of definition, found {size}"
        hint = "put it into a ConfigMap, a Secret or on IPFS, and name that in spec.definitionFrom"
        raise DefinitionError([Problem("$", message, hint)])
    return parse(definition)
