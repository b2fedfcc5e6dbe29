"""What a person reads about a refused definition: where, what was found, what is allowed, what to do."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.definition import DefinitionError, parse, validate


def _whole(op: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    ops = [{"type": "container/run", "id": "a", "args": {"image": "i"}, **(op or {})}]
    return {"version": "0.1", "type": "container", "ops": ops, **top}


def _args(**args: Any) -> dict[str, Any]:
    return _whole({"args": {"image": "i", **args}})


def _check(**check: Any) -> dict[str, Any]:
    full = {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True, **check}
    return _args(expose=[{"port": 80, "health_checks": [{k: v for k, v in full.items() if v is not ...}]}])


HC = "ops[0].args.expose[0].health_checks[0]"


@pytest.mark.parametrize(
    ("definition", "path", "message", "hint"),
    [
        # What the docs or older validators taught (docs/protocol/job-definition.md#surprises).
        (_check(continuous=...), f"{HC}.continuous", "is required", "every 30 s"),
        (_args(resources=[{"type": "S3", "target": "/t", "IAM": {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}}]),
         "ops[0].args.resources[0].IAM.REGION", "is required", "all three"),
        (_args(expose="3000-3010"), "ops[0].args.expose", 'found "3000-3010"', "ranges are no longer accepted"),
        (_args(expose=[{"port": "3000-3010"}]), "ops[0].args.expose[0].port", "must be a number", "ranges are no longer"),
        (_args(output="/o"), "ops[0].args.output", 'unknown key "output"; allowed here: aliases,', "remove it"),
        (_args(required_vram=8), "ops[0].args.required_vram", "unknown key", "meta.system_requirements.vram_total_mb"),
        (_args(results={}), "ops[0].args.results", "unknown key", "belongs to the op, beside `args`"),
        (_args(timeout=5), "ops[0].args.timeout", "unknown key", "execution.timeout"),
        (_args(**{"__remove-if-empty__": "[]"}), 'ops[0].args.__remove-if-empty__', "unknown key", "an item of a list"),
        (_whole({"args": {}}), "ops[0].args.image", "is required", "global.image has no effect"),
        (_whole({"type": "container/create-volume", "args": {}}), "ops[0].args.name", "is required", "the volume's name"),
        (_whole(version="0.0.1"), "version", 'must be "0.1", found "0.0.1"', "only version"),
        (_whole(version=0.1), "version", "found the number 0.1", 'write "0.1" in quotes'),
        (_whole(logistics={"send": {"type": "api", "args": {}}}), "logistics.receive", "is required", "both directions"),
        (_whole(meta={"x": {"y": {"z": 1}}}), "meta.x", "one level of object", "write a string"),
        (_whole(meta={"system_resources": {"a": []}}), "meta.system_resources.a", "must be a string or a number", ""),
        # Kinds of values.
        (_args(cmd=[1]), "ops[0].args.cmd[0]", "must be a string, found a number", "in quotes"),
        (_args(cmd=None), "ops[0].args.cmd", "found null", "leave the key out"),
        (_args(env={"N": 1}), "ops[0].args.env.N", "must be a string, found a number", "put the value in quotes"),
        (_args(gpu=2), "ops[0].args.gpu", "must be true or false, found the number 2", "how many GPUs"),
        (_args(expose="80"), "ops[0].args.expose", 'found "80"', "remove the quotes"),
        (_args(expose="8%%ops.a.results.p%%"), "ops[0].args.expose", "whole literal", "must be the whole string"),
        (_args(expose=[{"__spread__": "[1]"}]), "ops[0].args.expose[0].__spread__", "whole literal", ""),
        (_args(expose=True), "ops[0].args.expose", "a port number, a port object", ""),
        (_args(expose=10**400), "ops[0].args.expose", "too large to use", ""),
        (_check(method="get"), f"{HC}.method", 'one of "GET", "POST", "PUT" or "DELETE"', "upper case"),
        (_check(expected_status="200"), f"{HC}.expected_status", "must be a number", "remove the quotes"),
        (_check(type="tcp"), HC, '"http" or "websocket"', 'found type "tcp"'),
        (_args(resources=[{"type": "s3", "target": "/t"}]), "ops[0].args.resources[0]", '"S3", "HF" or "Ollama"',
         'found type "s3"; types are case sensitive'),
        (_args(resources=["%%ops.a.results.r%%"]), "ops[0].args.resources[0]", '"__remove-if-empty__"', "__spread__ marker"),
        (_args(resources=[{"type": "S3", "target": "/t", "bucket": "b", "files": []}]),
         "ops[0].args.resources[0].files", "unknown key", "exclude each other"),
        (_args(restart_policy={"policy": "always"}), "ops[0].args.restart_policy.policy", 'must be "on-failure"', "alone"),
        (_whole({"results": {"r": {"regex": "x"}}}), "ops[0].results.r.logType", "is required", "the regular expression alone"),
        (_whole({"id": "a b"}), "ops[0].id", 'found "a b"', "hyphen"),
        (_whole({"execution": {"depends_on": "x"}}), "ops[0].execution.depends_on", "must be a list", ""),
        (_whole({"args": [1]}), "ops[0].args", "must be an object, found a list", ""),
        (_whole(ops={}), "ops", "must be a list, found an object", ""),
        # Slips of the pen.
        (_args(enviroment={}), "ops[0].args.enviroment", "unknown key", ""),
        (_args(imagee="x"), "ops[0].args.imagee", "unknown key", "did you mean image?"),
        (_args(workdir="x"), "ops[0].args.workdir", "unknown key", "did you mean work_dir?"),
        (_whole({"execution": {"dependsOn": []}}), "ops[0].execution.dependsOn", "unknown key", "did you mean depends_on?"),
        (_args(resources=[{"type": "S3", "target": "/t", "allowwrite": True}]), "ops[0].args.resources[0].allowwrite",
         "unknown key", "did you mean allowWrite?"),
        (_args(**{"<list>": 1}), 'ops[0].args["<list>"]', "unknown key", ""),
        # Beyond the types.
        (_args(expose=[80, {"port": 80.0}]), "ops[0].args.expose[1].port", "port 80 is exposed more than once", ""),
        (_whole(ops=[{"type": "container/run", "id": "a", "args": {"image": "i"}}] * 2), "ops[1].id", "ops[0]", "rename"),
        (_whole(ops=[{"type": "container/run", "id": f"o{n}", "args": {"image": "i"}} for n in range(65)]),
         "ops", "at most 64 ops are allowed, found 65", ""),
    ],
)  # fmt: skip
def test_problem(definition: dict[str, Any], path: str, message: str, hint: str) -> None:
    report = validate(definition)

    assert [problem.path for problem in report.errors] == [path]
    assert message in report.errors[0].message
    assert hint in report.errors[0].hint


def test_every_problem_is_told_at_once() -> None:
    definition = _whole({"id": "a b", "args": {"cmd": 1, "gpu": "x", "foo": 1}})

    assert {problem.path for problem in validate(definition).errors} == {
        "ops[0].id", "ops[0].args.image", "ops[0].args.cmd", "ops[0].args.gpu", "ops[0].args.foo",
    }  # fmt: skip


def test_the_error_is_one_sentence_with_the_first_problem() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(_whole({"args": {"cmd": 1}}))

    assert str(caught.value).startswith("the job definition is unusable: ops[0].args.")
    assert str(caught.value).endswith("; and 1 more")


SECRET = "hunter2" * 3


@pytest.mark.parametrize(
    "definition",
    [
        _args(env={"A": [SECRET]}),
        _args(env=SECRET),
        _args(cmd={"x": SECRET}),
        _args(authentication={"docker": SECRET}),
        _args(authentication={"docker": {"password": [SECRET]}}),
        _args(authentication=SECRET),
        _args(resources=[{"type": "HF", "repo": "r", "target": "/t", "accessToken": {"x": SECRET}}]),
        _args(resources=[{"type": "S3", "target": "/t", "IAM": SECRET}]),
        _check(headers={"Authorization": {"x": SECRET}}),
        _check(headers=SECRET),
        _whole(**{"global": {"env": {"A": [SECRET]}, "variables": SECRET}}),
        _whole(ssh={"public_keys": SECRET}),
    ],
)
def test_a_value_that_may_be_secret_is_never_quoted(definition: dict[str, Any]) -> None:
    report = validate(definition)

    assert report.errors
    assert not any("hunter2" in str(problem) for problem in report.errors)


def test_secrets_are_left_out_of_the_models_own_words() -> None:
    definition = parse(
        _args(
            authentication={"docker": {"username": "u", "password": SECRET}},
            resources=[
                {"type": "HF", "repo": "r", "target": "/t", "accessToken": SECRET},
                {
                    "type": "S3",
                    "target": "/t",
                    "IAM": {"REGION": "r", "ACCESS_KEY_ID": SECRET, "SECRET_ACCESS_KEY": SECRET},
                },
            ],
            env={"TOKEN": SECRET},
        )
    )

    assert "hunter2" not in repr(definition)
