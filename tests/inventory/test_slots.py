from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api import LABEL_JOB_UID, LABEL_MARKET, Gpu, Resources, Toleration
from nosana_operator.api.placement import NodeSettings
from nosana_operator.inventory import Inventory, exclusion, slots

MARKET = "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf"
LINUX = NodeSettings().labels
GPU = "nvidia.com/gpu"


def node(
    name: str = "a",
    gpus: int = 4,
    *,
    cpu: str = "32",
    memory: str = "128Gi",
    pods: str = "110",
    ready: str = "True",
    cordoned: bool = False,
    taints: tuple[dict[str, str], ...] = (),
    resource: str = GPU,
    **labels: str,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": LINUX | {k.replace("__", "/").replace("_", "."): v for k, v in labels.items()},
        },
        "spec": {"unschedulable": cordoned, "taints": list(taints)},
        "status": {
            "allocatable": {
                "cpu": cpu,
                "memory": memory,
                "ephemeral-storage": "100Gi",
                "pods": pods,
                resource: str(gpus),
            },
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
        },
    }


def pod(
    on: str | None = "a",
    gpus: int = 0,
    *,
    market: str | None = None,
    job: str = "u1",
    phase: str = "Running",
    **other: str,
) -> dict[str, Any]:
    quantities = other | ({GPU: str(gpus)} if gpus else {})
    return {
        "metadata": {"labels": {LABEL_MARKET: market, LABEL_JOB_UID: job} if market else {}},
        "spec": {"containers": [{"resources": {"requests": quantities}}]} | ({"nodeName": on} if on else {}),
        "status": {"phase": phase},
    }


def count(
    nodes: list[dict[str, Any]],
    pods: list[dict[str, Any]] | None = None,
    gpu: Gpu | None = None,
    resources: Resources | None = None,
) -> Inventory:
    return slots(
        nodes, pods or [], gpu or Gpu(), resources or Resources(), settings=NodeSettings(), market=MARKET
    )


TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
OTHER_TAINT = {"key": "team", "value": "ml", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "gpu", "total"),
    [
        pytest.param([], Gpu(), 0, id="no node"),
        pytest.param([node()], Gpu(), 4, id="one slot a GPU"),
        pytest.param([node(), node("b", 2)], Gpu(), 6, id="nodes add up"),
        pytest.param([node(gpus=7)], Gpu(count=2), 3, id="the odd GPU is no slot"),
        pytest.param(
            [node(gpus=2), node("b", 2)], Gpu(count=4), 0, id="four GPUs on two nodes are no slot of four"
        ),
        pytest.param([node(gpus=4), node("b", 2)], Gpu(count=4), 1, id="four on one are"),
        pytest.param([node(resource="amd.com/gpu")], Gpu(), 0, id="another resource"),
        pytest.param(
            [node(resource="amd.com/gpu")], Gpu(resource_name="amd.com/gpu"), 4, id="the resource by name"
        ),
        pytest.param([node(ready="False")], Gpu(), 0, id="not ready"),
        pytest.param([node(ready="Unknown")], Gpu(), 0, id="readiness unknown"),
        pytest.param([node(cordoned=True)], Gpu(), 0, id="cordoned"),
        pytest.param([node(taints=(TAINT,))], Gpu(), 4, id="the taint of GPU nodes is tolerated"),
        pytest.param(
            [node(resource="amd.com/gpu", taints=(TAINT,))],
            Gpu(resource_name="amd.com/gpu"),
            0,
            id="that of others not",
        ),
        pytest.param(
            [node(resource="nvidia.com/mig-1g.5gb", taints=(TAINT,))],
            Gpu(resource_name="nvidia.com/mig-1g.5gb"),
            4,
            id="MIG slices sit behind the same taint",
        ),
        pytest.param([node(taints=(OTHER_TAINT,))], Gpu(), 0, id="tainted"),
        pytest.param(
            [node(taints=(OTHER_TAINT | {"effect": "NoExecute"},))], Gpu(), 0, id="tainted NoExecute"
        ),
        pytest.param(
            [node(taints=(OTHER_TAINT | {"effect": "PreferNoSchedule"},))], Gpu(), 4, id="only preferred"
        ),
        pytest.param(
            [node(taints=(OTHER_TAINT,))],
            Gpu(tolerations=(Toleration(key="team", value="ml"),)),
            4,
            id="tolerated",
        ),
        pytest.param(
            [node(taints=(OTHER_TAINT,))],
            Gpu(tolerations=(Toleration(key="team", operator="Equal", value="web"),)),
            0,
            id="another value",
        ),
        pytest.param(
            [node(taints=(OTHER_TAINT,))],
            Gpu(tolerations=(Toleration(key="team", operator="Exists", effect="NoExecute"),)),
            0,
            id="another effect",
        ),
        pytest.param(
            [node(taints=(OTHER_TAINT,))],
            Gpu(tolerations=(Toleration(operator="Exists"),)),
            4,
            id="everything tolerated",
        ),
        pytest.param(
            [node(pool="x"), node("b", pool="y")], Gpu(node_selector={"pool": "x"}), 4, id="selector"
        ),
        pytest.param(
            [node(nvidia_com__gpu_product="A"), node("b", nvidia_com__gpu_product="B")],
            Gpu(product="A"),
            4,
            id="product",
        ),
        pytest.param(
            [
                node("a", nvidia_com__gpu_memory="24576"),
                node("b", nvidia_com__gpu_memory="24575"),
                node("c"),
                node("d", nvidia_com__gpu_memory="lots"),
            ],
            Gpu(min_memory_mi_b=24576),
            4,
            id="memory of the GPU",
        ),
    ],
)
def test_which_nodes_count(nodes: list[dict[str, Any]], gpu: Gpu, total: int) -> None:
    assert count(nodes, gpu=gpu).total == total


