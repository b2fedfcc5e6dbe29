"""Problems of a job definition, each with its path, and the errors that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nosana_operator.errors import NosanaError
from nosana_operator.json_paths import quoted

# A hostile document can have a hundred thousand problems; a person reads the first few.
MAX_PROBLEMS = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or a warning about one place of a definition.

    `path` is a JSON path (`ops[0].args.expose[1].port`; `$` is the whole document). `message` names the value and
    what is allowed. `hint` is the remedy for a common mistake, else empty. Values of fields that may hold a
    secret are never quoted.
    """

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} ({self.hint})" if self.hint else f"{self.path}: {self.message}"


class DefinitionError(NosanaError):
    """The job definition is unusable; `problems` (never empty) has every reason."""

    def __init__(
        self, problems: Sequence[Problem], *, consequence: str = "the job definition is unusable"
    ) -> None:
        if not problems:
            raise ValueError("a DefinitionError needs at least one problem")
        self.problems: tuple[Problem, ...] = tuple(problems)
        more = f"; and {len(self.problems) - 1} more" if len(self.problems) > 1 else ""
        super().__init__(f"{consequence}: {self.problems[0]}{more}")


class LiteralError(DefinitionError):
    """Literals or markers in one op's arguments cannot be replaced: this op fails, the others continue.

    The paths of its problems start at the op (`args.cmd[1]`).
    """

    def __init__(self, op_id: str, problems: Sequence[Problem]) -> None:
        super().__init__(problems, consequence=f"op {quoted(op_id)} cannot start")
        self.op_id = op_id
