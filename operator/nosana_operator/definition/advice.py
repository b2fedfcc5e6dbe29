"""Warnings about a valid definition: what has no effect here, and what will surprise its author.

(docs/protocol/job-definition.md#surprises)

Cheap by design (a few microseconds per op), because every `validate` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

from nosana_operator.definition.errors import MAX_PROBLEMS, Problem
from nosana_operator.definition.exposure import expose_items, is_tcp_port
from nosana_operator.definition.literals import (
    GLOBAL_NAMES,
    Place,
    Reference,
    references,
    texts,
    unknown_global,
    unknown_op,
    unknown_op_value,
    without_references,
)
from nosana_operator.definition.model import (
    Definition,
    ExposedPort,
    Global,
    HuggingFaceResource,
    Operation,
    RunArgs,
    S3BucketsResource,
    S3Resource,
    Spread,
    VolumeArgs,
)
from nosana_operator.definition.stages import order_problems
from nosana_operator.json_paths import json_path, quoted

_NEWER_NODES = "only newer nodes support it"
_SHELL = re.compile(r"(?:/(?:usr/)?bin/)?(?:env )?(?:ba|da|z|k|a)?sh")
_SHELL_LINE = re.compile(r"(?:/(?:usr/)?bin/)?(?:ba|da|z|k|a)?sh\s")
_HOST = re.compile(r"://([^/:?#\s\"'@]+)")
# Text that was probably meant as a literal: the delimiters around a known scope, without a space.
_LITERAL_LIKE = re.compile(r"%%(?:ops|globals?|variables|env|secrets?)\.[^%\s]*%%")


def advice(definition: Definition) -> list[Problem]:
    """The first warnings in document order; those about the order of ops come last."""
    return list(islice(chain(_whole(definition), _ops(definition), _order(definition)), MAX_PROBLEMS))


def _whole(definition: Definition) -> Iterator[Problem]:
    if not definition.ops and definition.logistics is None:
        yield Problem("ops", "there is no op, so nothing will run", "add an op")
    meta = definition.meta
    if meta is not None:
        for name in ("system_resources", "system_requirements"):
            if (
                meta.system_resources is not None
                if name == "system_resources"
                else name in (meta.__pydantic_extra__ or {})
            ):
                yield Problem(f"meta.{name}", "it has no effect", "the market decides the hardware")
    if definition.global_ is not None:
        yield from _global(definition.global_)
    if definition.logistics is not None:
        for side in ("send", "receive"):
            if getattr(definition.logistics, side).type == "api-listen":
                yield Problem(
                    f"logistics.{side}.type",
                    "this host does not serve api-listen, so it refuses a market job that needs it",
                    "use type api with an endpoint",
                )
    if definition.ssh is not None:
        yield Problem("ssh", "this host offers no shells, so the keys have no effect", "remove it")


def _global(defaults: Global) -> Iterator[Problem]:
    if defaults.image is not None:
        yield Problem("global.image", "it has no effect", "each op names its own image")
    for place, text in texts(
        defaults.model_dump(exclude_unset=True, include={"entrypoint", "env", "work_dir"})
    ):
        if any(references(text)):
            yield Problem(
                json_path(("global", *place)),
                "literals in global are not replaced",
                "write it in the args of the op",
            )


def _ops(definition: Definition) -> Iterator[Problem]:
    literals = _LiteralCheck(definition)
    exposed: dict[int, int] = {}
    for index, op in enumerate(definition.ops):
        place: Place = ("ops", index)
        if "." in op.id:
            yield Problem(
                json_path((*place, "id")),
                "a dot in an op id breaks every literal that names it",
                "use a hyphen",
            )
        execution = op.execution
        if execution.stop_if_dependent_stops and not execution.depends_on:
            yield Problem(
                json_path((*place, "execution", "stop_if_dependent_stops")),
                "it has no effect without depends_on",
                "list the ops whose end stops this one",
            )
        if isinstance(op.args, RunArgs):
            yield from _run(definition, (*place, "args"), op, op.args)
            yield from _ports((*place, "args"), index, op.args, exposed)
        yield from literals.problems((*place, "args"), op)


def _run(definition: Definition, place: Place, op: Operation, args: RunArgs) -> Iterator[Problem]:
    if not args.image:
        yield Problem(json_path((*place, "image")), "it is empty, so the op will fail", "name an image")
    cmd = args.cmd
    if isinstance(cmd, list) and len(cmd) == 1 and args.entrypoint is None and " " in cmd[0].strip():
        yield Problem(
            json_path((*place, "cmd")),
            "each item of a list is one word, so this whole line is the name of one program",
            "write it as a string, which runs in /bin/sh -c, or give each word its own item",
        )
    yield from _shells(place, args)
    if args.gpu is False and definition.global_ is not None and definition.global_.gpu:
        yield Problem(
            json_path((*place, "gpu")), "false has no effect: global.gpu is true", "remove global.gpu"
        )
    if args.trusted_execution_env is not None:
        yield Problem(
            json_path((*place, "trusted_execution_env")),
            "hosts without such an environment refuse the job; Nosana's published validator refuses the definition",
            _NEWER_NODES,
        )
    for position, resource in enumerate(args.resources or ()):
        item_place = (*place, "resources", position)
        target = getattr(resource, "target", "/")
        if not target.startswith(("/", "%%")) or ".." in target.split("/"):
            yield Problem(
                json_path((*item_place, "target")),
                "it is not an absolute path",
                "start with / and do not use ..",
            )
        if isinstance(resource, S3Resource) and resource.url is None:
            yield Problem(
                json_path((*item_place, "url")),
                "without url there is nothing to fetch",
                "name the S3 address",
            )
        if isinstance(resource, S3BucketsResource) and resource.url is not None:
            yield Problem(
                json_path((*item_place, "buckets")), "buckets has no effect beside url", "remove one of them"
            )
        if isinstance(resource, HuggingFaceResource) and not resource.files:
            yield Problem(
                json_path((*item_place, "files")),
                "Nosana's own hosts fail to fetch a repository without it",
                "list the files",
            )
    created = {other.args.name for other in definition.ops if isinstance(other.args, VolumeArgs)}
    for position, volume in enumerate(args.volumes or ()):
        if volume.name not in created and "%%" not in volume.name:
            yield Problem(
                json_path((*place, "volumes", position, "name")),
                f"no op creates the volume {quoted(volume.name)}",
                "add a container/create-volume op in an earlier stage",
            )


def _shells(place: Place, args: RunArgs) -> Iterator[Problem]:
    """Shells that end at once, or that are not found: the op then ends while its poster waits for its port."""
    entrypoint = [args.entrypoint] if isinstance(args.entrypoint, str) else list(args.entrypoint or ())
    alone = len(entrypoint) == 1 and _SHELL.fullmatch(entrypoint[0]) is not None
    if alone and not args.cmd:
        what = "it runs a shell without a command, which ends at once"
        if args.expose is not None:
            what += ", so nothing will listen on the exposed port"
        yield Problem(
            json_path((*place, "entrypoint")), what, "name the program in cmd, or remove entrypoint"
        )
    words = [*entrypoint, *args.cmd] if isinstance(args.cmd, list) else entrypoint
    for word in words[:1]:
        if _SHELL_LINE.match(word):
            field, position = ("entrypoint", 0) if entrypoint else ("cmd", 0)
            yield Problem(
                json_path(
                    (*place, field, position) if isinstance(getattr(args, field), list) else (*place, field)
                ),
                "this is one word, so it names a program that has a space in its name",
                'write the shell and its flag as two items: ["bash", "-c", …]',
            )


def _ports(place: Place, index: int, args: RunArgs, exposed: dict[int, int]) -> Iterator[Problem]:
    if isinstance(args.expose, ExposedPort):
        yield Problem(
            json_path((*place, "expose")),
            "Nosana's own hosts expose nothing for a single object",
            "write it as a list",
        )
    listed = isinstance(args.expose, list)
    for position, item in enumerate(expose_items(args)):
        item_place: Place = (*place, "expose", position) if listed else (*place, "expose")
        if isinstance(item, str | Spread):
            continue
        port = item.port if isinstance(item, ExposedPort) else item
        if not is_tcp_port(port):
            yield Problem(
                json_path(item_place),
                f"{port} is not a TCP port, so nothing is exposed for it",
                "use 1 to 65535",
            )
            continue
        first = exposed.setdefault(port, index)
        if first != index:
            yield Problem(
                json_path(item_place),
                f"ops[{first}] exposes port {port} too",
                "each op has its own address, so both work",
            )
        for at, check in enumerate((item.health_checks or ()) if isinstance(item, ExposedPort) else ()):
            if check.restart_on_failure and not check.continuous:
                yield Problem(
                    json_path((*item_place, "health_checks", at, "restart_on_failure")),
                    "it never restarts anything: a check that is not continuous runs only until the first success",
                    "set continuous to true",
                )
            for key in ("restart_on_failure", "max_restarts"):
                if key in check.model_fields_set:
                    yield Problem(
                        json_path((*item_place, "health_checks", at, key)),
                        "it works here, but Nosana's published validator refuses the definition",
                        _NEWER_NODES,
                    )


class _LiteralCheck:
    """Finds literals that cannot have a value, as far as the definition alone shows."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._ops = {op.id: op for op in definition.ops}
        self._aliases = frozenset(chain.from_iterable(_aliases(op) for op in definition.ops))
        self._variables = (definition.global_.variables if definition.global_ else None) or {}
        self._stage: dict[str, int] = {}
        for op in definition.ops:
            self._stage.setdefault(op.group, len(self._stage))

    def problems(self, place: Place, op: Operation) -> Iterator[Problem]:
        """Literals in the op's arguments that will have no value when the op starts."""
        dumped = op.args.model_dump(by_alias=True, exclude_unset=True)
        for where, text in texts(dumped):
            for host in _HOST.findall(text) if "://" in text else ():
                if host in self._ops and host != op.id and host.lower() not in self._aliases:
                    yield Problem(
                        json_path((*place, *where)),
                        f"the id of op {quoted(host)} is not a host name",
                        f"write %%ops.{host}.host%%, or give that op an alias",
                    )
            if "%%" not in text:
                continue
            for reference in references(text):
                unresolved = self._unresolved(reference, op)
                if unresolved:
                    reason, hint = unresolved
                    yield Problem(
                        json_path((*place, *where)),
                        f"{quoted(reference.text, 120)}: {reason}, so the op will fail",
                        hint,
                    )
            if _LITERAL_LIKE.search(without_references(text)):
                yield Problem(
                    json_path((*place, *where)),
                    "this is not a literal and stays as text",
                    "literals are %%global.…%% or %%ops.ID.…%%",
                )

    def _unresolved(self, reference: Reference, op: Operation) -> tuple[str, str] | None:
        if reference.variable is not None:
            if not self._variables.get(reference.variable):
                return f"global.variables has no value for {quoted(reference.variable)}", "add it there"
            return None
        if reference.scope == "global":
            name = f"{reference.name}.{reference.path}" if reference.path else reference.name
            return None if name in GLOBAL_NAMES else unknown_global(name)
        target = self._ops.get(reference.name)
        if target is None:
            return unknown_op(reference.name)
        match reference.op_value:
            case None:
                return unknown_op_value(reference.path)
            case ("results", name) if name not in (target.results or {}):
                return f"op {quoted(target.id)} captures no {quoted(name)}", "add it to that op's results"
            case ("results", _) if self._stage[target.group] >= self._stage[op.group]:
                return f"op {quoted(target.id)} has not ended by then", "put it in an earlier stage"
            case ("endpoint", port) if port not in _written_ports(target):
                return f"op {quoted(target.id)} exposes no port {port}", "expose it there"
            case ("deployment_endpoint", _) if self._definition.deployment_id is None:
                return "the job is not part of a deployment", "it needs deployment_id"
        return None


