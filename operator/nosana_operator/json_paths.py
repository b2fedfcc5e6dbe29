"""JSON paths as people write them: `ops[0].args.env["MY KEY"]`; `$` for the document itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

ROOT = "$"
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_LONGEST_KEY = 80


def json_path(parts: Iterable[str | int]) -> str:
    """Write `parts` (keys and list positions, outermost first) as a JSON path. Long keys are cut."""
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _PLAIN_KEY.match(part) and len(part) <= _LONGEST_KEY:
            path += f".{part}" if path else part
        else:
            path += f"[{quoted(part, _LONGEST_KEY)}]"
    return path or ROOT


def quoted(text: str, longest: int = 40) -> str:
    """Write `text` in double quotes on one line, cut after `longest` characters; only ASCII comes out."""
    return json.dumps(text if len(text) <= longest else text[:longest] + "…")
