"""Parts of a valid definition that this version does not serve: it refuses them and never ignores one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nosana_operator.definition import Definition, Operation, Problem, RunArgs
from nosana_operator.definition.literals import Place
from nosana_operator.definition.model import REMOVE_IF_EMPTY
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.container import args_problems
from nosana_operator.workload.context import JobContext, literals
from nosana_operator.workload.storage import storage_problems

_LATER: Final = "not served by this version yet"


@dataclass(frozen=True, slots=True)
class GpuDemand:
    """The GPUs that the largest stage of a definition needs at once, and those of the job's slot."""

    stage: str
    ops: tuple[str, ...]
    needed: int
    slot: int

    @property
    def exceeds(self) -> bool:
        """Whether the definition cannot run in the slot."""
        return self.needed > self.slot

    @property
    def message(self) -> str:
        """The problem in one sentence, with the remedy."""
        named = ", ".join(map(quoted, self.ops))
        return (
            f"stage {quoted(self.stage)} needs {self.needed} GPUs at once for {named}, but the job's slot "
            f"has {self.slot}; give each op with gpu a stage of its own (execution.group)"
        )


def gpu_demand(ctx: JobContext) -> GpuDemand | None:
    """The stage with the most GPU ops; None when no op needs a GPU.

    Each GPU op gets `gpu.count` GPUs, a slot has as many, and the ops of a stage run at the same time:
    `depends_on` waits until an op is ready, not until it ends.
    """
    stages: dict[str, list[str]] = {}
    for op in ctx.definition.ops:
        if isinstance(op.args, RunArgs) and ctx.uses_gpu(op.args):
            stages.setdefault(op.group, []).append(op.id)
    if not stages:
        return None
    stage, ops = max(stages.items(), key=lambda item: len(item[1]))
    return GpuDemand(stage, tuple(ops), len(ops) * ctx.spec.gpu.count, ctx.spec.gpu.count)


def unsupported_logistics(definition: Definition) -> list[Problem]:
    """The reasons why a market's confidential job cannot be served: deliveries that need the node's own API."""
    problems: list[Problem] = []
    if definition.logistics is None:
        return problems
    for side in ("send", "receive"):
        delivery = getattr(definition.logistics, side)
        if delivery.type == "api-listen":
            message = "api-listen is not served by this host"
            problems.append(Problem(f"logistics.{side}.type", message, "use type api with an endpoint"))
        elif not delivery.args.endpoint:
            problems.append(Problem(f"logistics.{side}.args.endpoint", "is required with type api"))
    return problems


def unsupported(ctx: JobContext) -> list[Problem]:
    """Everything in the job's definition that cannot be served as its author meant it.

    Fields that Nosana's own nodes ignore too (`meta`, `global.image`, the type of a port) are not reported.
    """
    return list(dict.fromkeys(_unsupported(ctx)))


def _unsupported(ctx: JobContext) -> Iterator[Problem]:
    if ctx.definition.logistics is not None and ctx.spec.run is None:
        yield Problem(
            "logistics",
            "a private job has no poster who could send the definition or receive the result",
            "remove logistics and add the ops",
        )
    yield from storage_problems(ctx)
    for index, op in enumerate(ctx.definition.ops):
        place: Place = ("ops", index)
        if isinstance(op.args, RunArgs):
            yield from _unsupported_args(ctx, (*place, "args"), op.args)
            yield from args_problems(ctx, index, op.args)
        yield from _unsupported_literals(ctx, place, op)


def _unsupported_args(ctx: JobContext, place: Place, args: RunArgs) -> Iterator[Problem]:
    if ctx.fetching.image is None and any(item != REMOVE_IF_EMPTY for item in args.resources or ()):
        yield Problem(
            json_path((*place, "resources")),
            "this operator cannot fetch resources: it has no image for that",
            "set fetch.image in the operator's settings",
        )
    if args.trusted_execution_env and ctx.trusted_runtime_class is None:
        yield Problem(
            json_path((*place, "trusted_execution_env")),
            "this host offers no trusted execution environment",
            "set isolation.trustedRuntimeClass in the operator's settings, or remove the field",
        )
    if args.private and args.expose not in (None, []) and ctx.spec.run is not None:
        yield Problem(
            json_path((*place, "private")),
            f"giving a poster the host names of private ports is {_LATER}",
            "remove private; the name then follows from the job's address",
        )


def _unsupported_literals(ctx: JobContext, place: Place, op: Operation) -> Iterator[Problem]:
    for where, literal in literals(op):
        at, text = json_path((*place, *where)), quoted(literal.text, 120)
        kind = literal.path.partition(".")[0]
        public = literal.scope == "ops" and kind in ("endpoint", "deployment_endpoint")
        if ctx.domain is None and literal.variable is None and (public or literal.name == "frps_address"):
            yield Problem(
                at,
                f"the literal {text} needs a domain for exposed ports, and there is none",
                "set spec.exposure.domain, or exposure.domain in the operator's settings",
            )
