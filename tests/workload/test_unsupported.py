from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nosana_operator.api import Gpu
from nosana_operator.workload import JobContext, Storage, build_objects, gpu_demand, unsupported
from support.workload import RUN, context, op, run_op

CHECK = {"type": "http", "path": "/", "method": "GET", "expected_status": 200, "continuous": True}
S3 = {"type": "S3", "url": "https://example.com/m", "target": "/m"}


def paths(ctx: JobContext) -> list[str]:
    return [problem.path for problem in unsupported(ctx)]


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"cmd": "x", "entrypoint": ["y"], "env": {"A": "b"}, "work_dir": "/w", "gpu": True},
        {"expose": 80},
        {"expose": [80, {"port": 81, "type": "api", "health_checks": [CHECK]}]},
        {"restart_policy": "no"},
        {"restart_policy": "always"},
        {"restart_policy": {"policy": "on-failure", "restart_tries": 3}},
        {"resources": []},
        {"resources": ["__remove-if-empty__"]},
        {"volumes": []},
        {"aliases": []},
        {"aliases": "db, Cache,"},
        {"aliases": ["db", "x-%%global.job%%"]},
        {"authentication": {}},
        {"authentication": {"docker": {"username": "u", "password": "hush"}}},
        {"private": True},
        {"private": True, "expose": 80},
        {"private": False, "expose": 80},
        {"trusted_execution_env": False},
        {"cmd": ["%%global.job%% %%ops.x.host%% %%global.variables.A%%"]},
        {"cmd": ["a", "%%ops.x.results.k%%", "%%ops.x.container_ip%%"]},
    ],
)
def test_what_is_served(args: dict[str, Any]) -> None:
    assert unsupported(context(op(**args), defaults={"variables": {"A": "1"}, "image": "unused"})) == []


@pytest.mark.parametrize(
    ("args", "path"),
    [
        ({"resources": [S3]}, "ops[0].args.resources"),
        ({"volumes": [{"name": "v", "dest": "/v"}]}, "ops[0].args.volumes[0].name"),
        ({"aliases": "db, my_cache"}, "ops[0].args.aliases"),
        ({"aliases": ["db.local"]}, "ops[0].args.aliases"),
        ({"trusted_execution_env": True}, "ops[0].args.trusted_execution_env"),
        ({"env": {"A": "to %%ops.x.deployment_endpoint%%"}, "expose": 80}, "ops[0].args.env.A"),
        ({"env": {"A": "%%ops.x.endpoint.80%%"}, "expose": 80}, "ops[0].args.env.A"),
        ({"env": {"A": "%%globals.frps_address%%"}}, "ops[0].args.env.A"),
        ({"image": "Not An Image"}, "ops[0].args.image"),
    ],
)
def test_what_is_not_served_is_told(args: dict[str, Any], path: str) -> None:
    ctx = context(op(**args))
    assert paths(ctx) == [path]
    (problem,) = unsupported(ctx)
    assert problem.hint
    assert "hush" not in str(problem)


def test_trusted_execution_is_served_where_the_settings_name_a_runtime_for_it() -> None:
    ctx = context(op("a", trusted_execution_env=True), op("b"))
    ctx = replace(
        ctx, trusted_runtime_class="snp", spec=ctx.spec.model_copy(update={"runtime_class_name": "nvidia"})
    )
    assert unsupported(ctx) == []
    pods = [body["spec"] for body in build_objects(ctx) if body["kind"] == "Pod"]
    assert [spec["runtimeClassName"] for spec in pods] == ["snp", "nvidia"]


def test_a_domain_gives_endpoints_a_name() -> None:
    literal = {"A": "%%ops.x.endpoint.80%% %%global.frps_address%%"}
    assert paths(context(op(expose=80, env=literal))) == ["ops[0].args.env.A"] * 2
    assert paths(context(op(expose=80, env=literal), domain="x.test")) == []


def test_a_variable_may_be_called_like_a_value_of_an_op() -> None:
    ctx = context(op(cmd=["%%ops.variables.results%%"]), defaults={"variables": {"results": "1"}})
    assert paths(ctx) == []


def test_the_rest_of_a_definition() -> None:
    api = {"type": "api", "args": {"endpoint": "https://example.com"}}
    ctx = context(
        {"type": "container/create-volume", "id": "v", "args": {"name": "v"}},
        top={"logistics": {"send": api, "receive": api}},
    )
    assert paths(ctx) == ["logistics"]


def test_each_problem_is_told_once() -> None:
    ctx = context(op("a"), op("b"), defaults={"work_dir": "here"})
    assert paths(ctx) == ["global.work_dir"]


@pytest.mark.parametrize(
    ("ops", "everywhere", "count", "needed"),
    [
        ([op("a"), op("b")], False, 1, None),
        ([op("a", gpu=True), op("b", gpu=True)], False, 1, 1),
        ([op("a", gpu=True), op("b", gpu=True)], False, 4, 4),
        ([op("a", gpu=True, group="s"), op("b", group="s")], False, 1, 1),
        ([op("a", gpu=True, group="s"), op("b", gpu=True, group="s")], False, 2, 4),
        ([op("a", group="s"), op("b", group="s"), op("c", group="s")], True, 1, 3),
        # To depend is to wait until the other is ready, not until it ends: both run at once.
        (
            [
                op("a", gpu=True, group="s"),
                run_op("b", {"image": "i", "gpu": True}, group="s", depends_on=["a"]),
            ],
            False,
            1,
            2,
        ),
    ],
)
def test_gpus_of_a_stage(ops: list[dict[str, Any]], everywhere: bool, count: int, needed: int | None) -> None:
    demand = gpu_demand(context(*ops, defaults={"gpu": everywhere}, gpu=Gpu(count=count)))
    assert (demand.needed if demand else None) == needed
    assert (demand is not None and demand.exceeds) == (needed is not None and needed > count)


def test_the_sentence_names_stage_and_ops() -> None:
    demand = gpu_demand(context(op("a", gpu=True, group="s"), op("b", gpu=True, group="s")))
    assert demand is not None
    assert demand.message == (
        'stage "s" needs 2 GPUs at once for "a", "b", but the job\'s slot has 1; '
        "give each op with gpu a stage of its own (execution.group)"
    )


def test_hidden_host_names_of_a_posters_job_cannot_be_told() -> None:
    assert paths(context(op(private=True, expose=80), run=RUN)) == ["ops[0].args.private"]
    assert paths(context(op(private=True), run=RUN)) == []


def volume_op(number: int) -> dict[str, Any]:
    return {"type": "container/create-volume", "id": f"v{number}", "args": {"name": f"v{number}"}}


@pytest.mark.parametrize(
    ("size", "job_size", "allowed"), [("10Gi", "40Gi", 4), ("15Gi", "40Gi", 2), ("50Gi", "40Gi", 0)]
)
def test_the_volumes_of_a_job_are_bounded_together(size: str, job_size: str, allowed: int) -> None:
    storage = Storage(size=size, job_size=job_size)
    fits, beyond = (
        replace(context(op(), *(volume_op(n) for n in range(count))), storage=storage)
        for count in (allowed, allowed + 1)
    )
    assert unsupported(fits) == []
    (problem,) = unsupported(beyond)
    assert problem.path == "ops"
    assert f"{allowed + 1} volumes of {size} each are more than the {job_size}" in str(problem)


def test_volumes_of_a_stranger_are_bounded_by_default() -> None:
    """63 claims of 10 GiB once took what no slot had promised."""
    many = context(op(), *(volume_op(n) for n in range(8)))
    assert paths(many) == ["ops"]