@pytest.mark.parametrize(
    ("resources", "total"),
    [
        (Resources(), 4),
        (Resources(cpu="8"), 4),
        (Resources(cpu="8001m"), 3),
        (Resources(memory="64Gi"), 2),
        (Resources(memory="64.000001Gi"), 1),
        (Resources(ephemeral_storage="50Gi"), 2),
        (Resources(cpu="33"), 0),
        (Resources(cpu="0"), 4),
    ],
)
def test_the_other_resources_of_a_slot(resources: Resources, total: int) -> None:
    assert count([node()], resources=resources).total == total


@pytest.mark.parametrize(
    ("pods", "total", "used"),
    [
        pytest.param([pod(gpus=1)], 3, 1, id="another's GPU pod"),
        pytest.param([pod(gpus=4), pod(gpus=4)], 0, 4, id="never below none"),
        pytest.param([pod(gpus=1, phase="Succeeded")], 4, 0, id="ended"),
        pytest.param([pod(None, gpus=1, phase="Pending")], 4, 0, id="not bound"),
        pytest.param([pod("elsewhere", gpus=1)], 4, 0, id="on a node that is gone"),
        pytest.param([pod(cpu="25")], 0, 4, id="its CPU counts too"),
        pytest.param([pod(gpus=1, market=MARKET)], 4, 0, id="our own pod holds one of the slots"),
        pytest.param([pod(gpus=1, market=MARKET, cpu="30")], 4, 0, id="with all it uses"),
        pytest.param([pod(gpus=1, market="other")], 3, 1, id="another market's"),
    ],
)
def test_pods_take_slots(pods: list[dict[str, Any]], total: int, used: int) -> None:
    counted = count([node()], pods, resources=Resources(cpu="8"))
    assert (counted.total, counted.used_by_others) == (total, used)


def test_pod_capacity_bounds_the_slots() -> None:
    assert count([node(pods="3")], [pod()]).total == 2


def test_a_job_on_a_cordoned_node_is_not_taken_from_other_nodes() -> None:
    nodes = [node("a", 2), node("b", 2, cordoned=True)]
    own = [pod("b", 1, market=MARKET, job="u1"), pod("b", 1, market=MARKET, job="u2")]
    counted = count(nodes, own)
    assert counted.total == 4  # two running on b, two free on a
    assert [(n.node, n.slots, n.held, n.excluded) for n in counted.nodes] == [
        ("a", 2, 0, None),
        ("b", 2, 2, "is cordoned"),
    ]


