"""What a definition must keep beyond its types: unique ids and ports, and our limit on ops (§3)."""

from __future__ import annotations

from collections.abc import Iterator

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.model import Definition, ExposedPort, RunArgs
from nosana_operator.definition.paths import json_path, quoted

MAX_OPS = 64


def broken_rules(definition: Definition) -> Iterator[Problem]:
    """Every rule that `definition` breaks, in document order."""
    if len(definition.ops) > MAX_OPS:
        yield Problem(
            "ops", f"at most {MAX_OPS} ops are allowed, found {len(definition.ops)}", "split the job"
        )
    first_with: dict[str, int] = {}
    for index, op in enumerate(definition.ops):
        first = first_with.setdefault(op.id, index)
        if first != index:
            yield Problem(
                json_path(["ops", index, "id"]),
                f"the id {quoted(op.id)} is already taken by ops[{first}]",
                "rename one",
            )
        if isinstance(op.args, RunArgs):
            yield from _doubled_ports(index, op.args)
        for name, result in (op.results or {}).items():
            if not isinstance(result, str) and len(set(result.log_type)) != len(result.log_type):
                place = json_path(["ops", index, "results", name, "logType"])
                yield Problem(place, "the same log type is listed more than once", "list each one once")


def _doubled_ports(index: int, args: RunArgs) -> Iterator[Problem]:
    if not isinstance(args.expose, list):
        return
    seen: set[int | float] = set()
    for position, item in enumerate(args.expose):
        place: list[str | int] = ["ops", index, "args", "expose", position]
        if isinstance(item, ExposedPort):
            port = item.port
            place.append("port")
        elif isinstance(item, int | float):
            port = item
        else:
            continue
        if port in seen:
            yield Problem(
                json_path(place), f"port {port} is exposed more than once by this op", "list each port once"
            )
        seen.add(port)
