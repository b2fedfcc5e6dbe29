"""Stages and dependencies: the plan, and each decision on the way through it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.definition import (
    Decision,
    DefinitionError,
    OpProgress,
    Plan,
    next_ops,
    parse,
    plan,
    validate,
)

RUNNING = OpProgress()
READY = OpProgress(ready=True)
ENDED = OpProgress(ready=True, ended=True)
ENDED_BEFORE_READY = OpProgress(ended=True)

Ops = dict[str, dict[str, Any]]


def _definition(ops: Ops) -> Any:
    return parse(
        {
            "version": "0.1",
            "type": "container",
            "ops": [
                {"type": "container/run", "id": name, "args": {"image": "i"}, "execution": execution}
                for name, execution in ops.items()
            ],
        }
    )


def _plan(**ops: dict[str, Any]) -> Plan:
    return plan(_definition(ops))


def _one(*depends_on: str, group: str = "g", **more: Any) -> dict[str, Any]:
    return {"group": group, "depends_on": list(depends_on), **more}


FLAG: dict[str, Any] = {"stop_if_dependent_stops": True}


@pytest.mark.parametrize(
    ("ops", "stages"),
    [
        ({}, []),
        ({"a": {}, "b": {}}, [("a", ["a"]), ("b", ["b"])]),
        ({"a": {"group": "g"}, "b": {}, "c": {"group": "g"}}, [("g", ["a", "c"]), ("b", ["b"])]),
        ({"a": {"group": "b"}, "b": {}}, [("b", ["a", "b"])]),
        ({"a": {"group": ""}, "b": {"group": ""}}, [("a", ["a"]), ("b", ["b"])]),
    ],
)
def test_stages_follow_the_first_appearance_of_their_group(
    ops: Ops, stages: list[tuple[str, list[str]]]
) -> None:
    made = plan(_definition(ops))

    assert [(stage.name, [op.id for op in stage.ops]) for stage in made.stages] == stages


def test_a_planned_op_knows_its_place_among_all_ops() -> None:
    made = _plan(a={"group": "g"}, b={}, c={"group": "g"})

    assert {op.id: op.index for stage in made.stages for op in stage.ops} == {"a": 0, "c": 2, "b": 1}
    assert made.stage_of("c").name == "g"
    with pytest.raises(KeyError):
        made.stage_of("z")


@pytest.mark.parametrize(("given_s", "limit"), [(None, None), (0, None), (-5, None), (30, 30), (0.5, 0.5)])
def test_timeout_of_nothing_or_less_is_no_limit(given_s: float | None, limit: float | None) -> None:
    made = _plan(a={} if given_s is None else {"timeout": given_s})

    assert made.stages[0].ops[0].timeout == limit


@pytest.mark.parametrize(
    ("ops", "waits", "stops"),
    [
        pytest.param({"a": _one(), "b": _one("a")}, {"b": ("a",)}, {}, id="waits"),
        pytest.param(
            {"b": _one("a"), "a": _one()}, {"b": ("a",)}, {}, id="order in the list does not matter"
        ),
        pytest.param({"a": _one(), "b": _one("a", "a")}, {"b": ("a",)}, {}, id="named twice counts once"),
        pytest.param({"a": {}, "b": {"depends_on": ["a"]}}, {}, {}, id="an earlier stage counts as met"),
        pytest.param(
            {"s": _one("c", **FLAG), "c": _one()},
            {"c": ("s",)},
            {"s": ("c",)},
            id="flag turns the arrow round",
        ),
        pytest.param({"s": {"group": "g", **FLAG}, "c": _one()}, {}, {}, id="flag alone does nothing"),
        pytest.param(
            {"s": _one("c", **FLAG), "c": _one("d"), "d": _one()},
            {"c": ("s", "d")},
            {"s": ("c",)},
            id="flag and plain dependency together",
        ),
    ],
)
def test_who_waits_for_whom(
    ops: Ops, waits: dict[str, tuple[str, ...]], stops: dict[str, tuple[str, ...]]
) -> None:
    made = [op for stage in plan(_definition(ops)).stages for op in stage.ops]

    assert {op.id: op.waits_for for op in made if op.waits_for} == waits
    assert {op.id: op.stops_with for op in made if op.stops_with} == stops


@pytest.mark.parametrize(
    ("ops", "path", "words"),
    [
        ({"a": _one("a")}, "ops[0].execution.depends_on[0]", "cannot depend on itself"),
        ({"a": _one(), "b": _one("a", "zzz")}, "ops[1].execution.depends_on[1]", 'no op "zzz"'),
        ({"a": {"depends_on": ["b"]}, "b": {}}, "ops[0].execution.depends_on[0]", "later stage"),
        ({"a": {}, "b": {"depends_on": ["a"], **FLAG}}, "ops[1].execution.depends_on[0]", "another stage"),
        ({"a": _one("b"), "b": _one("a")}, "ops[0].execution.depends_on", '"a" → "b" → "a"'),
        ({"a": _one("b"), "b": _one("c"), "c": _one("b")}, "ops[1].execution.depends_on", '"b" → "c" → "b"'),
        ({"a": _one("b", **FLAG), "b": _one("a", **FLAG)}, "ops[0].execution.depends_on", "cycle"),
    ],
)
def test_what_can_never_run_is_refused_before_anything_starts(ops: Ops, path: str, words: str) -> None:
    definition = _definition(ops)

    with pytest.raises(DefinitionError) as caught:
        plan(definition)

    assert [problem.path for problem in caught.value.problems] == [path]
    assert words in caught.value.problems[0].message
    warnings = validate(definition.model_dump(by_alias=True, exclude_unset=True)).warnings
    assert any(warning.path == path and "refused before it starts" in warning.message for warning in warnings)


@pytest.mark.parametrize(
    ("kind", "args"), [("container/create-volume", {"image": "i"}), ("container/run", {"name": "v"})]
)
def test_args_have_to_fit_the_type(kind: str, args: dict[str, str]) -> None:
    definition = parse(
        {"version": "0.1", "type": "container", "ops": [{"type": kind, "id": "a", "args": args}]}
    )

    with pytest.raises(DefinitionError) as caught:
        plan(definition)

    assert caught.value.problems[0].path == "ops[0].args"


def test_a_diamond_of_two_cycles_is_found_once_each() -> None:
    ops = {"a": _one("b"), "b": _one("a"), "c": _one("d"), "d": _one("c")}

    with pytest.raises(DefinitionError) as caught:
        plan(_definition(ops))

    assert len(caught.value.problems) == 2


DIAMOND = _plan(a=_one(), b=_one("a"), c=_one("a"), d=_one("b", "c"), last={})
PAIR = _plan(server=_one("client", **FLAG), client=_one(), after={})
CHAIN = _plan(a=_one(), b=_one("a"), c=_one("b"))


def _never(*ops: str) -> Any:
    return lambda decision: (
        tuple(halt.op for halt in decision.never) == ops and all(halt.reason for halt in decision.never)
    )


@pytest.mark.parametrize(
    ("order", "progress", "stage", "start", "stop", "never"),
    [
        pytest.param(Plan(()), {}, None, (), (), (), id="no ops: done"),
        pytest.param(DIAMOND, {}, "g", ("a",), (), (), id="first"),
        pytest.param(DIAMOND, {"a": RUNNING}, "g", (), (), (), id="not ready yet"),
        pytest.param(DIAMOND, {"a": READY}, "g", ("b", "c"), (), (), id="ready releases both"),
        pytest.param(DIAMOND, {"a": READY, "b": READY}, "g", ("c",), (), (), id="c was not started yet"),
        pytest.param(DIAMOND, {"a": READY, "b": READY, "c": RUNNING}, "g", (), (), (), id="waits for all"),
        pytest.param(DIAMOND, {"a": READY, "b": READY, "c": READY}, "g", ("d",), (), (), id="all ready"),
        pytest.param(DIAMOND, {"a": ENDED, "b": ENDED, "c": READY}, "g", ("d",), (), (), id="ended after ready counts"),
        pytest.param(DIAMOND, {"a": ENDED_BEFORE_READY}, "g", (), (), ("b", "c", "d"), id="never, and its followers"),
        pytest.param(
            DIAMOND, {"a": READY, "b": ENDED_BEFORE_READY, "c": READY}, "g", (), (), ("d",), id="one of two failed"
        ),
        pytest.param(
            DIAMOND, dict.fromkeys("abcd", ENDED), "last", ("last",), (), (), id="the next stage waits for the end of all"
        ),
        pytest.param(DIAMOND, dict.fromkeys("abc", ENDED) | {"d": READY}, "g", (), (), (), id="one still runs"),
        pytest.param(
            DIAMOND, dict.fromkeys("abcd", ENDED_BEFORE_READY), "last", ("last",), (), (), id="failures do not hold stages"
        ),
        pytest.param(DIAMOND, dict.fromkeys(("a", "b", "c", "d", "last"), ENDED), None, (), (), (), id="done"),
        pytest.param(CHAIN, {"a": ENDED_BEFORE_READY, "b": ENDED_BEFORE_READY}, "g", (), (), ("c",), id="recorded"),
        pytest.param(PAIR, {}, "g", ("server",), (), (), id="the flagged op starts first"),
        pytest.param(PAIR, {"server": RUNNING}, "g", (), (), (), id="the listed op waits for it"),
        pytest.param(PAIR, {"server": READY}, "g", ("client",), (), (), id="and starts when it is ready"),
        pytest.param(PAIR, {"server": READY, "client": READY}, "g", (), (), (), id="both run"),
        pytest.param(PAIR, {"server": READY, "client": ENDED}, "g", (), ("server",), (), id="the server stops with it"),
        pytest.param(PAIR, {"server": READY, "client": ENDED_BEFORE_READY}, "g", (), ("server",), (), id="however it ended"),
        pytest.param(PAIR, {"server": ENDED, "client": ENDED}, "after", ("after",), (), (), id="stage over"),
        pytest.param(PAIR, {"server": ENDED_BEFORE_READY}, "g", (), (), ("client",), id="the server never came up"),
        pytest.param(
            _plan(s=_one("c", **FLAG), c=_one("d"), d=_one()),
            {"s": READY, "d": ENDED_BEFORE_READY}, "g", (), ("s",), ("c",), id="a server of an op that can never start stops",
        ),
        pytest.param(
            _plan(s=_one("c", **FLAG), c=_one()), {"c": ENDED}, "g", (), (), ("s",), id="nothing left to serve",
        ),
    ],
)  # fmt: skip
def test_decision(
    order: Plan,
    progress: dict[str, OpProgress],
    stage: str | None,
    start: tuple[str, ...],
    stop: tuple[str, ...],
    never: tuple[str, ...],
) -> None:
    decision = next_ops(order, progress)

    assert (decision.stage, decision.start) == (stage, start)
    assert tuple(halt.op for halt in decision.stop) == stop
    assert tuple(halt.op for halt in decision.never) == never
    assert all(halt.reason for halt in (*decision.stop, *decision.never))
    assert decision.done is (stage is None)


NAMES = "abcdefg"


@st.composite
def _plans(draw: st.DrawFn) -> Plan:
    """Any plan: groups at random, dependencies only backwards in a random order, so that no cycle arises."""
    names = draw(st.permutations(NAMES[: draw(st.integers(1, len(NAMES)))]))
    group = {name: draw(st.sampled_from(["x", "y", name])) for name in names}
    ops: Ops = {}
    for position, name in enumerate(names):
        same_stage = [other for other in names[:position] if group[other] == group[name]]
        targets = draw(st.lists(st.sampled_from(same_stage), unique=True)) if same_stage else []
        flagged = bool(targets) and draw(st.booleans())
        ops[name] = {"group": group[name], "depends_on": targets, "stop_if_dependent_stops": flagged}
    order = draw(st.permutations(list(ops)))
    try:
        return plan(_definition({name: ops[name] for name in order}))
    except DefinitionError:
        # A flag can turn an arrow into a cycle.
        return draw(_plans())


@given(order=_plans(), choose=st.data())
def test_any_run_through_a_plan_starts_each_op_once_after_its_dependencies_and_ends(
    order: Plan, choose: st.DataObject
) -> None:
    planned = {op.id: op for stage in order.stages for op in stage.ops}
    stage_index = {op.id: index for index, stage in enumerate(order.stages) for op in stage.ops}
    progress: dict[str, OpProgress] = {}
    started: list[str] = []
    refused: list[str] = []
    for _ in range(len(planned) * 6 + 1):
        decision: Decision = next_ops(order, progress)
        for op in decision.start:
            assert op not in started
            assert op not in refused
            assert all(progress[target].ready for target in planned[op].waits_for)
            assert all(progress[other].ended for other in planned if stage_index[other] < stage_index[op])
            started.append(op)
            progress[op] = OpProgress()
        for halt in decision.never:
            assert halt.op not in started
            assert halt.op not in refused
            refused.append(halt.op)
            progress[halt.op] = ENDED_BEFORE_READY
        for halt in decision.stop:
            assert not progress[halt.op].ended
            progress[halt.op] = OpProgress(ready=progress[halt.op].ready, ended=True)
        if decision.done:
            break
        alive = [op for op, state in progress.items() if not state.ended]
        if alive and not (decision.start or decision.never or decision.stop):
            op = choose.draw(st.sampled_from(alive))
            ready = progress[op].ready
            progress[op] = choose.draw(
                st.sampled_from([READY, ENDED] if ready else [READY, ENDED_BEFORE_READY, ENDED])
            )
            if ready and progress[op] is READY:
                progress[op] = ENDED
        else:
            # Nothing runs and nothing was decided would be a hang.
            assert alive or decision.start or decision.never or decision.stop
    assert sorted(started + refused) == sorted(planned)
    assert all(state.ended for state in progress.values())
