"""Nodes and pods → slots: how many jobs of a market the cluster can hold at once.

Pure arithmetic over the objects as the API server gives them. A slot is `gpu.count` GPUs and
`slots.resources` on **one** node: two nodes with one free GPU each hold no slot of two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nosana_operator.api import LABEL_JOB_UID, LABEL_MAINTENANCE, LABEL_MARKET, Gpu, Resources, Toleration
from nosana_operator.api.placement import LABEL_GPU_MEMORY, LABEL_GPU_PRODUCT, NodeSettings, gpu_tolerations
from nosana_operator.api.quantity import UNIT, parse_quantity
from nosana_operator.inventory.requests import PODS, Amounts, add, amounts, holds_node, requests

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class NodeSlots:
    """The slots of one node."""

    node: str
    slots: int
    """Slots that this market may count on here, those that its own jobs hold included."""
    held: int
    """Jobs of this market that have GPUs here now."""
    used_by_others: int
    """Slots that pods of others leave no room for."""
    excluded: str | None = None
    """Why no new job may go here, for a person; None when it may."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The slots of a market, counted as if its own jobs' pods were not there.

    So the market's free slots are `total` minus what it has standing, running and in reserve: a job that has no
    pod yet, or none between two stages, still holds its slot.
    """

    total: int
    used_by_others: int
    nodes: tuple[NodeSlots, ...]


def slots(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    gpu: Gpu,
    resources: Resources,
    *,
    settings: NodeSettings,
    market: str | None = None,
) -> Inventory:
    """Count the slots of `gpu` and `resources` on `nodes`, given all `pods` of the cluster.

    `settings` say which nodes can run ops at all. `market` is the market's address: pods with that label are its
    own jobs'. A node on which new jobs may not start (cordoned, not ready, tainted, another platform or GPU) still
    counts the slots whose GPUs its own jobs hold; otherwise those jobs would be subtracted from the free slots of
    other nodes. An unscheduled pod takes nothing, because where it will go is not known.
    """
    need = need_of(gpu, resources)
    own_jobs: dict[str, set[str]] = defaultdict(set)
    taken: dict[str, Amounts] = defaultdict(dict)
    for pod in pods:
        if not holds_node(pod):
            continue
        node = pod["spec"]["nodeName"]
        labels = pod.get("metadata", {}).get("labels") or {}
        if market is not None and labels.get(LABEL_MARKET) == market:
            if gpu.resource_name in requests(pod):
                own_jobs[node].add(labels.get(LABEL_JOB_UID, ""))
            continue
        add(taken[node], requests(pod))
    counted = tuple(
        _node_slots(node, need, taken[_name(node)], len(own_jobs[_name(node)]), gpu, settings)
        for node in sorted(nodes, key=_name)
    )
    return Inventory(
        total=sum(node.slots for node in counted),
        used_by_others=sum(node.used_by_others for node in counted),
        nodes=counted,
    )


def _name(node: Mapping[str, Any]) -> str:
    name: str = node["metadata"]["name"]
    return name


def exclusion(node: Mapping[str, Any], gpu: Gpu, settings: NodeSettings) -> str | None:
    """Why no new job of that `gpu` may start on the node, as a phrase for a person; None when it may."""
    metadata, spec = node["metadata"], node.get("spec") or {}
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if spec.get("unschedulable"):
        return "is cordoned"
    if (metadata.get("labels") or {}).get(LABEL_MAINTENANCE, "false") != "false":
        return f"is in maintenance (label {LABEL_MAINTENANCE})"
    conditions = (node.get("status") or {}).get("conditions") or ()
    if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return "is not ready"
    tolerated = gpu_tolerations(gpu)
    for taint in spec.get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerates(tolerated, taint):
            return f"has the taint {taint['key']}:{taint['effect']}"
    return _label_mismatch(metadata.get("labels") or {}, gpu, settings)


def _label_mismatch(labels: Mapping[str, str], gpu: Gpu, settings: NodeSettings) -> str | None:
    required = settings.labels | gpu.node_selector
    if gpu.product is not None:
        required[LABEL_GPU_PRODUCT] = gpu.product
    for key, value in required.items():
        if labels.get(key) != value:
            return f"is not labelled {key}={value}"
    if gpu.min_memory_mi_b is not None:
        memory = labels.get(LABEL_GPU_MEMORY, "")
        if not memory.isascii() or not memory.isdigit():
            return f"has no label {LABEL_GPU_MEMORY} with its GPUs' memory"
        if int(memory) < gpu.min_memory_mi_b:
            return f"has GPUs of {memory} MiB, fewer than {gpu.min_memory_mi_b}"
    return None


def _tolerates(tolerations: Sequence[Toleration], taint: Mapping[str, Any]) -> bool:
    """Kubernetes' rule: an absent effect or key matches every taint; `Equal` is the default operator."""
    return any(
        t.effect in (None, taint.get("effect"))
        and t.key in (None, "", taint.get("key"))
        and (t.operator == "Exists" or (bool(t.key) and (t.value or "") == (taint.get("value") or "")))
        for t in tolerations
    )


def need_of(gpu: Gpu, resources: Resources) -> Amounts:
    """The resources of one slot, its GPUs first; at least one pod."""
    need = {gpu.resource_name: gpu.count * UNIT, PODS: UNIT}
    for name, quantity in (
        ("cpu", resources.cpu),
        ("memory", resources.memory),
        ("ephemeral-storage", resources.ephemeral_storage),
    ):
        amount = parse_quantity(quantity) if quantity is not None else 0
        if amount > 0:
            need[name] = amount
    return need


def shown(name: str, amount: int) -> str:
    """An amount for a person: `40Gi` of memory, `2` GPUs; nothing is shown as negative."""
    whole = max(0, amount) / UNIT
    return f"{whole / _GIB:.4g}Gi" if name.endswith(("memory", "ephemeral-storage")) else f"{whole:g}"


def fitting(room: Amounts, taken: Amounts, need: Amounts) -> int:
    """How many times `need` fits into what `taken` leaves of `room`."""
    return min(max(0, (room.get(name, 0) - taken.get(name, 0)) // one) for name, one in need.items())


def _node_slots(
    node: Mapping[str, Any], need: Amounts, taken: Amounts, held: int, gpu: Gpu, settings: NodeSettings
) -> NodeSlots:
    excluded = exclusion(node, gpu, settings)
    room = amounts((node.get("status") or {}).get("allocatable"))
    left = 0 if excluded else fitting(room, taken, need)
    return NodeSlots(
        node=_name(node),
        slots=max(left, held),
        held=held,
        used_by_others=0 if excluded else fitting(room, {}, need) - left,
        excluded=excluded,
    )
