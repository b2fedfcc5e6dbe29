"""Which op starts when: stages one after the other, dependencies inside a stage.

(docs/protocol/job-definition.md#stages)

`plan` fixes the order before anything starts; the caller runs `next_ops` whenever an op's progress changes.
Both are pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from nosana_operator.definition.errors import MAX_PROBLEMS, DefinitionError, Problem
from nosana_operator.definition.model import Definition, Operation, RunArgs
from nosana_operator.json_paths import json_path, quoted


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """One op's position in the order.

    `waits_for`: ops of the same stage that must be ready before it starts. `stops_with`: it is stopped when
    any of these ends. `timeout`: seconds from its container's start, None for no limit.
    """

    id: str
    index: int
    waits_for: tuple[str, ...] = ()
    stops_with: tuple[str, ...] = ()
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Ops that run at the same time, in the definition's order; `name` is their group or the only op's id."""

    name: str
    ops: tuple[PlannedOp, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages in the order in which they run; none for a definition without ops."""

    stages: tuple[Stage, ...]

    def stage_of(self, op_id: str) -> Stage:
        """The stage of an op; KeyError when the plan has no such op."""
        for stage in self.stages:
            if any(op.id == op_id for op in stage.ops):
                return stage
        raise KeyError(op_id)


@dataclass(frozen=True, slots=True)
class OpProgress:
    """The progress of an op that was started; ops that were never started have no entry.

    `ready`: it has been ready once, that is, its container ran (no health checks) or all checks passed in one
    round. An op that ended before that keeps `ready=False`: it never releases its dependents.
    """

    ready: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Halt:
    """An op that has to stop or can never start, with the reason as a sentence for people."""

    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now. `stage` is the running stage (None when every stage has ended).

    `start`: start these, each exactly once. `stop`: stop these running ops. `never`: these were not started
    and never can be; record them as ended (failed, with the reason), or they are returned again.
    """

    stage: str | None
    start: tuple[str, ...] = ()
    stop: tuple[Halt, ...] = ()
    never: tuple[Halt, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every op of every stage has ended."""
        return self.stage is None


def plan(definition: Definition) -> Plan:
    """Put the ops of a checked definition in order.

    Stages follow the first appearance of their group; an op without group is a stage of its own. A dependency
    in an earlier stage counts as met. Raises DefinitionError, with every problem, for what could never run:
    unknown or own id in `depends_on`, a target in a later stage, `stop_if_dependent_stops` across stages,
    cycles, and args that do not fit the op's type.
    """
    problems = list(islice(order_problems(definition), MAX_PROBLEMS))
    if problems:
        raise DefinitionError(problems)
    groups: dict[str, list[int]] = {}
    for index, op in enumerate(definition.ops):
        groups.setdefault(op.group, []).append(index)
    waits = _waits(definition)
    return Plan(
        tuple(
            Stage(name, tuple(_planned(definition.ops[index], index, waits) for index in members))
            for name, members in groups.items()
        )
    )


def order_problems(definition: Definition) -> Iterator[Problem]:
    """Everything that keeps a definition, valid by Nosana's validator, from ever running to its end."""
    stage_at: dict[str, int] = {}
    for op in definition.ops:
        stage_at.setdefault(op.group, len(stage_at))
    stage_of = {op.id: stage_at[op.group] for op in definition.ops}
    for index, op in enumerate(definition.ops):
        if isinstance(op.args, RunArgs) != (op.type == "container/run"):
            required = "`image`" if op.type == "container/run" else "only `name`"
            yield Problem(
                json_path(["ops", index, "args"]), f"a {op.type} op needs {required} here", "or change `type`"
            )
        for position, target in enumerate(op.execution.depends_on or ()):
            reason = _bad_target(op, target, stage_of)
            if reason:
                yield Problem(json_path(["ops", index, "execution", "depends_on", position]), *reason)
    yield from _cycles(definition)


def next_ops(order: Plan, progress: Mapping[str, OpProgress]) -> Decision:
    """Decide from the ops' progress what starts, stops, or can never start.

    It starts an op only when every op that it waits for has been ready and it was never started. With the
    starts recorded in `progress`, it never names an op twice.
    """
    for stage in order.stages:
        if not all(_ended(progress, op.id) for op in stage.ops):
            return _within(stage, progress)
    return Decision(None)


def _within(stage: Stage, progress: Mapping[str, OpProgress]) -> Decision:
    never: dict[str, str] = {}

    def ended(op_id: str) -> bool:
        return op_id in never or _ended(progress, op_id)

    # An op that can never start ends the ops that wait for it, so repeat until nothing changes.
    changed = True
    while changed:
        changed = False
        for op in stage.ops:
            if op.id not in progress and op.id not in never:
                reason = _never_reason(op, ended, progress)
                if reason:
                    never[op.id] = reason
                    changed = True

    start = [
        op.id
        for op in stage.ops
        if op.id not in progress
        and op.id not in never
        and all(_ready(progress, target) for target in op.waits_for)
    ]
    stop = [
        Halt(op.id, f"it stops with {quoted(target)}, which ended")
        for op in stage.ops
        if op.id in progress and not progress[op.id].ended
        for target in [next((target for target in op.stops_with if ended(target)), None)]
        if target is not None
    ]
    return Decision(stage.name, tuple(start), tuple(stop), tuple(Halt(*halt) for halt in never.items()))


def _never_reason(
    op: PlannedOp, ended: Callable[[str], bool], progress: Mapping[str, OpProgress]
) -> str | None:
    for target in op.waits_for:
        if ended(target) and not _ready(progress, target):
            return f"it waits for {quoted(target)}, which ended before it was ready"
    for target in op.stops_with:
        if ended(target):
            return f"it stops with {quoted(target)}, which ended before this op started"
    return None


def _ended(progress: Mapping[str, OpProgress], op_id: str) -> bool:
    return op_id in progress and progress[op_id].ended


def _ready(progress: Mapping[str, OpProgress], op_id: str) -> bool:
    return op_id in progress and progress[op_id].ready


def _planned(op: Operation, index: int, waits: Mapping[str, tuple[str, ...]]) -> PlannedOp:
    limit = op.execution.timeout
    return PlannedOp(
        id=op.id,
        index=index,
        waits_for=waits[op.id],
        stops_with=_targets(op) if op.execution.stop_if_dependent_stops else (),
        timeout=limit if limit is not None and limit > 0 else None,
    )


def _targets(op: Operation) -> tuple[str, ...]:
    return tuple(dict.fromkeys(op.execution.depends_on or ()))


def _waits(definition: Definition) -> dict[str, tuple[str, ...]]:
    """Op → ops of its own stage that it waits for. `stop_if_dependent_stops` reverses it: the listed ops wait."""
    group = {op.id: op.group for op in definition.ops}
    waits: dict[str, dict[str, None]] = {op.id: {} for op in definition.ops}
    for op in definition.ops:
        for target in _targets(op):
            if group.get(target) != op.group:
                continue
            first, second = (op.id, target) if op.execution.stop_if_dependent_stops else (target, op.id)
            waits[second][first] = None
    return {op_id: tuple(first) for op_id, first in waits.items()}


def _bad_target(op: Operation, target: str, stage_of: Mapping[str, int]) -> tuple[str, str] | None:
    if target == op.id:
        return "an op cannot depend on itself", "remove it"
    if target not in stage_of:
        return (
            f"there is no op {quoted(target)}",
            f"name one of: {', '.join(map(quoted, list(stage_of)[:8]))}",
        )
    own_stage, target_stage = stage_of[op.id], stage_of[target]
    if op.execution.stop_if_dependent_stops and own_stage != target_stage:
        return (
            f"{quoted(target)} runs in another stage, but stop_if_dependent_stops needs both ops in one",
            "give both the same execution.group",
        )
    if target_stage > own_stage:
        return (
            f"{quoted(target)} runs in a later stage, so it cannot be ready before this op starts",
            "give both the same execution.group, or move the dependency's group first",
        )
    return None


def _cycles(definition: Definition) -> Iterator[Problem]:
    """One problem for each cycle of ops that wait for each other, with the whole cycle."""
    waits = _waits(definition)
    index_of = {op.id: index for index, op in enumerate(definition.ops)}
    visited: set[str] = set()
    for start in waits:
        path: list[str] = []
        # Depth-first without recursion; with at most 64 ops a list is fast enough for the path.
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in visited:
            stack.append((start, iter(waits[start])))
            path.append(start)
        while stack:
            target = next(stack[-1][1], None)
            if target is None:
                visited.add(stack.pop()[0])
                path.pop()
            elif target in path:
                # An op naming itself has its own problem already.
                if target != path[-1]:
                    cycle = [*path[path.index(target) :], target]
                    yield Problem(
                        json_path(["ops", index_of[target], "execution", "depends_on"]),
                        f"ops wait for each other in a cycle: {' → '.join(map(quoted, cycle))}",
                        "remove one of these dependencies",
                    )
            elif target not in visited:
                stack.append((target, iter(waits[target])))
                path.append(target)
