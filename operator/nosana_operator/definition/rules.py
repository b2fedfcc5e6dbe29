"""The rules that types cannot express: unique ids and ports, and the limits of this operator.

(docs/protocol/job-definition.md#rules-beyond-types)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from nosana_operator.definition.errors import Problem
from nosana_operator.definition.exposure import expose_items, exposed_ports
from nosana_operator.definition.limits import (
    MAX_ADDRESS,
    MAX_ALIASES,
    MAX_ARGS_BYTES,
    MAX_ENDPOINT,
    MAX_ENV,
    MAX_HEALTH_CHECKS,
    MAX_MOUNTS,
    MAX_NAME,
    MAX_OPS,
    MAX_PATTERN,
    MAX_PATTERNS,
    MAX_PORTS,
    MAX_STATUS_BYTES,
    MAX_VOLUMES,
    MAX_WORD_BYTES,
    STATUS_OP_BYTES,
    STATUS_PORT_BYTES,
)
from nosana_operator.definition.model import Definition, ExposedPort, Global, Operation, RunArgs, VolumeArgs
from nosana_operator.json_paths import json_path, quoted

JOB_LITERAL = "%%global.job%%"
"""The only literal that is replaced in endpoints of `logistics`."""

Place = tuple[str | int, ...]


def broken_rules(definition: Definition) -> Iterator[Problem]:
    """Every rule that `definition` breaks, in document order; the limits over all ops come last."""
    if len(definition.ops) > MAX_OPS:
        yield Problem(
            "ops", f"at most {MAX_OPS} ops are allowed, found {len(definition.ops)}", "split the job"
        )
        return
    first_with: dict[str, int] = {}
    for index, op in enumerate(definition.ops):
        first = first_with.setdefault(op.id, index)
        if first != index:
            yield Problem(
                json_path(["ops", index, "id"]),
                f"the id {quoted(op.id)} is already taken by ops[{first}]",
                "rename one",
            )
        yield from _op_limits(("ops", index), op)
        if isinstance(op.args, RunArgs):
            yield from doubled_ports(("ops", index, "args"), op.args)
            yield from args_limits(("ops", index, "args"), op.args, definition.global_)
        for name, result in (op.results or {}).items():
            if not isinstance(result, str) and len(set(result.log_type)) != len(result.log_type):
                place = json_path(["ops", index, "results", name, "logType"])
                yield Problem(place, "the same log type is listed more than once", "list each one once")
    yield from _job_limits(definition)


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


def args_limits(place: Place, args: RunArgs, defaults: Global | None) -> Iterator[Problem]:
    """The limits that an op's arguments exceed, before or after their literals are replaced."""
    ports = sum(1 for _ in expose_items(args))
    if ports > MAX_PORTS:
        yield _too_many((*place, "expose"), MAX_PORTS, "ports", ports)
    names = args.aliases.count(",") + 1 if isinstance(args.aliases, str) else len(args.aliases or ())
    if names > MAX_ALIASES:
        yield _too_many((*place, "aliases"), MAX_ALIASES, "names", names)
    volumes, resources = len(args.volumes or ()), len(args.resources or ())
    if volumes + resources > MAX_MOUNTS:
        key = "volumes" if volumes > resources else "resources"
        yield _too_many((*place, key), MAX_MOUNTS, "volumes and resources", volumes + resources)
    env = {**((defaults.env if defaults else None) or {}), **(args.env or {})}
    if len(env) > MAX_ENV:
        yield _too_many((*place, "env"), MAX_ENV, "variables", len(env))
    for name, value in env.items():
        if (size := _bytes(name) + 1 + _bytes(value)) > MAX_WORD_BYTES:
            yield _too_long((*place, "env", name), MAX_WORD_BYTES, size)
    for key, words in (("cmd", args.cmd), ("entrypoint", args.entrypoint)):
        for position, word in enumerate([words] if isinstance(words, str) else words or ()):
            if (size := _bytes(word)) > MAX_WORD_BYTES:
                yield _too_long(
                    (*place, key, *([] if isinstance(words, str) else [position])), MAX_WORD_BYTES, size
                )
    size = _json_bytes(args) + (_json_bytes(defaults) if defaults else 0)
    if size > MAX_ARGS_BYTES:
        yield Problem(
            json_path(place),
            f"the arguments have {size} bytes with the global defaults, at most {MAX_ARGS_BYTES} fit into a pod",
            "fetch large data as a resource",
        )


