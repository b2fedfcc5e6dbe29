"""What a real API server makes of our CRDs, their rules, and of the objects that jobs become."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from nosana_operator.api import API_VERSION, JOB_KIND, MARKET_KIND, PLURALS, NosanaJobSpec
from nosana_operator.definition import parse
from nosana_operator.kube import KubeClient, KubeRefused
from nosana_operator.workload import (
    Isolation,
    JobContext,
    build_alias_slice,
    build_namespace_policies,
    run_args,
)

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "workload" / "golden").glob("*.yaml"))
SHOWN = sorted([*(ROOT / "manifests" / "samples").glob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])

DEFINITION = {
    "version": "0.1",
    "type": "container",
    "ops": [{"type": "container/run", "id": "x", "args": {"image": "ubuntu"}}],
}
RUN = {
    "marketRef": {"namespace": "nosana-system", "name": "lab"},
    "market": "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf",
    "job": "3EwUexRdXedDk2EL72py5FQd9fG2aVR9trD3EqEbGCDu",
    "run": "8Vr7oqCPNcbiKFFq9bqf6xQPPGVNGXSBq3nnR6T3kfSH",
    "node": "7rFPFnxjXHC2sfDy3qrDa9pEb4j49oivMuV7e8sYDPmB",
    "project": "FEEw3nDocYSyrLT4HPjibjYuaNekakWNmasNvEx3nHKi",
    "payer": "FEEw3nDocYSyrLT4HPjibjYuaNekakWNmasNvEx3nHKi",
    "runPayer": "7rFPFnxjXHC2sfDy3qrDa9pEb4j49oivMuV7e8sYDPmB",
    "price": 115,
    "startedAt": "2026-01-02T03:04:05Z",
}
WALLET = {"secretRef": {"name": "host-key"}}
MARKET = {"address": RUN["market"], "network": "localnet", "jobNamespace": "nosana-jobs", "wallets": [WALLET]}
CID = "QmTcNQ4dGq8veeg8v5cQyGoaJEPSYQnVTd1TvfckVFVzRu"


def bodies_in(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def job(namespace: str, name: str = "job", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": JOB_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def market(namespace: str, name: str = "lab", **spec: Any) -> dict[str, Any]:
    return job(namespace, name, **(MARKET | spec)) | {"kind": MARKET_KIND}


@pytest.mark.parametrize(
    "spec",
    [
        {"definition": DEFINITION},
        # Nosana's own words survive, whatever a schema of ours would make of them.
        {"definition": DEFINITION | {"meta": {"a": {"b": [1, "x"]}}, "anything": None}},
        {"definitionFrom": {"ipfs": CID}},
        {"definitionFrom": {"configMap": {"name": "c"}}},
        {"definitionFrom": {"secret": {"name": "s", "key": "job.json"}}},
        {"definition": DEFINITION, "run": RUN, "timeout": 1},
        {
            "definition": DEFINITION,
            "gpu": {"count": 2, "product": "X", "minMemoryMiB": 1, "nodeSelector": {"a/b": "c"}},
            "resources": {"cpu": "500m", "memory": "1.5Gi", "ephemeralStorage": "10G"},
        },
        {"definition": DEFINITION, "gpu": {"tolerations": [{"operator": "Exists"}]}},
    ],
)
async def test_jobs_that_are_taken(installed: KubeClient, namespace: str, spec: dict[str, Any]) -> None:
    made = await installed.create(job(namespace, **spec))
    for part, value in spec.items():
        if part not in ("gpu", "definitionFrom"):  # these get defaults
            assert made["spec"][part] == value
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "set exactly one of definition and definitionFrom"),
        ({"definition": DEFINITION, "definitionFrom": {"ipfs": CID}}, "set exactly one of definition"),
        ({"definitionFrom": {}}, "set exactly one of ipfs, configMap, secret"),
        ({"definitionFrom": {"ipfs": CID, "secret": {"name": "s"}}}, "set exactly one of ipfs"),
        ({"definitionFrom": {"ipfs": "Qm"}}, "spec.definitionFrom.ipfs"),
        ({"definition": "text"}, "spec.definition"),
        ({"definition": DEFINITION, "timeout": 0}, "spec.timeout"),
        ({"definition": DEFINITION, "gpu": {"count": 0}}, "spec.gpu.count"),
        ({"definition": DEFINITION, "gpu": {"count": 65}}, "spec.gpu.count"),
        ({"definition": DEFINITION, "resources": {"memory": "lots"}}, "spec.resources.memory"),
        ({"definition": DEFINITION, "resources": {"memory": 1}}, "spec.resources.memory"),
        ({"definition": DEFINITION, "run": {**RUN, "price": -1}}, "spec.run.price"),
        ({"definition": DEFINITION, "run": {**RUN, "job": "0OIl" * 9}}, "spec.run.job"),
        ({"definition": DEFINITION, "run": {k: v for k, v in RUN.items() if k != "node"}}, "spec.run.node"),
    ],
)
async def test_jobs_that_are_refused(
    installed: KubeClient, namespace: str, spec: dict[str, Any], told: str
) -> None:
    with pytest.raises(KubeRefused) as caught:
        await installed.create(job(namespace, **spec))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("a", True),
        ("run-abcdefghij0123456789", True),
        ("j" * 52, True),
        ("j" * 53, False),
        ("1st", False),
        ("a.b", False),
    ],
)
async def test_names_leave_room_for_pods(
    installed: KubeClient, namespace: str, name: str, taken: bool
) -> None:
    body = job(namespace, name, definition=DEFINITION)
    if taken:
        assert (await installed.create(body))["metadata"]["name"] == name
    else:
        with pytest.raises(KubeRefused, match=r"metadata\.name has to be a DNS label"):
            await installed.create(body)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"definition": DEFINITION}, {"definition": DEFINITION, "stop": True, "timeout": 60}, None),
        ({"definition": DEFINITION, "run": RUN}, {"definition": DEFINITION, "run": RUN, "stop": True}, None),
        (
            {"definition": DEFINITION},
            {"definitionFrom": {"ipfs": CID}},
            "the definition is immutable",
        ),
        (
            {"definitionFrom": {"ipfs": CID}},
            {"definitionFrom": {"configMap": {"name": "c"}}},
            "the definition is immutable",
        ),
        ({"definition": DEFINITION}, {"definition": DEFINITION, "run": RUN}, "set at creation or never"),
        ({"definition": DEFINITION, "run": RUN}, {"definition": DEFINITION}, "set at creation or never"),
        (
            {"definition": DEFINITION, "run": RUN},
            {"definition": DEFINITION, "run": RUN | {"price": 1}},
            "run is immutable",
        ),
    ],
)
async def test_what_may_change_in_a_job(
    installed: KubeClient, namespace: str, before: dict[str, Any], after: dict[str, Any], told: str | None
) -> None:
    await installed.apply(job(namespace, **before), manager="tests")
    if told is None:
        changed = await installed.apply(job(namespace, **after), manager="tests")
        assert changed["metadata"]["generation"] == 2
    else:
        with pytest.raises(KubeRefused, match=told):
            await installed.apply(job(namespace, **after), manager="tests")


async def test_the_words_of_a_definition_may_not_change(installed: KubeClient, namespace: str) -> None:
    """A definition that ran is the one that stands there."""
    await installed.apply(job(namespace, definition=DEFINITION), manager="tests")
    other = copy.deepcopy(DEFINITION)
    other["ops"][0]["args"]["image"] = "busybox"  # type: ignore[index]
    with pytest.raises(KubeRefused, match="the definition is immutable"):
        await installed.apply(job(namespace, definition=other), manager="tests")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, None),
        ({"slots": {"max": 0, "reserve": 1, "resources": {"cpu": "1"}}, "paused": True}, None),
        # An address that is none gets a condition that says so, not a refusal.
        ({"address": "not an address"}, None),
        (
            {"onBadDefinition": "Quit", "wallets": [WALLET, {"secretRef": {"name": "host-key", "key": "b"}}]},
            None,
        ),
        ({"wallets": [WALLET, WALLET]}, "each wallet once"),
        ({"wallets": []}, "spec.wallets"),
        ({"onBadDefinition": "Ignore"}, "spec.onBadDefinition"),
        ({"jobNamespace": "Not_A_Namespace"}, "spec.jobNamespace"),
        ({"slots": {"reserve": -1}}, "spec.slots.reserve"),
    ],
)
async def test_markets(installed: KubeClient, namespace: str, spec: dict[str, Any], told: str | None) -> None:
    if told is None:
        made = await installed.create(market(namespace, **spec))
        assert made["spec"]["gpu"]["count"] == 1
    else:
        with pytest.raises(KubeRefused) as caught:
            await installed.create(market(namespace, **spec))
        assert told in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"paused": True, "gpu": {"count": 2}, "slots": {"max": 3}}, None),
        ({"address": RUN["job"]}, "spec.address is immutable"),
        ({"network": "devnet"}, "spec.network is immutable"),
        ({"jobNamespace": "other"}, "spec.jobNamespace is immutable"),
    ],
)
async def test_what_may_change_in_a_market(
    installed: KubeClient, namespace: str, change: dict[str, Any], told: str | None
) -> None:
    await installed.apply(market(namespace), manager="tests")
    if told is None:
        await installed.apply(market(namespace, **change), manager="tests")
    else:
        with pytest.raises(KubeRefused, match=told):
            await installed.apply(market(namespace, **change), manager="tests")


async def test_a_misspelt_field_is_told(installed: KubeClient, namespace: str) -> None:
    with pytest.raises(KubeRefused, match=r'unknown field "spec\.gpus"'):
        await installed.create(job(namespace, definition=DEFINITION, gpus=4))


async def test_a_large_definition_stays_within_the_cost_of_the_rules(
    installed: KubeClient, namespace: str
) -> None:
    words = [f"--word-{number:05}" for number in range(16_000)]
    large = {
        **DEFINITION,
        "ops": [{"type": "container/run", "id": "x", "args": {"image": "a", "cmd": words}}],
    }
    await installed.apply(job(namespace, definition=large), manager="tests")
    stopped = await installed.apply(job(namespace, definition=large, stop=True), manager="tests")
    assert stopped["spec"]["stop"] is True


async def test_status_is_apart_and_jobs_are_found_by_market(installed: KubeClient, namespace: str) -> None:
    await installed.create(job(namespace, definition=DEFINITION, run=RUN) | {"status": {"phase": "Running"}})
    await installed.create(job(namespace, "other", definition=DEFINITION))
    made = await installed.get(JOB_KIND, namespace, "job")
    assert made["status"] == {"observedGeneration": -1}, "nobody has seen it yet"
    found = await installed.list(JOB_KIND, namespace, field_selector=f"spec.run.market={RUN['market']}")
    assert [body["metadata"]["name"] for body in found] == ["job"]
    body = {"apiVersion": API_VERSION, "kind": JOB_KIND, "metadata": {"name": "job", "namespace": namespace}}
    await installed.apply(body | {"status": {"phase": "Running"}}, manager="tests", subresource="status")
    found = await installed.list(JOB_KIND, namespace, field_selector="status.phase=Running")
    assert [body["metadata"]["name"] for body in found] == ["job"]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
async def test_what_we_show_is_taken(installed: KubeClient, namespace: str, path: Path) -> None:
    for body in bodies_in(path):
        body["metadata"]["namespace"] = namespace
        made = await installed.apply(body, manager="tests")
        assert made["metadata"]["uid"]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
async def test_what_jobs_become_is_taken(installed: KubeClient, namespace: str, path: Path) -> None:
    """A schema is not all: the API server's own checks (names, ports, quantities, selectors) pass as well."""
    for body in bodies_in(path):
        body["metadata"]["namespace"] = namespace
        # The admin's to make; the server refuses a pod that names one it does not have.
        body.get("spec", {}).pop("runtimeClassName", None)
        made = await installed.create(body)
        if body["kind"] == "Pod":
            sent, got = body["spec"]["containers"][0], made["spec"]["containers"][0]
            assert {key: got.get(key) for key in sent if key not in ("volumeMounts", "resources", "env")} == {
                key: sent[key] for key in sent if key not in ("volumeMounts", "resources", "env")
            }
            # An empty value is left out by the server; nothing else about a variable changes.
            assert [(item["name"], item.get("value", "")) for item in got["env"]] == [
                (item["name"], item["value"]) for item in sent["env"]
            ]


