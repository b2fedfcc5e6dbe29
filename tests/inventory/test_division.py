"""Several markets on the same nodes: whatever each offers by itself, all of it finds a place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nosana_operator.api import LABEL_JOB_UID, LABEL_MAINTENANCE, Gpu, Resources
from nosana_operator.api.placement import NodeSettings
from nosana_operator.inventory import Cluster, Holder, Share, divide

GPU = "nvidia.com/gpu"
NODES = NodeSettings()


def node(name: str, gpus: int, *, cpu: str = "64", cordoned: bool = False, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": NODES.labels | labels},
        "spec": {"unschedulable": cordoned},
        "status": {
            "allocatable": {GPU: str(gpus), "cpu": cpu, "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(on: str, gpus: int, uid: str = "", *, cpu: str = "0") -> dict[str, Any]:
    return {
        "metadata": {"labels": {LABEL_JOB_UID: uid} if uid else {}},
        "spec": {
            "nodeName": on,
            "containers": [{"resources": {"requests": {"cpu": cpu} | ({GPU: str(gpus)} if gpus else {})}}],
        },
        "status": {"phase": "Running"},
    }


def holder(name: str, count: int = 1, pool: str | None = None, **changes: Any) -> Holder:
    gpu = Gpu(count=count, node_selector={"pool": pool} if pool else {})
    return replace(Holder(name, gpu, Resources(), "jobs"), **changes)


def shares(nodes: list[Any], *holders: Holder, pods: tuple[Any, ...] = ()) -> dict[str, Share]:
    return divide(Cluster(nodes, pods), holders)


def test_one_market_has_all_that_fits() -> None:
    share = shares([node("a", 4), node("b", 3)], holder("m", 2, taken=2))["m"]
    assert (share.placed, share.free, share.total, share.shortage) == (2, 1, 3, "")


def test_what_one_market_has_taken_the_other_does_not_offer() -> None:
    found = shares([node("a", 4)], holder("m", taken=3), holder("n", taken=1))
    assert [(one.placed, one.free) for one in found.values()] == [(3, 0), (1, 0)]


def test_four_gpus_are_of_no_use_in_two_halves() -> None:
    nodes = [node("a", 4), node("b", 4)]
    assert shares(nodes, holder("big", 4), holder("small", taken=2))["big"].free == 1
    assert shares(nodes, holder("big", 4), holder("small", taken=5))["big"].free == 0


def test_a_market_leaves_the_nodes_that_only_others_can_use() -> None:
    nodes = [node("a", 1, pool="x"), node("b", 1, pool="y")]
    found = shares(nodes, holder("any", taken=1), holder("x", pool="x"), holder("only-y", pool="z"))
    assert found["x"].free == 1, "the other went to b"


def test_a_job_holds_its_slot_where_its_pods_are() -> None:
    nodes = [node("a", 2), node("b", 2)]
    mine = holder("m", taken=1, job_uids=frozenset({"u"}))
    found = shares(nodes, mine, holder("pair", 2), pods=(pod("b", 1, "u"),))
    assert (found["m"].placed, found["pair"].free) == (1, 1)
    assert shares(nodes, mine, holder("pair", 2), pods=(pod("b", 0, "u"),))["pair"].free == 1, "no GPU yet"


def test_pods_of_others_and_of_ended_jobs_take_what_they_ask_for() -> None:
    found = shares([node("a", 4)], holder("m"), pods=(pod("a", 1), pod("a", 2, "ended")))
    assert found["m"].free == 1


def test_a_cordoned_node_still_holds_what_runs_there() -> None:
    nodes = [node("a", 2), node("b", 2, cordoned=True), node("c", 2)]
    nodes[2]["metadata"]["labels"] = {LABEL_MAINTENANCE: "true"}
    mine = holder("m", taken=2, job_uids=frozenset({"u", "v"}))
    share = shares(nodes, mine, pods=(pod("b", 1, "u"), pod("c", 1, "v")))["m"]
    assert (share.placed, share.free) == (2, 2)
    gone = shares(nodes, holder("m", taken=3))["m"]
    assert (gone.placed, gone.free) == (2, 0), "what stands there for a job to come has lost its place"


def test_reserves_are_kept_from_everybody() -> None:
    found = shares([node("a", 4)], holder("m", taken=1, reserve=1), holder("n"))
    assert (found["m"].total, found["m"].free, found["n"].free) == (4, 2, 2)


def test_jobs_that_wait_go_before_standing() -> None:
    nodes = [node("a", 4)]
    found = shares(nodes, holder("idle", taken=2), holder("busy", taken=1, demand=5))
    assert found["idle"].free == 0
    assert found["busy"].free == 1
    assert found["idle"].must_yield
    assert not found["busy"].must_yield
    found = shares(nodes, holder("idle", taken=2), holder("busy", demand=1))
    assert (found["idle"].free, found["idle"].must_yield) == (1, False)


def test_nobody_must_yield_where_it_does_not_help() -> None:
    nodes = [node("a", 1, pool="x"), node("b", 1, pool="y")]
    found = shares(nodes, holder("x", pool="x", taken=1), holder("y", pool="y", taken=1, demand=3))
    assert not found["x"].must_yield
    held = holder("x", taken=1, job_uids=frozenset({"u"}))
    found = shares([node("a", 1)], held, holder("busy", demand=1), pods=(pod("a", 1, "u"),))
    assert not found["x"].must_yield, "a job that runs is not put out"


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([], "no node"),
        ([node("a", 4, cordoned=True)], "a is cordoned"),
        ([node("a", 0)], f"{GPU} (has 0 of 1) on a"),
        ([node("a", 0), node("b", 1, cpu="7500m")], "cpu (has 7.5 of 8) on b"),
        ([node("a", 1)], "memory (has 64Gi of 96Gi)"),
    ],
)
def test_what_is_short_is_named(nodes: list[Any], words: str) -> None:
    memory = "96Gi" if "memory" in words else "1Gi"
    wanting = holder("m", resources=Resources(cpu="8", memory=memory))
    share = shares(nodes, wanting)["m"]
    assert share.free == 0
    assert words in share.shortage


def packs(free: dict[str, int], claims: list[tuple[int, frozenset[str]]]) -> bool:
    """Whether all claims (GPUs, nodes that may hold it) find a place at once: every way is tried."""
    if not claims:
        return True
    (count, where), *rest = claims
    return any(
        packs({**free, name: free[name] - count}, rest) for name in sorted(where) if free[name] >= count
    )


@settings(max_examples=120, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("xy")), min_size=1, max_size=3),
    markets=st.lists(
        st.tuples(st.sampled_from([1, 1, 2, 4]), st.sampled_from(["x", "y", None]), st.integers(0, 2)),
        min_size=1,
        max_size=3,
    ),
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=8),
)
def test_all_that_is_offered_can_be_placed(
    sizes: list[tuple[int, str]],
    markets: list[tuple[int, str | None, int]],
    turns: list[tuple[int, int, bool]],
) -> None:
    """Markets come in any order, each with as many keys as it likes, and some leave again."""
    nodes = [node(f"n{i}", size, pool=pool) for i, (size, pool) in enumerate(sizes)]
    holders = [holder(f"m{i}", count, pool, demand=demand) for i, (count, pool, demand) in enumerate(markets)]
    for number, keys, leaves in turns:
        number %= len(holders)
        mine = holders[number]
        if leaves:
            holders[number] = replace(mine, taken=max(0, mine.taken - keys))
            continue
        share = divide(Cluster(nodes, []), holders)[mine.name]
        assert share == divide(Cluster(nodes[::-1], []), holders[::-1])[mine.name], "the order says nothing"
        holders[number] = replace(mine, taken=mine.taken + min(share.free, keys))
        free = {f"n{i}": size for i, (size, _) in enumerate(sizes)}
        where = [
            frozenset(f"n{i}" for i, (_, pool) in enumerate(sizes) if demand in (None, pool))
            for _, demand, _ in markets
        ]
        claims = [(one.gpu.count, where[i]) for i, one in enumerate(holders) for _ in range(one.taken)]
        assert packs(free, sorted(claims, key=lambda one: (-one[0], len(one[1]))))
