from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nosana_operator.api import Endpoint, Exposure
from nosana_operator.definition import (
    LiteralError,
    deployment_hash,
    deployment_service_id,
    exposed_ports,
    service_id,
)
from nosana_operator.workload import (
    ArgsError,
    JobContext,
    build_ingresses,
    build_objects,
    build_op_objects,
    build_services,
    literal_context,
    op_endpoints,
    run_args,
)
from support.workload import RUN, UID, context, op


def services(ctx: JobContext, index: int = 0) -> list[dict[str, Any]]:
    return build_services(ctx, index, exposed_ports(run_args(ctx, index)))


def endpoints(ctx: JobContext, index: int = 0) -> list[Endpoint]:
    return op_endpoints(ctx, index, exposed_ports(run_args(ctx, index)))


def ingresses(ctx: JobContext, index: int = 0) -> list[dict[str, Any]]:
    return build_ingresses(ctx, index, exposed_ports(run_args(ctx, index)))


def test_each_port_has_its_service() -> None:
    ctx = context(op(expose=[80, {"port": 8080}]), run=RUN)
    assert [body["metadata"]["name"] for body in services(ctx)] == [
        f"ep-{service_id(0, port, RUN.job).lower()}" for port in (80, 8080)
    ]
    pod = build_op_objects(ctx, 0)[-1]
    for body in services(ctx):
        selector = body["spec"]["selector"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        assert len(body["metadata"]["name"]) <= 63


def test_services_of_two_ops_do_not_select_each_other() -> None:
    ctx = context(op("a", expose=80), op("b", expose=80))
    first, second = services(ctx, 0)[0], services(ctx, 1)[0]
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["spec"]["selector"] != second["spec"]["selector"]


def test_without_ports_there_is_nothing() -> None:
    ctx = context(op(), domain="x.test")
    assert services(ctx) == ingresses(ctx) == []
    assert endpoints(ctx) == []


def test_without_a_domain_there_is_no_ingress() -> None:
    ctx = context(op(expose=80))
    assert ingresses(ctx) == []
    (endpoint,) = endpoints(ctx)
    assert endpoint.url is None
    assert endpoint.service == f"ep-{endpoint.id.lower()}.jobs.svc:80"


def test_a_host_for_each_port() -> None:
    ctx = context(op("Web", expose=[80, 81]), domain="x.test", run=RUN)
    (body,) = ingresses(ctx)
    told = endpoints(ctx)
    assert [rule["host"] for rule in body["spec"]["rules"]] == [f"{e.id.lower()}.x.test" for e in told]
    assert [e.url for e in told] == [f"http://{e.id.lower()}.x.test" for e in told]
    assert [(e.op, e.port, e.state) for e in told] == [("Web", 80, "Unknown"), ("Web", 81, "Unknown")]
    backends = [rule["http"]["paths"][0]["backend"]["service"] for rule in body["spec"]["rules"]]
    assert [(b["name"], b["port"]["number"]) for b in backends] == [
        (s["metadata"]["name"], s["spec"]["ports"][0]["port"]) for s in services(ctx)
    ]


def test_ids_are_the_ones_that_clients_compute() -> None:
    """A poster finds the service by the hash alone; an op's index counts every op."""
    ctx = context(op("a"), op("b", expose=80), run=RUN)
    assert endpoints(ctx, 1)[0].id == "2ehaBb1hmc48XVpMPTKGBvPr3GDMqC8tde3VjEr1vnJz"


@pytest.mark.parametrize(
    ("own", "default", "host", "class_name"),
    [
        (Exposure(), Exposure(), None, None),
        (Exposure(), Exposure(domain="d.test", ingress_class_name="nginx"), "d.test", "nginx"),
        (Exposure(domain="o.test"), Exposure(domain="d.test", ingress_class_name="nginx"), "o.test", "nginx"),
        (
            Exposure(domain="o.test", ingress_class_name="own"),
            Exposure(ingress_class_name="nginx"),
            "o.test",
            "own",
        ),
    ],
)
def test_the_settings_fill_what_the_job_leaves_out(
    own: Exposure, default: Exposure, host: str | None, class_name: str | None
) -> None:
    ctx = context(op(expose=80))
    ctx = replace(ctx, spec=ctx.spec.model_copy(update={"exposure": own}), default_exposure=default)
    bodies = ingresses(ctx)
    assert [body["spec"]["rules"][0]["host"].partition(".")[2] for body in bodies] == ([host] if host else [])
    assert [body["spec"].get("ingressClassName") for body in bodies] == ([class_name] if host else [])


def test_an_op_has_a_host_name_where_one_is_asked_for() -> None:
    ctx = context(op("db", expose=80), op("web", cmd=["--db", "%%ops.db.host%%:5432"]))
    headless, _ = services(ctx, 0)
    assert headless["metadata"]["name"] == "job-0"
    assert headless["spec"]["clusterIP"] == "None"
    assert services(ctx, 1) == []
    assert run_args(ctx, 1).cmd == ["--db", "job-0:5432"]


def test_what_literals_stand_for() -> None:
    private = literal_context(context(op(expose=80), defaults={"variables": {"A": "1"}}))
    assert (private.job, private.host, private.project, private.frps_address) == (UID, "here", "jobs", "")
    assert private.variables == {"A": "1"}
    assert private.ops["x"].endpoints == {}
    market = literal_context(context(op(expose=80), run=RUN, domain="x.test"))
    assert (market.job, market.host, market.project) == (RUN.job, RUN.node, RUN.project)
    assert market.ops["x"].endpoints == {"80": f"{service_id(0, 80, RUN.job).lower()}.x.test"}


def test_ports_may_come_from_variables() -> None:
    ctx = context(op(expose="%%global.variables.PORT%%"), defaults={"variables": {"PORT": "7000"}})
    service, pod = build_op_objects(ctx, 0)
    assert service["spec"]["ports"][0]["port"] == 7000
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 7000, "protocol": "TCP"}]
    assert [endpoint.port for endpoint in endpoints(ctx)] == [7000]