async def test_a_run_cannot_be_suspended(installed: KubeClient, namespace: str) -> None:
    with pytest.raises(KubeRefused, match="a run cannot be suspended"):
        await installed.create(job(namespace, run=RUN, definitionFrom={"ipfs": CID}, suspend=True))


async def test_the_walls_of_a_namespace_are_taken_and_not_changed_twice(
    installed: KubeClient, namespace: str
) -> None:
    addresses = [{"type": "InternalIP", "address": one} for one in ("203.0.113.7", "2001:db8::7")]
    nodes: list[dict[str, Any]] = [{"metadata": {"name": "n"}, "status": {"addresses": addresses}}]
    isolation = Isolation(gateway_namespaces=("ingress",))
    for body in build_namespace_policies(namespace, isolation, nodes, []):
        first = await installed.apply(body, manager="tests")
        second = await installed.apply(body, manager="tests")
        assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_names_of_an_op_are_taken_and_follow_its_address(installed: KubeClient, namespace: str) -> None:
    ops = [{"type": "container/run", "id": "a", "args": {"image": "a", "aliases": "db, cache"}}]
    wanted = {"version": "0.1", "type": "container", "ops": ops}
    ctx = JobContext("names", namespace, "u-1", NosanaJobSpec(definition=wanted), parse(wanted), "here")
    for address in ("10.0.0.1", "10.0.0.2"):
        made = await installed.apply(build_alias_slice(ctx, 0, run_args(ctx, 0), address), manager="tests")
        assert [(e["hostname"], e["addresses"]) for e in made["endpoints"]] == [
            ("db", [address]),
            ("cache", [address]),
        ]


async def test_the_plurals_are_the_ones_in_the_urls(installed: KubeClient) -> None:
    served = yaml.safe_load(await installed.read_path(f"/apis/{API_VERSION}"))
    names = {item["kind"]: item["name"] for item in served["resources"] if "/" not in item["name"]}
    assert names == PLURALS
