"""The rules that types cannot express: unique ids and ports, and our limit on ops.

(docs/protocol/job-definition.md#rules-beyond-types)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.model import Definition, ExposedPort, RunArgs
from nosana_operator.json_paths import json_path, quoted

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
            yield from doubled_ports(("ops", index, "args"), op.args)
        for name, result in (op.results or {}).items():
            if not isinstance(result, str) and len(set(result.log_type)) != len(result.log_type):
                place = json_path(["ops", index, "results", name, "logType"])
                yield Problem(place, "the same log type is listed more than once", "list each one once")


def doubled_ports(place: Sequence[str | int], args: RunArgs) -> Iterator[Problem]:
    """Ports that one op exposes more than once; `place` is the path of `args`."""
    if not isinstance(args.expose, list):
        return
    seen: set[int | float] = set()
    for position, item in enumerate(args.expose):
        port_place: list[str | int] = [*place, "expose", position]
        if isinstance(item, ExposedPort):
            port = item.port
            port_place.append("port")
        elif isinstance(item, int | float):
            port = item
        else:
            continue
        if port in seen:
            yield Problem(
                json_path(port_place),
                f"port {port} is exposed more than once by this op",
                "list each port once",
            )
        seen.add(port)
