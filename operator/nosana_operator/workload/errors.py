"""Errors of the builders."""

from __future__ import annotations

from collections.abc import Sequence

from nosana_operator.definition import DefinitionError, Problem
from nosana_operator.json_paths import quoted


class ArgsError(DefinitionError):
    """No container can be created from an op's arguments with their literals replaced: the op fails."""

    def __init__(self, op_id: str, problems: Sequence[Problem]) -> None:
        super().__init__(problems, consequence=f"op {quoted(op_id)} cannot start")
        self.op_id = op_id
