"""Literals and markers: the 52 recorded cases, and what they do not say."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.definition import Context, LiteralError, OpFacts, RunArgs, interpolate, parse
from nosana_operator.definition.arguments import interpolate_args

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "literals.json").read_bytes())


def _context() -> Context:
    store = VECTORS["store"]
    values = store["global"]
    return Context(
        job=values["job"],
        host=values["host"],
        project=values["project"],
        frps_address=values["frps_address"],
        variables=values["variables"],
        ops={
            name: OpFacts(
                host=facts["host"],
                endpoints=facts.get("endpoint", {}),
                deployment_endpoint=facts.get("deployment_endpoint"),
                results=facts["results"],
            )
            for name, facts in store["ops"].items()
            if name != "variables"
        },
    )


def test_all_cases_are_here() -> None:
    assert len(VECTORS["cases"]) == 52


@pytest.mark.parametrize("name", list(VECTORS["cases"]))
def test_recorded_case(name: str) -> None:
    case = VECTORS["cases"][name]
    expected = case.get("ours", case["result"])

    if isinstance(expected, str):
        literal = expected.split('"')[1]
        with pytest.raises(LiteralError) as caught:
            interpolate_args(case["args"], _context(), op_id="z")
        assert any(literal in problem.message for problem in caught.value.problems)
    else:
        assert interpolate_args(case["args"], _context()) == expected


def _op(**args: Any) -> Any:
    return parse(
        {"version": "0.1", "type": "container", "ops": [{"type": "container/run", "id": "z", "args": args}]}
    ).ops[0]


def _run(context: Context | None = None, **args: Any) -> RunArgs:
    run = interpolate(_op(image="i", **args), context or _context())
    assert isinstance(run, RunArgs)
    return run


@pytest.mark.parametrize(
    ("given_args", "expected"),
    [
        ({"cmd": "%%ops.variables.MODEL%%"}, "m:1"),
        ({"cmd": "%%global.job%%/%%ops.a.host%%"}, "JOB1/JOB1-0"),
        ({"cmd": "%%ops.a.host%%%%ops.b.host%%"}, "JOB1-0JOB1-1"),
        ({"cmd": "%%ops.a%%"}, "%%ops.a%%"),
        ({"cmd": "%%other.a.b%%"}, "%%other.a.b%%"),
        ({"cmd": "50%% of %%global.host%%"}, "50%% of NODE1"),
        ({"cmd": ["%%ops.a.results.js%%"]}, ['[{"port":9000}]']),
    ],
)
def test_text(given_args: dict[str, Any], expected: Any) -> None:
    assert _run(**given_args).cmd == expected


@pytest.mark.parametrize(
    ("expose", "expected"),
    [
        ("%%ops.p.results.ports%%", [80, 81]),
        ("%%ops.p.results.no%%", []),
        ([1, "%%ops.p.results.ports%%"], [1, 80, 81]),
        ({"__spread__": "%%ops.p.results.ports%%"}, [80, 81]),
        ({"__spread__": "%%ops.p.results.json%%"}, [80, 81]),
        ([{"__spread__": "%%ops.p.results.json%%"}, 1], [80, 81, 1]),
    ],
)
def test_captured_ports_are_numbers(expose: Any, expected: Any) -> None:
    results: dict[str, Any] = {"ports": ["80", "81"], "no": [], "json": ["[80, 81]"]}
    context = Context("J", "H", "P", "F", ops={"p": OpFacts("h", results=results)})

    assert _run(context, expose=expose).expose == expected


@pytest.mark.parametrize(
    ("args", "path", "words"),
    [
        ({"cmd": ["x", "%%ops.q.host%%"]}, "args.cmd[1]", 'no op "q"'),
        ({"env": {"A B": "%%global.variables.NOPE%%"}}, 'args.env["A B"]', 'has no "NOPE"'),
        ({"expose": "%%ops.a.results.one%%"}, "expose", "port number"),
        ({"expose": [80, "%%ops.a.results.eighty%%"]}, "expose[1]", "more than once"),
        ({"expose": ["%%ops.bad%%"]}, "expose", "port number"),
        ({"resources": [{"__spread__": "%%ops.a.results.arr%%"}]}, "resources[0]", "__remove-if-empty__"),
        ({"resources": [{"__spread__": "%%ops.a.results.res%%"}]}, "resources[0].target", "is required"),
        (
            {"resources": [{"__spread__": "%%ops.a.results.c%%", "chunked": True}]},
            "resources[0]",
            "must be a resource",
        ),
        (
            {"resources": [{"__spread__": "%%ops.a.results.two%%", "chunked": True}]},
            "args.resources[0]",
            "not JSON",
        ),
        ({"env": {"__pairs__": "%%ops.a.results.js%%"}}, "args.env", "array of objects with key and value"),
        ({"cmd": "%%global.variables.NESTED%%"}, "args.cmd", "contains a literal itself"),
        ({"cmd": "%%ops.a.deployment_endpoint%%"}, "args.cmd", "not part of a deployment"),
        ({"cmd": "%%ops.a.container_ip%%"}, "args.cmd", "no address yet"),
        ({"cmd": "%%ops.a.endpoint%%"}, "args.cmd", "an op has no value"),
    ],
)
def test_an_op_fails_with_the_place_and_the_reason(args: dict[str, Any], path: str, words: str) -> None:
    results: dict[str, Any] = {
        "one": ["x"], "two": ["x", "y"], "eighty": ["80"], "arr": ['["p","q"]'], "js": ['[{"port":1}]'],
        "c": ['[{"port":1},', '{"port":2}]'], "res": ['[{"type":"S3"}]'],
    }  # fmt: skip
    context = Context(
        "J", "H", "P", "F", variables={"NESTED": "a%%global.job%%"}, ops={"a": OpFacts("h", results=results)}
    )

    with pytest.raises(LiteralError) as caught:
        interpolate(_op(image="i", **args), context)

    assert caught.value.op_id == "z"
    assert str(caught.value).startswith('op "z" cannot start: ')
    assert (caught.value.problems[0].path, words in str(caught.value.problems[0])) == (path, True), (
        caught.value
    )


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(LiteralError) as caught:
        interpolate_args({"cmd": ["%%ops.q.host%%"], "env": {"A": "%%global.nope%%"}}, _context(), op_id="z")

    assert [problem.path for problem in caught.value.problems] == ["args.cmd[0]", "args.env.A"]


def test_captured_text_cannot_make_the_arguments_grow_without_bound() -> None:
    context = Context("J", "H", "P", "F", ops={"a": OpFacts("h", results={"big": ["x" * 1000] * 500})})

    with pytest.raises(LiteralError, match="grow beyond"):
        _run(context, cmd=["%%ops.a.results.big%%"] * 100)


def test_a_groups_missing_capture_is_empty_text() -> None:
    context = Context("J", "H", "P", "F", ops={"a": OpFacts("h", results={"r": ["x", None]})})

    assert _run(context, cmd=["%%ops.a.results.r%%"]).cmd == ["x", ""]
    assert _run(context, cmd="%%ops.a.results.r%%").cmd == "x "


def test_a_secret_value_is_never_in_an_error() -> None:
    context = Context(
        "J", "H", "P", "F", variables={"V": "hunter2"}, ops={"a": OpFacts("h", results={"k": ["hunter2"]})}
    )

    with pytest.raises(LiteralError) as caught:
        _run(context, expose="%%ops.a.results.k%%", env={"__spread__": "%%global.variables.V%%"})

    assert "hunter2" not in str(caught.value)
    assert not any("hunter2" in str(problem) for problem in caught.value.problems)


def test_a_volumes_name_may_hold_a_literal() -> None:
    definition = parse(
        '{"version":"0.1","type":"container","ops":[{"type":"container/create-volume","id":"v","args":{"name":"d-%%global.job%%"}}]}'
    )

    assert interpolate(definition.ops[0], _context()).model_dump() == {"name": "d-JOB1"}


_PIECES = st.sampled_from(
    ["%%global.job%%", "%%ops.a.host%%", "%%global.variables.N%%", "%", "%%", "a", " ", "é", "{", "."]
)
_VALUES = {"%%global.job%%": "JOB1", "%%ops.a.host%%": "JOB1-0", "%%global.variables.N%%": "3"}


@given(st.lists(st.text(alphabet="abc {}[]\"',:é\n"), max_size=5))
def test_text_without_literals_is_kept_to_the_character(texts: list[str]) -> None:
    assert interpolate_args({"cmd": texts, "env": {"A": "".join(texts)}}, _context()) == {
        "cmd": texts,
        "env": {"A": "".join(texts)},
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(list(_VALUES)), st.text(alphabet="ab -/é{}\n", max_size=4)), max_size=6
    )
)
def test_each_literal_is_replaced_and_nothing_else_changes(pieces: list[tuple[str, str]]) -> None:
    text = "".join(literal + plain for literal, plain in pieces)

    assert interpolate_args({"cmd": text}, _context())["cmd"] == "".join(
        _VALUES[literal] + plain for literal, plain in pieces
    )


@given(st.lists(_PIECES, max_size=8).map("".join))
def test_any_mixture_is_replaced_or_refused_by_name(text: str) -> None:
    with suppress(LiteralError):
        assert isinstance(interpolate_args({"cmd": text}, _context())["cmd"], str)
