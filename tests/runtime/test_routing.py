"""Which keys a change concerns."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nosana_operator.api import LABEL_JOB
from nosana_operator.kube import ObjectCache
from nosana_operator.runtime.queue import WorkQueue
from nosana_operator.runtime.routing import CapacityWatch, Router, job_key, latest_epoch, market_key
from nosana_operator.runtime.watching import Change


def body(kind: str, name: str = "x", namespace: str | None = "ns", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"} | parts.pop("metadata", {})
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"kind": kind, "metadata": metadata, **parts}


OWNED_POD = body("Pod", "j-0", metadata={"labels": {LABEL_JOB: "j"}})
RUN_JOB = body("NosanaJob", "run-a", spec={"run": {"marketRef": {"namespace": "system", "name": "m"}}})


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        (body("NosanaJob", "j"), ("ns", "j")),
        (OWNED_POD, ("ns", "j")),
        (body("Pod"), None),
        (body("Pod", metadata={"labels": {}}), None),
        (body("Node", namespace=None), None),
        (body("NosanaMarket"), None),
    ],
)
def test_job_key(changed: dict[str, Any], key: object) -> None:
    assert job_key(Change(changed["kind"], changed)) == key


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        (body("NosanaMarket", "m"), ("ns", "m")),
        (RUN_JOB, ("system", "m")),
        (body("NosanaJob", spec={}), None),
        (body("NosanaJob"), None),
        (body("NosanaJob", spec={"run": {"marketRef": "m"}}), None),
        (body("NosanaJob", spec=None), None),
        (OWNED_POD, None),
    ],
)
def test_market_key(changed: dict[str, Any], key: object) -> None:
    assert market_key(Change(changed["kind"], changed)) == key


def pod(**status: str) -> dict[str, Any]:
    return body(
        "Pod",
        spec={"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "1"}}}]},
        status={"phase": "Running", **status},
    )


def test_a_pod_moves_capacity_when_it_is_placed_and_when_it_ends() -> None:
    watch = CapacityWatch()
    waiting = body("Pod", spec={"containers": []}, status={"phase": "Pending"})
    assert not watch.moved(Change("Pod", waiting))
    assert watch.moved(Change("Pod", pod()))
    assert not watch.moved(Change("Pod", pod(podIP="10.0.0.1")))
    resized = pod()
    resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    assert watch.moved(Change("Pod", resized))
    assert watch.moved(Change("Pod", pod(phase="Succeeded")))
    assert not watch.moved(Change("Pod", pod(phase="Succeeded"), deleted=True))


def test_a_running_pod_that_is_deleted_moves_capacity() -> None:
    watch = CapacityWatch()
    watch.moved(Change("Pod", pod()))
    assert watch.moved(Change("Pod", pod(), deleted=True))


def test_a_node_moves_capacity_by_what_it_can_take_only() -> None:
    watch = CapacityWatch()
    node = body(
        "Node",
        namespace=None,
        spec={},
        status={
            "allocatable": {"nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}],
        },
    )
    assert watch.moved(Change("Node", node))
    beat = copy.deepcopy(node)
    beat["status"]["conditions"][0]["lastHeartbeatTime"] = "2"
    beat["metadata"]["resourceVersion"] = "2"
    assert not watch.moved(Change("Node", beat))
    for change in (
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}},
        {"status": {**node["status"], "allocatable": {"nvidia.com/gpu": "1"}}},
        {"status": {**node["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}},
    ):
        watch = CapacityWatch()
        watch.moved(Change("Node", node))
        assert watch.moved(Change("Node", {**node, **change})), change
    assert watch.moved(Change("Node", node, deleted=True))


def test_a_quota_moves_capacity_when_its_figures_change() -> None:
    def quota(hard: str, used: str) -> Change:
        return Change(
            "ResourceQuota",
            body("ResourceQuota", spec={"hard": {"pods": hard}}, status={"used": {"pods": used}}),
        )

    watch = CapacityWatch()
    assert watch.moved(quota("2", "0"))
    assert not watch.moved(quota("2", "0"))
    assert watch.moved(quota("2", "1"))
    assert watch.moved(quota("3", "1"))


def test_other_kinds_never_move_capacity() -> None:
    assert not CapacityWatch().moved(Change("NosanaJob", RUN_JOB))


def test_the_latest_epoch_is_that_of_any_intent_or_nosana_market() -> None:
    job = {"status": {"settlement": {"transaction": {"epoch": 3}}}}
    market = {
        "status": {"transactions": [{"epoch": 7}, {"epoch": 2}, {"signature": "before there were epochs"}]}
    }
    assert latest_epoch([], []) == 0
    assert latest_epoch([{}, {"status": {"settlement": {}}}], [{"status": {}}]) == 0
    assert latest_epoch([job], [{}]) == 3
    assert latest_epoch([job], [market]) == 7
    assert latest_epoch([job], [market, {"status": {"epoch": 8}}]) == 8


async def test_every_change_of_a_pod_is_observed_once_the_router_is_open() -> None:
    """A pod that a kubelet refused is deleted soon: whoever looks at the cache later does not see it."""
    cache = ObjectCache(("Pod", "Node", "ResourceQuota", "NosanaJob", "NosanaMarket"), indexes={"Pod": ()})
    router = Router(cache, WorkQueue("jobs"), WorkQueue("markets"), WorkQueue("runs"))
    observed: list[str] = []
    router(Change("Pod", OWNED_POD))
    cache.put(pod())
    router.open(lambda changed: observed.append(changed["metadata"]["name"]))
    router(Change("Pod", OWNED_POD, deleted=True))
    router(Change("Node", body("Node", namespace=None)))
    assert observed == ["x", "j-0"]