def test_a_literal_without_a_value_fails_the_op() -> None:
    with pytest.raises(LiteralError):
        build_objects(context(op(cmd=["%%global.variables.NONE%%"])))


def test_a_literal_may_give_what_is_no_image() -> None:
    with pytest.raises(ArgsError, match="not an image reference"):
        build_objects(context(op(image="%%global.job%%"), run=RUN))


def test_objects_come_in_the_order_of_making() -> None:
    ctx = context(op("a", expose=80), op("b"), domain="x.test")
    assert [body["kind"] for body in build_objects(ctx)] == ["Service", "Ingress", "Pod", "Pod"]
    assert build_objects(ctx) == build_objects(ctx)


def test_an_op_that_runs_nothing_has_no_arguments_to_run() -> None:
    ctx = context({"type": "container/create-volume", "id": "v", "args": {"name": "v"}})
    with pytest.raises(TypeError, match="runs no container"):
        run_args(ctx, 0)
    assert [body["kind"] for body in build_objects(ctx)] == ["PersistentVolumeClaim"]


def test_a_private_port_has_an_id_that_the_address_does_not_give_away() -> None:
    ctx = context(op(expose=80, private=True), domain="x.test")
    identity = endpoints(ctx)[0].id
    assert len(identity) == 45
    assert identity != service_id(0, 80, ctx.job_address)
    assert endpoints(ctx)[0].id == identity, "the same after a restart"
    [service], [ingress] = services(ctx), ingresses(ctx)
    assert service["metadata"]["name"] == f"ep-{identity.lower()}"
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == [f"{identity.lower()}.x.test"]


def test_the_host_of_a_deployment_leads_to_the_ops_first_port() -> None:
    ctx = context(
        op("a", expose=[80, 81], env={"E": "%%ops.a.deployment_endpoint%%"}),
        domain="x.test",
        run=RUN,
        top={"deployment_id": "d-1"},
    )
    wanted = deployment_service_id("a", deployment_hash("d-1", RUN.project)).lower() + ".x.test"
    assert (run_args(ctx, 0).env or {})["E"] == wanted
    [ingress] = ingresses(ctx)
    [rule] = [rule for rule in ingress["spec"]["rules"] if rule["host"] == wanted]
    assert rule["http"]["paths"][0]["backend"]["service"]["port"]["number"] == 80
    assert len(ingress["spec"]["rules"]) == 3
