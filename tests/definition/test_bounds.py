"""How large a definition may be."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.definition import MAX_OPS, DefinitionError, parse


def _with_ops(count: int) -> dict[str, Any]:
    ops = [{"type": "container/run", "id": f"op-{n}", "args": {"image": "ubuntu"}} for n in range(count)]
    return {"version": "0.1", "type": "container", "ops": ops}


def test_the_number_of_ops_is_bounded() -> None:
    assert len(parse(_with_ops(MAX_OPS)).ops) == MAX_OPS
    with pytest.raises(DefinitionError, match=f"at most {MAX_OPS} ops"):
        parse(_with_ops(MAX_OPS + 1))