def _written_ports(op: Operation) -> frozenset[str]:
    """The ports in the op's `expose` as text, literals included."""
    items = expose_items(op.args) if isinstance(op.args, RunArgs) else ()
    return frozenset(
        str(item.port if isinstance(item, ExposedPort) else item)
        for item in items
        if not isinstance(item, Spread)
    )


def _aliases(op: Operation) -> Iterator[str]:
    """The op's aliases in lower case."""
    aliases = (op.args.aliases if isinstance(op.args, RunArgs) else None) or ()
    yield from (
        alias.strip().lower() for alias in (aliases.split(",") if isinstance(aliases, str) else aliases)
    )


def _order(definition: Definition) -> Iterator[Problem]:
    problems = list(islice(order_problems(definition), MAX_PROBLEMS))
    for problem in problems:
        yield Problem(
            problem.path, f"{problem.message}; the job will be refused before it starts", problem.hint
        )
    if problems:
        return
    written = {op.id: op.execution.group for op in definition.ops}
    for index, op in enumerate(definition.ops):
        for position, target in enumerate(op.execution.depends_on or ()):
            if written[target] != op.execution.group:
                yield Problem(
                    json_path(("ops", index, "execution", "depends_on", position)),
                    f"{quoted(target)} is in an earlier stage and has ended by then; "
                    "Nosana's own hosts refuse such a job",
                    "remove it: stages already run one after the other",
                )
