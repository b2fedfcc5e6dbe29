"""ResourceQuotas: slots that the nodes hold and a quota does not are no slots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nosana_operator.api import LABEL_JOB_UID, Gpu, Resources
from nosana_operator.api.placement import NodeSettings
from nosana_operator.inventory import Cluster, Holder, Share, divide

GPU = "nvidia.com/gpu"
SLOT = Resources(cpu="2", memory="8Gi")
PLAIN = Resources()


def node(name: str = "a", gpus: int = 8) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": NodeSettings().labels},
        "status": {
            "allocatable": {GPU: str(gpus), "cpu": "64", "memory": "512Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def quota(used: dict[str, str] | None = None, namespace: str = "jobs", **spec: Any) -> dict[str, Any]:
    hard = spec.pop("hard")
    return {
        "metadata": {"name": "q", "namespace": namespace},
        "spec": {"hard": hard, **spec},
        "status": {"hard": hard, "used": dict.fromkeys(hard, "0") | (used or {})},
    }


def pod(uid: str = "", on: str | None = "a", namespace: str = "jobs", **requests: str) -> dict[str, Any]:
    quantities = {name.replace("gpu", GPU): text for name, text in requests.items()}
    return {
        "metadata": {"namespace": namespace, "labels": {LABEL_JOB_UID: uid} if uid else {}},
        "spec": {"containers": [{"resources": {"requests": quantities, "limits": quantities}}]}
        | ({"nodeName": on} if on else {}),
        "status": {"phase": "Running" if on else "Pending"},
    }


def holder(name: str = "m", resources: Resources = SLOT, **changes: Any) -> Holder:
    return replace(Holder(name, Gpu(), resources, "jobs"), **changes)


def share(*quotas: Any, pods: Any = (), nodes: Any = None, mine: Holder | None = None) -> Share:
    mine = mine or holder()
    return divide(Cluster(nodes or [node()], pods, quotas), [mine])[mine.name]


ROWS: list[tuple[str, dict[str, Any], Resources, int]] = [
    ("pods", {"hard": {"pods": "3"}}, SLOT, 3),
    ("pods, some used", {"hard": {"pods": "3"}, "used": {"pods": "2"}}, SLOT, 1),
    ("more used than allowed", {"hard": {"pods": "3"}, "used": {"pods": "5"}}, SLOT, 0),
    ("CPU requests", {"hard": {"requests.cpu": "5"}}, SLOT, 2),
    ("the same by its short name", {"hard": {"cpu": "5"}}, SLOT, 2),
    ("memory requests", {"hard": {"requests.memory": "24Gi"}, "used": {"requests.memory": "4Gi"}}, SLOT, 2),
    ("GPUs", {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "3"}}, SLOT, 1),
    ("CPU limits", {"hard": {"limits.cpu": "7"}}, SLOT, 3),
    ("memory limits", {"hard": {"limits.memory": "7Gi"}}, SLOT, 0),
    ("objects: pods", {"hard": {"count/pods": "2"}}, SLOT, 2),
    ("objects: Secrets, for results", {"hard": {"secrets": "5"}, "used": {"secrets": "4"}}, SLOT, 1),
    ("objects: Services, for exposed ports", {"hard": {"count/services": "2"}}, SLOT, 2),
    ("objects: NosanaJobs", {"hard": {"count/nosanajobs.nosana.io": "6"}}, SLOT, 6),
    ("the tightest counts", {"hard": {"pods": "7", "requests.cpu": "4", "secrets": "5"}}, SLOT, 2),
    ("what a job does not take", {"hard": {"count/configmaps": "0", "requests.amd.com/gpu": "0"}}, SLOT, 8),
    ("another namespace", {"hard": {"pods": "0"}, "namespace": "elsewhere"}, SLOT, 8),
    ("a slot without CPU cannot be admitted", {"hard": {"requests.cpu": "99"}}, PLAIN, 0),
    ("a slot without limits cannot be admitted", {"hard": {"limits.memory": "99Gi"}}, PLAIN, 0),
    ("a scope that selects no op", {"hard": {"pods": "0"}, "scopes": ["Terminating"]}, SLOT, 8),
    ("a scope that selects ops", {"hard": {"pods": "1"}, "scopes": ["NotTerminating"]}, SLOT, 1),
    ("best effort, and ops are not", {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}, SLOT, 8),
    ("best effort, and ops are", {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}, PLAIN, 0),
    (
        "a selector that nobody here can judge counts",
        {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}},
        SLOT,
        1,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("_", "made", "resources", "free"), ROWS, ids=[row[0] for row in ROWS])
def test_slots_are_bounded_by_the_quota(
    _: str, made: dict[str, Any], resources: Resources, free: int
) -> None:
    found = share(quota(**made), mine=holder(resources=resources))
    assert found.free == free
    assert bool(found.shortage) is (free == 0)


def test_the_message_names_the_quota_and_what_it_lacks() -> None:
    used = {"requests.nvidia.com/gpu": "4"}
    assert share(quota(used, hard={"requests.nvidia.com/gpu": "4"})).shortage == (
        "ResourceQuota jobs/q leaves 0 of 1 requests.nvidia.com/gpu"
    )
    assert share(quota(hard={"limits.memory": "4Gi"})).shortage == (
        "ResourceQuota jobs/q leaves 4Gi of 8Gi limits.memory"
    )
    assert share(quota(hard={"limits.cpu": "4"}), mine=holder(resources=PLAIN)).shortage == (
        "ResourceQuota jobs/q bounds limits.cpu, which spec.slots.resources does not set"
    )


@pytest.mark.parametrize("status", [{}, {"hard": {"pods": "5"}}, {"hard": {}, "used": {}}])
def test_a_quota_without_figures_is_not_room(status: dict[str, Any]) -> None:
    """The API server itself admits nothing until the figures are there."""
    found = share(quota(hard={"pods": "5"}) | {"status": status})
    assert found.free == 0
    assert found.shortage == "ResourceQuota jobs/q has no status yet, so it is not known what it leaves"


def test_every_quota_of_the_namespace_counts() -> None:
    assert share(quota(hard={"pods": "5"}), quota(hard={"requests.cpu": "4"})).free == 2


def test_own_jobs_keep_their_slot_within_the_quota() -> None:
    """What the pods of running jobs take is in the quota's figures already."""
    used = {"pods": "2", "requests.nvidia.com/gpu": "2"}
    limit = quota(used, hard={"pods": "3", "requests.nvidia.com/gpu": "3"})
    pods = [pod(uid, gpu="1", cpu="2", memory="8Gi") for uid in ("u1", "u2")]
    running = holder(taken=2, job_uids=frozenset({"u1", "u2"}))
    found = share(limit, pods=pods, mine=running)
    assert (found.placed, found.free) == (2, 1)
    standing = replace(running, taken=3)
    assert (share(limit, pods=pods, mine=standing).placed, share(limit, pods=pods, mine=standing).free) == (
        3,
        0,
    )


