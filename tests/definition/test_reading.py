"""Text in, plain data out: JSON, YAML, bounds, and whatever strangers send."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nosana_operator.definition import MAX_BYTES, DefinitionError, Syntax, check, load, parse, validate

MINIMAL = '{"version":"0.1","type":"container","ops":[]}'


@pytest.mark.parametrize(
    ("text", "source", "value"),
    [
        ('{"a": [1, 2.5, true, null, "x"]}', "", {"a": [1, 2.5, True, None, "x"]}),
        ("a: [1, 2.5, true, null, x]", "", {"a": [1, 2.5, True, None, "x"]}),
        (b"\xef\xbb\xbf{}", "", {}),
        ("  \n {}", "", {}),
        ("{a: b}", "f.yaml", {"a": "b"}),
        ("{a: b}", "F.YML", {"a": "b"}),
        ("[1]", "", [1]),
        ('"x"', "f.json", "x"),
    ],
)
def test_json_and_yaml_give_the_same_data(text: str | bytes, source: str, value: Any) -> None:
    assert load(text, source=source).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("1_000", "1_000"), ("2001-01-01", "2001-01-01"),
        ("12:30:45", "12:30:45"), ("0x1F", 31), ("0o17", 15), ("017", 17), ("-3", -3), ("1e3", 1000.0), (".5", 0.5),
        ("5.", 5.0), ("~", None), ("", None), ("Null", None), ("TRUE", True), ("false", False), ("'80'", "80"),
        ('"true"', "true"), ("!!str 80", "80"), ("!!int 80", 80), ("!!float 80", 80), ("|\n  a\n  b\n", "a\nb\n"),
    ],
)  # fmt: skip
def test_yaml_follows_the_core_schema_of_1_2(text: str, value: Any) -> None:
    loaded = load(f"k: {text}", syntax=Syntax.YAML).value["k"]

    assert loaded == value
    assert type(loaded) is type(value)


def test_yaml_aliases_are_followed() -> None:
    assert load("a: &x {k: [1]}\nb: *x\nc: &s text\nd: *s").value == {
        "a": {"k": [1]}, "b": {"k": [1]}, "c": "text", "d": "text",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a": 1, "a": 2}', "a"),
        ('{"x": [{"a": 1, "b": 0, "a": 2}]}', "x[0].a"),
        ("x:\n- a: 1\n  a: 2", "x[0].a"),
    ],
)
def test_a_key_given_twice_is_told_and_the_last_one_counts(text: str, path: str) -> None:
    loaded = load(text)

    assert [warning.path for warning in loaded.warnings] == [path]
    assert "2" in json.dumps(loaded.value)
    assert "1" not in json.dumps(loaded.value)


def test_a_key_given_twice_does_not_make_a_definition_invalid() -> None:
    report = check(MINIMAL[:-1] + ',"deployment_id":"a","deployment_id":"b"}')

    assert report.definition is not None
    assert report.definition.deployment_id == "b"
    assert report.warnings[0].path == "deployment_id"


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("this is not json", "must be an object, found a string"),
        ("", "no documents found"),
        ("null", "must be an object, found nothing"),
        ("[]", "must be an object, found a list"),
        ("12", "a bare value"),
        ("{", "not JSON, line 1 column 2"),
        ('{"a": 1,}', "not JSON, line 1"),
        ("{'a': 1}", "not JSON, line 1 column 2"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b'{"a": "\xe9"}', "byte 7 is not UTF-8"),
        ("{" + '"a":{' * 100_000, "levels are nested"),
        ("[" * 100_000, "levels are nested"),
        ("{" + '"a":{' * 70 + "}" * 71, "levels are nested"),
        (" " * (MAX_BYTES + 1), "larger than"),
        ("é" * (MAX_BYTES - 10), "at most"),
        ("\ud800", "UTF-8"),
        ("a: .nan", "not a finite number"),
        ("a: &x [*x]", "alias"),
        ("a: *nope", "alias"),
        ("1: x", "a key is not text"),
        ("? [a]\n: b", "a key is not text"),
        ("a: !!python/object:os.system {}", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!set {b}", "tag"),
        ("a: b\n---\nc: d", "2 documents found"),
        ("a: [", "not YAML"),
        ("\ta: b", "not YAML"),
        ("a: \x00", "not YAML"),
        (LAUGHS, "with its aliases it has more"),
        ("- &a [" + "[" * 200 + "]" * 200 + "]", "levels are nested"),
    ],
)  # fmt: skip
def test_what_is_no_definition_is_refused_with_the_reason(text: str | bytes, words: str) -> None:
    began = time.monotonic()
    report = check(text)

    assert not report.valid
    assert words in str(report.errors[0])
    assert time.monotonic() - began < 5
    with pytest.raises(DefinitionError):
        parse(text)


def test_json_only_where_yaml_is_not_spoken() -> None:
    with pytest.raises(DefinitionError, match="not JSON"):
        parse("version: '0.1'\ntype: container\nops: []", syntax=Syntax.JSON)
    assert parse("version: '0.1'\ntype: container\nops: []").ops == []


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {1, 2}}, {"a": b"x"}, {"a": float("nan")}, {"a": object()}, {"a": (1,)}]
)
def test_data_that_json_cannot_hold_is_refused(value: Any) -> None:
    assert not validate(value).valid


def test_data_that_holds_itself_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle

    assert "levels are nested" in validate(circle).errors[0].message


def test_a_document_wrong_in_many_places_tells_some_of_them_in_time() -> None:
    began = time.monotonic()
    report = check('{"version":"0.1","type":"container","ops":[' + ",".join(["1"] * 200_000) + "]}")

    assert 0 < len(report.errors) <= 50
    assert time.monotonic() - began < 10


def _with(args: str = '"image":"i"', execution: str = "{}") -> str:
    op = f'{{"type":"container/run","id":"a","args":{{{args}}},"execution":{execution}}}'
    return f'{{"version":"0.1","type":"container","ops":[{op}]}}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            _with(execution='{"depends_on":[' + ",".join(['"z"'] * 250_000) + "]}"), id="dependencies"
        ),
        pytest.param(_with('"image":"i","cmd":"' + "%%globals.a" * 95_000 + '"'), id="literals"),
        pytest.param(_with('"image":"i","cmd":"' + "%%ops." * 170_000 + '"'), id="beginnings of literals"),
        pytest.param(_with('"image":"i","expose":[' + ",".join(map(str, range(150_000))) + "]"), id="ports"),
        pytest.param("- &a x\n" + "- *a\n" * 200_000, id="aliases"),
        pytest.param("[" + "a," * 500_000 + "]", id="flow list"),
    ],
)
def test_the_largest_documents_are_judged_in_seconds(text: str) -> None:
    assert len(text) <= MAX_BYTES
    began = time.monotonic()
    report = check(text, syntax=Syntax.AUTO if text.startswith("{") else Syntax.YAML)

    assert len(report.warnings) + len(report.errors) > 0
    assert time.monotonic() - began < 10


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["version", "type", "ops", "id", "args", "image", "name", "expose", "port", "health_checks", "resources",
             "target", "env", "cmd", "execution", "group", "depends_on", "meta", "global", "results", "regex", "logType",
             "__spread__", "restart_policy", "policy", "<RunArgs>", "<list>", "logistics", "send"]
        ) | st.text(max_size=3),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip
_OPS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["container/run", "container/create-volume", "x"]),
            "id": st.text(max_size=3),
            "args": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(("image", "name", "expose", "resources", "cmd", "env", "<x>", "volumes"), _JSON)
            )
            | _JSON,
            "execution": _JSON,
            "results": _JSON,
        },
    )
    | _JSON,
    max_size=3,
)  # fmt: skip


@settings(max_examples=150)
@given(_JSON | st.fixed_dictionaries({"version": st.just("0.1"), "type": st.just("container"), "ops": _OPS}))
def test_any_data_is_accepted_or_refused_with_an_error_of_ours(value: Any) -> None:
    report = validate(value)

    assert report.valid or all(problem.path and problem.message for problem in report.errors)
    for problem in report.errors:
        assert "<literal>" not in problem.path


@settings(max_examples=150)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_any_bytes_are_refused_with_an_error_of_ours(content: bytes) -> None:
    for syntax in Syntax:
        assert not check(content, syntax=syntax).valid


@settings(max_examples=100)
@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`#? \n\tab01.~<", max_size=60))
def test_any_yaml_punctuation_is_refused_with_an_error_of_ours(text: str) -> None:
    assert not check(text, syntax=Syntax.YAML).valid
