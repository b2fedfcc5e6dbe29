from __future__ import annotations

import pytest

from nosana_operator.workload import aliases, build_alias_slice, build_op_objects, run_args
from support.workload import context, op


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("db", ("db",)),
        (" DB, cache ,,db", ("db", "cache")),
        (["a", "B", "a"], ("a", "b")),
        ("", ()),
        ([], ()),
    ],
)
def test_aliases_are_read_as_a_list_of_lower_case_names(
    given: str | list[str], names: tuple[str, ...]
) -> None:
    assert aliases(run_args(context(op(aliases=given)), 0)) == names


def test_the_pod_s_address_has_each_name() -> None:
    ctx = context(op("a", aliases="db,%%ops.b.host%%"), op("b"))
    body = build_alias_slice(ctx, 0, run_args(ctx, 0), "10.1.2.3")
    assert [(e["hostname"], e["addresses"]) for e in body["endpoints"]] == [
        ("db", ["10.1.2.3"]),
        ("job-1", ["10.1.2.3"]),
    ]
    assert body["addressType"] == "IPv4"
    assert build_alias_slice(ctx, 0, run_args(ctx, 0), "fd00::1")["addressType"] == "IPv6"


def test_all_pods_of_the_job_look_for_its_names_and_no_others_do() -> None:
    ctx = context(op("a", aliases="db"), op("b"))
    [service] = [body for body in build_op_objects(ctx, 0) if body["kind"] == "Service"]
    domain = f"{service['metadata']['name']}.jobs.svc.cluster.local"
    for index in (0, 1):
        assert build_op_objects(ctx, index)[-1]["spec"]["dnsConfig"] == {"searches": [domain]}
    assert "dnsConfig" not in build_op_objects(context(op("a")), 0)[-1]["spec"]
    assert (
        build_alias_slice(ctx, 0, run_args(ctx, 0), "10.1.2.3")["metadata"]["labels"][
            "kubernetes.io/service-name"
        ]
        == (service["metadata"]["name"])
    )