def test_a_job_between_two_stages_keeps_the_gpus_of_its_slot() -> None:
    """Its pod takes a CPU only, and its next op takes the GPU."""
    limit = quota({"requests.nvidia.com/gpu": "0"}, hard={"requests.nvidia.com/gpu": "1"})
    running = holder(taken=1, job_uids=frozenset({"u1"}))
    assert share(limit, pods=[pod("u1", cpu="1")], mine=running).free == 0
    assert share(limit, pods=[pod("u1", on=None, cpu="1")], mine=running).free == 0, "not scheduled yet"


def test_a_pod_that_waits_for_a_node_is_counted_once() -> None:
    limit = quota({"pods": "1"}, hard={"pods": "2"})
    waiting = holder(taken=1, job_uids=frozenset({"u1"}))
    found = share(limit, pods=[pod("u1", on=None, gpu="1", cpu="2", memory="8Gi")], mine=waiting)
    assert (found.placed, found.free) == (1, 1)


def test_pods_that_the_quotas_figures_do_not_show_yet_count() -> None:
    """The watches of pods and quotas lag differently."""
    stale = quota({"pods": "0"}, hard={"pods": "2"})
    assert share(stale, pods=[pod(cpu="1"), pod(on=None, cpu="1")]).free == 0
    assert share(stale, pods=[pod(cpu="1", namespace="elsewhere")]).free == 2


def test_markets_of_one_namespace_share_its_quota() -> None:
    limit = quota(hard={"requests.nvidia.com/gpu": "3"})
    found = divide(Cluster([node()], [], [limit]), [holder("a", taken=2), holder("b")])
    assert (found["a"].placed, found["a"].free, found["b"].free) == (2, 1, 1)
    found = divide(Cluster([node()], [], [limit]), [holder("a", taken=2, reserve=1), holder("b")])
    assert (found["a"].reserved, found["b"].free) == (1, 0)


def test_what_a_quota_does_not_admit_takes_no_node_from_others() -> None:
    over, other = holder("over", taken=2), holder("other", namespace="elsewhere")
    found = divide(Cluster([node(gpus=2)], [], [quota(hard={"pods": "0"})]), [over, other])
    assert (found["over"].placed, found["other"].free) == (0, 2)
