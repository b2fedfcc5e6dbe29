"""Warnings: accepted, but without effect here or with a surprise."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.definition import validate


def _op(
    id_: str = "a", *, type_: str = "container/run", execution: Any = None, results: Any = None, **args: Any
) -> Any:
    op: dict[str, Any] = {
        "type": type_,
        "id": id_,
        "args": args if type_ != "container/run" else {"image": "i", **args},
    }
    if execution is not None:
        op["execution"] = execution
    if results is not None:
        op["results"] = results
    return op


def _whole(*ops: Any, **top: Any) -> dict[str, Any]:
    return {"version": "0.1", "type": "container", "ops": list(ops), **top}


def _checked(**check: Any) -> Any:
    return [{"port": 80, "health_checks": [
        {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True, **check}]}]  # fmt: skip


API = {"type": "api", "args": {"endpoint": "https://x"}}
LISTEN = {"type": "api-listen", "args": {}}


@pytest.mark.parametrize(
    ("definition", "path", "words"),
    [
        (_whole(), "ops", "nothing will run"),
        (_whole(_op(entrypoint=["/bin/sh"], expose=80)), "ops[0].args.entrypoint", "listen on the exposed port"),
        (_whole(_op(entrypoint="bash")), "ops[0].args.entrypoint", "ends at once"),
        (_whole(_op(cmd=["bash -c ", "echo hi"])), "ops[0].args.cmd[0]", "a space in its name"),
        (_whole(_op(entrypoint=["/bin/sh -c"], cmd=["echo hi"])), "ops[0].args.entrypoint[0]", "a space in its name"),
        (_whole(_op(), meta={"system_requirements": {"vram_total_mb": 4}}), "meta.system_requirements", "no effect"),
        (_whole(_op(), meta={"system_resources": {"gpu": 4}}), "meta.system_resources", "no effect"),
        (_whole(_op(), **{"global": {"image": "x"}}), "global.image", "no effect"),
        (_whole(_op(), **{"global": {"env": {"A": "%%global.job%%"}}}), "global.env.A", "not replaced"),
        (_whole(_op(gpu=False), **{"global": {"gpu": True}}), "ops[0].args.gpu", "global.gpu is true"),
        (_whole(logistics={"send": LISTEN, "receive": API}), "logistics.send.type", "serve api-listen"),
        (_whole(_op(), ssh={"public_keys": ["k"]}), "ssh", "no shells"),
        (_whole(_op("a.b")), "ops[0].id", "a dot"),
        (_whole(_op(execution={"stop_if_dependent_stops": True})),
         "ops[0].execution.stop_if_dependent_stops", "no effect without depends_on"),
        (_whole(_op(image="")), "ops[0].args.image", "will fail"),
        (_whole(_op(cmd=["echo hi"])), "ops[0].args.cmd", "name of one program"),
        (_whole(_op(trusted_execution_env=True)), "ops[0].args.trusted_execution_env", "refuse the job"),
        (_whole(_op(expose=_checked(restart_on_failure=True))),
         "ops[0].args.expose[0].health_checks[0].restart_on_failure", "published validator refuses"),
        (_whole(_op(expose=_checked(max_restarts=2))),
         "ops[0].args.expose[0].health_checks[0].max_restarts", "published validator refuses"),
        (_whole(_op("db"), _op("b", env={"U": "redis://db:6379/0"})), "ops[1].args.env.U", "not a host name"),
        (_whole(_op(expose={"port": 80})), "ops[0].args.expose", "a single object"),
        (_whole(_op(expose=[80, 70000])), "ops[0].args.expose[1]", "70000 is not a TCP port"),
        (_whole(_op(expose=80.5)), "ops[0].args.expose", "80.5 is not a TCP port"),
        (_whole(_op(expose=80), _op("b", expose=80)), "ops[1].args.expose", "ops[0] exposes port 80 too"),
        (_whole(_op(resources=[{"type": "S3", "url": "u", "target": "t"}])), "ops[0].args.resources[0].target", "absolute"),
        (_whole(_op(resources=[{"type": "S3", "url": "u", "target": "/a/../b"}])),
         "ops[0].args.resources[0].target", "absolute"),
        (_whole(_op(resources=[{"type": "S3", "target": "/t"}])), "ops[0].args.resources[0].url", "nothing to fetch"),
        (_whole(_op(resources=[{"type": "S3", "target": "/t", "url": "u", "buckets": []}])),
         "ops[0].args.resources[0].buckets", "no effect beside url"),
        (_whole(_op(resources=[{"type": "HF", "repo": "r", "target": "/t"}])), "ops[0].args.resources[0].files", "fail"),
        (_whole(_op(volumes=[{"name": "v", "dest": "/d"}])), "ops[0].args.volumes[0].name", 'creates the volume "v"'),
        (_whole(_op(), _op("b", execution={"group": "g", "depends_on": ["a"]})),
         "ops[1].execution.depends_on[0]", "earlier stage"),
        (_whole(_op(execution={"depends_on": ["zzz"]})), "ops[0].execution.depends_on[0]", "refused before it starts"),
        (_whole(_op(type_="container/create-volume", image="x")), "ops[0].args", "refused before it starts"),
        # Literals that will have no value.
        (_whole(_op(cmd=["x", "%%global.variables.M%%"])), "ops[0].args.cmd[1]", 'no value for "M"'),
        (_whole(_op(cmd="%%global.nope%%")), "ops[0].args.cmd", 'no global value is called "nope"'),
        (_whole(_op(cmd="%%ops.z.host%%")), "ops[0].args.cmd", 'no op "z"'),
        (_whole(_op(cmd="%%ops.a.ip%%")), "ops[0].args.cmd", "an op has no value"),
        (_whole(_op(cmd="%%ops.a.endpoint.80%%")), "ops[0].args.cmd", "exposes no port 80"),
        (_whole(_op(cmd="%%ops.a.deployment_endpoint%%")), "ops[0].args.cmd", "not part of a deployment"),
        (_whole(_op(results={"r": "x"}), _op("b", env={"K": "%%ops.a.results.q%%"})), "ops[1].args.env.K", 'captures no "q"'),
        (_whole(_op(results={"r": "x"}, cmd="%%ops.a.results.r%%")), "ops[0].args.cmd", "has not ended by then"),
        (_whole(_op(cmd="%%ops.a%%")), "ops[0].args.cmd", "stays as text"),
        (_whole(_op(cmd="%%variables.X%%")), "ops[0].args.cmd", "stays as text"),
    ],
)  # fmt: skip
def test_warning(definition: dict[str, Any], path: str, words: str) -> None:
    report = validate(definition)

    assert report.valid
    assert [(warning.path, words in warning.message) for warning in report.warnings] == [(path, True)], (
        report.warnings
    )


@pytest.mark.parametrize(
    "args",
    [
        {"entrypoint": ["/bin/sh"], "cmd": ["-c", "serve"], "expose": 80},
        {"entrypoint": ["/bin/sh", "-c"], "cmd": ["serve"]},
        {"entrypoint": "/bin/bash", "cmd": "serve", "expose": 80},
        {"cmd": ["/bin/bash", "-c", "serve"]},
        {"entrypoint": ["/shell"], "expose": 80},
    ],
)
def test_shells_with_a_command_are_as_they_should_be(args: Any) -> None:
    assert validate(_whole(_op(**args))).warnings == ()


@pytest.mark.parametrize(
    "definition",
    [
        _whole(_op()),
        _whole(logistics={"send": API, "receive": API}),
        _whole(
            _op(cmd=["echo"]), _op("b", cmd=["echo hi"], entrypoint=["sh", "-c"]), _op("c", cmd="echo hi")
        ),
        _whole(_op(gpu=True, expose=_checked()), deployment_id="d"),
        _whole(
            _op(results={"r": "x"}, expose=80),
            _op("b", expose="%%ops.a.results.r%%", cmd="%%ops.a.endpoint.80%%"),
        ),
        _whole(
            _op(cmd="%%global.variables.M%% %%globals.job%% 100%%"), **{"global": {"variables": {"M": "m"}}}
        ),
        _whole(
            _op("v", type_="container/create-volume", name="v"), _op(volumes=[{"name": "v", "dest": "/d"}])
        ),
        _whole(_op(), _op("b", execution={"depends_on": ["a"]})),
        _whole(_op("db", aliases="DB"), _op("b", cmd="curl http://b:1 http://db http://dbx %%ops.db.host%%")),
        _whole(
            _op("s", execution={"group": "g", "depends_on": ["c"], "stop_if_dependent_stops": True}),
            _op("c", execution={"group": "g"}, cmd="curl %%ops.s.host%% %%ops.s.container_ip%%"),
        ),
    ],
)
def test_nothing_to_warn_about(definition: dict[str, Any]) -> None:
    report = validate(definition)

    assert report.valid
    assert report.warnings == ()


def test_a_refused_definition_has_no_advice() -> None:
    assert validate(_whole(_op(cmd=["echo hi"]), foo=1)).warnings == ()


def test_a_restart_that_never_comes() -> None:
    check = {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "restart_on_failure": True}
    port = {"port": 80, "health_checks": [{**check, "continuous": False}, {**check, "continuous": True}]}
    told = [w.path for w in validate(_whole(_op(expose=[port]))).warnings if "never restarts" in w.message]
    assert told == ["ops[0].args.expose[0].health_checks[0].restart_on_failure"]