def endpoint_length(endpoint: str) -> int:
    """Characters of an endpoint of `logistics` once its literals are replaced, at most."""
    return len(endpoint) + endpoint.count(JOB_LITERAL) * (MAX_ADDRESS - len(JOB_LITERAL))


def endpoint_limit(place: Place, endpoint: str) -> Iterator[Problem]:
    """Whether an endpoint of `logistics` is too long."""
    if (length := endpoint_length(endpoint)) > MAX_ENDPOINT:
        yield Problem(
            json_path(place),
            f"it has up to {length} characters once {JOB_LITERAL} is replaced, at most {MAX_ENDPOINT} are allowed",
            "shorten it",
        )


def _op_limits(place: Place, op: Operation) -> Iterator[Problem]:
    group = op.execution.group or ""
    for name_place, name in (((*place, "id"), op.id), ((*place, "execution", "group"), group)):
        if len(name) > MAX_NAME:
            message = f"it has {len(name)} characters, at most {MAX_NAME} are allowed"
            yield Problem(json_path(name_place), message, "shorten it")
    results = op.results or {}
    if len(results) > MAX_PATTERNS:
        yield _too_many((*place, "results"), MAX_PATTERNS, "regular expressions", len(results))
    for name, result in results.items():
        pattern = result if isinstance(result, str) else result.regex
        if max(len(pattern), len(name)) > MAX_PATTERN:
            message = f"it has {len(pattern)} characters, at most {MAX_PATTERN} are allowed"
            yield Problem(json_path((*place, "results", name)), message, "match less")


def _job_limits(definition: Definition) -> Iterator[Problem]:
    """Limits over all ops together."""
    run_args = [op.args for op in definition.ops if isinstance(op.args, RunArgs)]
    exposed = [sum(1 for _ in expose_items(args)) for args in run_args]
    if sum(exposed) > MAX_PORTS >= max(exposed):
        yield _too_many(("ops",), MAX_PORTS, "exposed ports", sum(exposed))
    elif (status := sum(map(_status_bytes, definition.ops))) > MAX_STATUS_BYTES:
        message = (
            f"ids, groups and ports need {status} bytes in the status, at most {MAX_STATUS_BYTES} are allowed"
        )
        yield Problem("ops", message, "shorten the ids, or expose fewer ports")
    checks = sum(len(port.health_checks) for args in run_args for port in exposed_ports(args))
    if checks > MAX_HEALTH_CHECKS:
        yield _too_many(("ops",), MAX_HEALTH_CHECKS, "health checks", checks)
    if (volumes := sum(1 for op in definition.ops if isinstance(op.args, VolumeArgs))) > MAX_VOLUMES:
        yield _too_many(("ops",), MAX_VOLUMES, "container/create-volume ops", volumes)
    if definition.logistics is not None:
        for side in ("send", "receive"):
            endpoint = getattr(definition.logistics, side).args.endpoint
            yield from endpoint_limit(("logistics", side, "args", "endpoint"), endpoint or "")


def _status_bytes(op: Operation) -> int:
    """Bytes of an op and its ports in the status of a job, about."""
    name = len(json.dumps(op.id))
    ports = len(exposed_ports(op.args)) if isinstance(op.args, RunArgs) else 0
    return name + len(json.dumps(op.group)) + STATUS_OP_BYTES + ports * (name + STATUS_PORT_BYTES)


def _too_many(place: Place, maximum: int, subject: str, count: int) -> Problem:
    return Problem(
        json_path(place), f"at most {maximum} {subject} are allowed, found {count}", "split the job"
    )


def _too_long(place: Place, maximum: int, size: int) -> Problem:
    return Problem(
        json_path(place),
        f"it has {size} bytes, at most {maximum} are allowed in one word or variable",
        "write it to a file, or fetch it as a resource",
    )


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _json_bytes(part: RunArgs | Global) -> int:
    data = part.model_dump(by_alias=True, exclude_unset=True)
    data.pop("variables", None)
    return _bytes(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
