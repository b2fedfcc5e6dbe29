"""The GPUs of the cluster, and whether each NosanaMarket's slots find room on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from nosana_operator.api import NosanaMarketSpec
from nosana_operator.api.placement import LABEL_GPU_PRODUCT
from nosana_operator.doctor.facts import Bodies, Body, Facts, Known, Unknown
from nosana_operator.doctor.finding import Finding, Subject
from nosana_operator.inventory import slots


def gpu_findings(facts: Facts) -> Iterator[Finding]:
    """GPU nodes and resource names; then each market's slots."""
    nodes, pods = facts.cluster.nodes, facts.cluster.pods
    if isinstance(facts.cluster.server, Unknown):
        return
    say = Subject("gpus")
    if isinstance(nodes, Unknown):
        yield say.unknown(f"nodes cannot be listed: {nodes.why}")
        return
    yield from _offered(say, nodes)
    if isinstance(facts.markets, Unknown):
        return
    for market in facts.markets:
        if not isinstance(market.spec, Unknown):
            yield _slots(
                Subject("market.gpus", f"{market.namespace}/{market.name}"), market.spec, nodes, pods
            )


def _offered(say: Subject, nodes: Bodies) -> Iterator[Finding]:
    totals: Counter[str] = Counter()
    bare: list[str] = []
    for node in nodes:
        found = _gpus(node)
        totals.update(found)
        labels = node["metadata"].get("labels") or {}
        if any(name.startswith("nvidia.com/") for name in found) and LABEL_GPU_PRODUCT not in labels:
            bare.append(node["metadata"]["name"])
    if not totals:
        yield say.warning(
            "no node offers a GPU",
            "Install the device plugin (for NVIDIA the GPU Operator), and look at status.allocatable of the nodes.",
        )
        return
    what = ", ".join(f"{count} {name}" for name, count in sorted(totals.items()))
    yield say.ok(f"the nodes offer {what}")
    if bare:
        yield say.warning(
            f"nodes without the label {LABEL_GPU_PRODUCT}: {', '.join(sorted(bare))}",
            "Install GPU feature discovery (part of the GPU Operator), so that markets can choose by "
            "gpu.product and gpu.minMemoryMiB.",
        )


def _gpus(node: Body) -> Mapping[str, int]:
    """Whole extended resources of the names that device plugins for GPUs use."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return {
        name: int(amount)
        for name, amount in allocatable.items()
        if _is_gpu(name) and str(amount).isdigit() and int(amount) > 0
    }


def _is_gpu(name: str) -> bool:
    domain, _, kind = name.partition("/")
    return bool(kind) and (domain == "nvidia.com" or kind == "gpu" or kind.startswith("gpu"))


def _slots(say: Subject, spec: NosanaMarketSpec, nodes: Bodies, pods: Known[Bodies]) -> Finding:
    if isinstance(pods, Unknown):
        return say.unknown(f"pods cannot be listed: {pods.why}")
    held = slots(nodes, pods, spec.gpu, spec.slots.resources, market=spec.address)
    wanted = f"{spec.gpu.count} {spec.gpu.resource_name}"
    if held.total == 0:
        why = "; ".join(f"{node.node} {node.excluded or 'has no room'}" for node in held.nodes[:4])
        return say.failure(
            f"no node has room for a slot ({wanted} and spec.slots.resources): {why or 'there is no node'}",
            "Compare spec.gpu (resourceName, count, product, nodeSelector, tolerations) and "
            "spec.slots.resources with kubectl describe node.",
        )
    offered = held.total - spec.slots.reserve
    if spec.slots.max is not None:
        offered = min(offered, spec.slots.max)
    if offered <= 0:
        return say.warning(
            f"there is room for {held.total} slots, and spec.slots offers none of them",
            "Raise spec.slots.max, or lower spec.slots.reserve.",
        )
    return say.ok(f"room for {held.total} slots of {wanted}; {offered} are offered")