def test_a_pod_without_gpu_on_another_node_adds_no_slot() -> None:
    nodes = [node("a", 2), node("cpu", 0)]
    assert count(nodes, [pod("a", 1, market=MARKET), pod("cpu", market=MARKET)]).total == 2


def test_a_held_slot_counts_even_when_others_took_the_rest() -> None:
    nodes = [node("a", 1), node("b", 1)]
    crowded = [pod("a", 1, market=MARKET), pod("a", cpu="32")]
    assert count(nodes, crowded, resources=Resources(cpu="8")).total == 2


def test_every_reason_is_told() -> None:
    nodes = [
        node("a", ready="False"),
        node("b", cordoned=True),
        node("c", taints=(OTHER_TAINT,)),
        node("d", nvidia_com__gpu_memory="8192"),
        node("e"),
        node("f", nvidia_com__gpu_memory="81920")
        | {"metadata": {"name": "f", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ]
    reasons = {n.node: n.excluded for n in count(nodes, gpu=Gpu(min_memory_mi_b=24000)).nodes}
    assert reasons == {
        "a": "is not ready",
        "b": "is cordoned",
        "c": "has the taint team:NoSchedule",
        "d": "has GPUs of 8192 MiB, fewer than 24000",
        "e": "has no label nvidia.com/gpu.memory with its GPUs' memory",
        "f": "is being deleted",
    }


gpus = st.integers(0, 8)


@given(
    sizes=st.lists(gpus, max_size=4),
    others=st.lists(st.tuples(st.integers(0, 3), gpus), max_size=6),
    own=st.lists(st.integers(0, 3), max_size=6),
    per_slot=st.integers(1, 8),
)
def test_what_always_holds(
    sizes: list[int], others: list[tuple[int, int]], own: list[int], per_slot: int
) -> None:
    nodes = [node(f"n{i}", size) for i, size in enumerate(sizes)]
    foreign = [pod(f"n{i}", amount) for i, amount in others]
    ours = [pod(f"n{i}", per_slot, market=MARKET, job=f"u{j}") for j, i in enumerate(own)]
    gpu = Gpu(count=per_slot)
    empty = count(nodes, [], gpu)
    counted = count(nodes, foreign, gpu)
    # Without jobs of ours, never more slots than GPUs, and pods of others only ever take some away.
    assert empty.total == sum(size // per_slot for size in sizes)
    assert counted.total + counted.used_by_others == empty.total
    # Our own pods never take a slot away; each is found in some slot.
    with_ours = count(nodes, [*foreign, *ours], gpu)
    held = sum(1 for i in own if i < len(sizes))
    assert with_ours.total >= max(counted.total, held)
    assert with_ours.total <= counted.total + held
    # The order of what the API server lists says nothing.
    assert count(nodes[::-1], [*ours[::-1], *foreign[::-1]], gpu) == with_ours


@pytest.mark.parametrize(
    ("labels", "excluded"),
    [
        ({}, None),
        ({"kubernetes.io/os": "windows"}, "is not labelled kubernetes.io/os=linux"),
        ({"kubernetes.io/arch": "arm64"}, "is not labelled kubernetes.io/arch=amd64"),
    ],
)
def test_a_node_of_another_platform_is_no_slot(labels: dict[str, str], excluded: str | None) -> None:
    made = node("a", 2)
    made["metadata"]["labels"] |= labels
    found = count([made])
    assert (found.total, found.nodes[0].excluded) == (0 if excluded else 2, excluded)


def test_the_architecture_is_a_setting_and_a_market_may_choose_another() -> None:
    arm = node("arm", 1)
    arm["metadata"]["labels"]["kubernetes.io/arch"] = "arm64"
    chosen = Gpu(node_selector={"kubernetes.io/arch": "arm64"})
    assert exclusion(arm, Gpu(), NodeSettings(architecture="arm64")) is None
    assert exclusion(arm, chosen, NodeSettings()) is None
    assert exclusion(node("amd", 1), chosen, NodeSettings()) is not None
