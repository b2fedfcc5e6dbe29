"""A definition's budget: what Kubernetes, the CRDs and a result can hold is checked before anything is made of it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from nosana_operator.definition import (
    LIMITS,
    MAX_OPS,
    Context,
    DefinitionError,
    LiteralError,
    OpFacts,
    interpolate,
    limits,
    parse,
    validate,
)
from nosana_operator.definition.errors import MAX_PROBLEMS
from nosana_operator.definition.literals import GrowthError, replace
from nosana_operator.definition.rules import JOB_LITERAL, endpoint_length

Body = dict[str, Any]


def run(name: str = "a", **more: Any) -> Body:
    op = {key: more.pop(key) for key in ("results", "execution") if key in more}
    return {"type": "container/run", "id": name, "args": {"image": "x", **more}, **op}  # type: ignore[dict-item]


def whole(*ops: Body, **more: Any) -> Body:
    return {"version": "0.1", "type": "container", "ops": list(ops), **more}


def many_ports(count: int) -> Body:
    """A job with that many ports over four ops."""
    share = [list(range(1, count // 4 + 1))] * 3 + [list(range(1, count - 3 * (count // 4) + 1))]
    return whole(*(run(f"op-{n}", expose=ports) for n, ports in enumerate(share)))


def checked(count: int) -> Body:
    check = {"type": "websocket", "expected_response": "x", "continuous": False}
    return whole(run(expose=[{"port": 80, "health_checks": [check] * count}]))


def stub(length: int) -> Body:
    """A confidential job whose endpoint has that many characters once its literals are replaced."""
    endpoint = "https://x/" + JOB_LITERAL * 20
    endpoint += "x" * (length - endpoint_length(endpoint))
    side = {"type": "api", "args": {"endpoint": endpoint}}
    return whole(logistics={"send": side, "receive": side})


def volumes(count: int) -> Body:
    return whole(
        *({"type": "container/create-volume", "id": f"v{n}", "args": {"name": f"v{n}"}} for n in range(count))
    )


def mounts(count: int) -> list[Body]:
    return [{"name": "v", "dest": f"/d/{n}"} for n in range(count)]


AT = {
    "ops": (lambda n: whole(*(run(f"op-{i}") for i in range(n))), limits.MAX_OPS, "ops"),
    "id": (lambda n: whole(run("é" * n)), limits.MAX_NAME, "ops[0].id"),
    "group": (
        lambda n: whole(run(execution={"group": "g" * n})),
        limits.MAX_NAME,
        "ops[0].execution.group",
    ),
    "ports of an op": (
        lambda n: whole(run(expose=list(range(1, n + 1)))),
        limits.MAX_PORTS,
        "ops[0].args.expose",
    ),
    "ports of a job": (many_ports, limits.MAX_PORTS, "ops"),
    "checks": (checked, limits.MAX_HEALTH_CHECKS, "ops"),
    "aliases": (
        lambda n: whole(run(aliases=[f"a{i}" for i in range(n)])),
        limits.MAX_ALIASES,
        "ops[0].args.aliases",
    ),
    "aliases as text": (
        lambda n: whole(run(aliases=",".join(f"a{i}" for i in range(n)))),
        limits.MAX_ALIASES,
        "ops[0].args.aliases",
    ),
    "volume ops": (volumes, limits.MAX_VOLUMES, "ops"),
    "mounts": (lambda n: whole(run(volumes=mounts(n))), limits.MAX_MOUNTS, "ops[0].args.volumes"),
    "resources": (
        lambda n: whole(run(resources=[{"type": "Ollama", "model": f"m{i}"} for i in range(n)])),
        limits.MAX_MOUNTS,
        "ops[0].args.resources",
    ),
    "env": (
        lambda n: whole(run(env={f"V{i}": "" for i in range(n)})),
        limits.MAX_ENV,
        "ops[0].args.env",
    ),
    "global env": (
        lambda n: whole(run(env={"A": ""}), **{"global": {"env": {f"V{i}": "" for i in range(n - 1)}}}),
        limits.MAX_ENV,
        "ops[0].args.env",
    ),
    "a variable": (lambda n: whole(run(env={"V": "x" * (n - 2)})), limits.MAX_WORD_BYTES, "ops[0].args.env.V"),
    "a line": (lambda n: whole(run(cmd="x" * n)), limits.MAX_WORD_BYTES, "ops[0].args.cmd"),
    "a word": (lambda n: whole(run(entrypoint=["x", "y" * n])), limits.MAX_WORD_BYTES, "ops[0].args.entrypoint[1]"),
    "arguments": (
        lambda n: whole(run(cmd=["x" * 100_000, "y" * 100_000, "z" * (n - 200_000 - len('{"image":"x","cmd":["","",""]}'))])),
        limits.MAX_ARGS_BYTES,
        "ops[0].args",
    ),
    "patterns": (
        lambda n: whole(run(results={f"r{i}": "x" for i in range(n)})),
        limits.MAX_PATTERNS,
        "ops[0].results",
    ),
    "a pattern": (lambda n: whole(run(results={"r": "x" * n})), limits.MAX_PATTERN, "ops[0].results.r"),
    "endpoint": (stub, limits.MAX_ENDPOINT, "logistics.send.args.endpoint"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "maximum", "path"), AT.values(), ids=AT.keys())
def test_a_limit_holds_exactly(make: Any, maximum: int, path: str) -> None:
    assert validate(make(maximum)).errors == ()
    errors = validate(make(maximum + 1)).errors
    assert errors[0].path == path
    assert str(maximum) in errors[0].message, errors


def test_the_documentation_has_every_limit_of_a_definition() -> None:
    documented = {limit.maximum for limit in LIMITS}
    assert {maximum for _, maximum, _ in AT.values()} <= documented
    assert {limits.MAX_BYTES, limits.MAX_DEPTH, limits.MAX_VALUES, limits.MAX_STATUS_BYTES} <= documented


def test_long_ids_and_many_ports_have_to_fit_into_the_status_together() -> None:
    long, short = "😀" * 128, "x" * 128
    assert validate(whole(run(short, expose=list(range(1, 513))))).valid
    [error] = validate(whole(run(long, expose=list(range(1, 513))))).errors
    assert (error.path, str(limits.MAX_STATUS_BYTES) in error.message) == ("ops", True)


def test_the_number_of_values_is_bounded() -> None:
    assert validate(whole(run(), meta={"n": [1] * 1000})).valid
    [error] = validate(whole(run(), meta={"n": [1] * limits.MAX_VALUES})).errors
    assert str(limits.MAX_VALUES) in error.message


def test_yaml_aliases_cannot_multiply_text() -> None:
    text = (
        "version: '0.1'\ntype: container\nops: []\nmeta:\n  a: &a '"
        + "x" * 100_000
        + "'\n  b: ["
        + "*a, " * 20
        + "]\n"
    )
    with pytest.raises(DefinitionError, match=f"more than {limits.MAX_BYTES} characters"):
        parse(text)


def test_every_op_of_the_largest_job_is_counted() -> None:
    ops = [run(f"op-{n}", expose=list(range(1, 501))) for n in range(16)]
    [error] = validate(whole(*ops)).errors
    assert "found 8000" in error.message


# -- growth ----------------------------------------------------------------------------------------------------

BIG = "x" * 60_000


def context(**ops: OpFacts) -> Context:
    return Context("J", "H", "P", "F", variables={"V": BIG}, ops=ops)


def grows(args: Body, ctx: Context) -> LiteralError:
    """The error; growth is refused before it takes memory."""
    [op] = parse(whole({"type": "container/run", "id": "a", "args": {"image": "x", **args}})).ops
    tracemalloc.start()
    try:
        with pytest.raises(LiteralError) as refused:
            interpolate(op, ctx)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
    return refused.value


VARIABLE = "%%global.variables.V%%"
RESULT = "%%ops.b.results.r%%"


@pytest.mark.parametrize(
    "args",
    [
        {"cmd": VARIABLE * 5000},
        {"cmd": [VARIABLE] * 5000},
        {"cmd": [f"{VARIABLE} {VARIABLE}"] * 2000},
        {"entrypoint": VARIABLE * 5000},
        {"work_dir": "/" + VARIABLE * 5000},
        {"env": {f"E{n}": VARIABLE for n in range(500)}},
        {"resources": [{"type": "HF", "repo": "a/b", "target": "/x", "files": [VARIABLE] * 100}]},
        {"aliases": VARIABLE * 3000},
        {"image": VARIABLE * 3000},
        {"cmd": RESULT * 3000},
        {"cmd": [RESULT] * 3000},
        {"cmd": [f"-{RESULT}"] * 3000},
        {"expose": [{"__spread__": RESULT}]},
        {"env": {"__pairs__": RESULT}},
        {"env": {"__spread__": RESULT}},
    ],
)
def test_growth_is_refused_while_it_grows(args: Body) -> None:
    captured: list[str | None] = [BIG] * 40
    error = grows(args, context(b=OpFacts("b", results={"r": captured})))
    assert len(error.problems) <= MAX_PROBLEMS
    assert all(len(str(problem)) < 1000 for problem in error.problems)


def test_a_text_stops_growing_at_its_limit() -> None:
    with pytest.raises(GrowthError):
        replace(VARIABLE * 3, context(), 100_000)
    assert replace(f"{VARIABLE}-", context(), 100_000) == f"{BIG}-"


@pytest.mark.parametrize(
    ("captured", "args"),
    [
        ([""] * 200_000, {"cmd": [RESULT]}),
        (["[" + "[]," * 50_000 + "[]]"], {"resources": [{"__spread__": RESULT}]}),
        (["[" + "1e300," * 20_000 + "1]"], {"expose": [{"__spread__": RESULT}]}),
        (['{"A":[' + "1e300," * 20_000 + "1]}"], {"env": {"__spread__": RESULT}}),
        (['{"A":1e999}'], {"env": {"__spread__": RESULT}}),
    ],
)
def test_values_from_markers_are_counted(captured: list[str | None], args: Body) -> None:
    error = grows(args, context(b=OpFacts("b", results={"r": captured})))
    assert len(error.problems) <= MAX_PROBLEMS


def test_many_literals_without_a_value_are_reported_once_each_up_to_the_limit() -> None:
    error = grows({"cmd": ["%%global.variables.MISSING%%"] * 5_000}, context())
    assert len(error.problems) == MAX_PROBLEMS


def test_what_fits_before_literals_are_replaced_has_to_fit_after_too() -> None:
    ctx = context(b=OpFacts("b", results={"r": json.dumps(list(range(1, 600)))}))
    assert f"at most {limits.MAX_PORTS} ports" in str(grows({"expose": [{"__spread__": RESULT}]}, ctx))
    names = context(b=OpFacts("b", results={"r": [f"n{n}" for n in range(1001)]}))
    assert f"at most {limits.MAX_ALIASES} names" in str(grows({"aliases": [RESULT]}, names))


def test_hostile_documents_are_refused_in_bounded_memory() -> None:
    """As many errors as a document can have."""
    bodies: list[Any] = [
        whole(run(cmd=[1] * 16_000)),
        whole(*({"x": 1} for _ in range(8_000))),
        whole(*(run("same") for _ in range(MAX_OPS))),
        whole(run(env={f"é{n}": n for n in range(8_000)})),
        whole(run(**{f"key-{n}": n for n in range(8_000)})),  # type: ignore[arg-type]
    ]
    for body in bodies:
        tracemalloc.start()
        report = validate(body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0 < len(report.errors) <= MAX_PROBLEMS
        assert peak < 64 * 2**20
