"""The GPUs of the cluster, and whether they have room for each NosanaMarket's slots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from nosana_operator.api import NosanaMarketSpec
from nosana_operator.api.placement import LABEL_GPU_PRODUCT, NodeSettings
from nosana_operator.doctor.facts import Bodies, Body, Facts, Known, Unknown
from nosana_operator.doctor.finding import Finding, Subject
from nosana_operator.inventory import slots


def gpu_findings(facts: Facts) -> Iterator[Finding]:
    """Findings about the nodes' GPUs, then about each market's slots."""
    nodes, pods = facts.cluster.nodes, facts.cluster.pods
    if isinstance(facts.cluster.server, Unknown):
        return
    check = Subject("gpus")
    if isinstance(nodes, Unknown):
        yield check.unknown(f"nodes cannot be listed: {nodes.reason}")
        return
    yield from _offered(check, nodes)
    if isinstance(facts.markets, Unknown):
        return
    for market in facts.markets:
        if not isinstance(market.spec, Unknown):
            yield _slots(
                Subject("market.gpus", f"{market.namespace}/{market.name}"),
                market.spec,
                nodes,
                pods,
                facts.settings.nodes,
            )


def _offered(check: Subject, nodes: Bodies) -> Iterator[Finding]:
    totals: Counter[str] = Counter()
    bare: list[str] = []
    for node in nodes:
        gpus = _gpus(node)
        totals.update(gpus)
        labels = node["metadata"].get("labels") or {}
        if any(name.startswith("nvidia.com/") for name in gpus) and LABEL_GPU_PRODUCT not in labels:
            bare.append(node["metadata"]["name"])
    if not totals:
        yield check.warning(
            "no node offers a GPU",
            "Install the device plugin (for NVIDIA the GPU Operator), and check status.allocatable of the nodes.",
        )
        return
    offered = ", ".join(f"{count} {name}" for name, count in sorted(totals.items()))
    yield check.ok(f"the nodes offer {offered}")
    if bare:
        yield check.warning(
            f"nodes without the label {LABEL_GPU_PRODUCT}: {', '.join(sorted(bare))}",
            "Install GPU feature discovery (part of the GPU Operator), so that markets can select nodes by "
            "gpu.product and gpu.minMemoryMiB.",
        )


def _gpus(node: Body) -> Mapping[str, int]:
    """A node's GPUs, by the names of the extended resources that device plugins for GPUs use."""
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    return {
        name: int(amount)
        for name, amount in allocatable.items()
        if _is_gpu(name) and str(amount).isdigit() and int(amount) > 0
    }


def _is_gpu(name: str) -> bool:
    domain, _, kind = name.partition("/")
    return bool(kind) and (domain == "nvidia.com" or kind == "gpu" or kind.startswith("gpu"))


def _slots(
    check: Subject, spec: NosanaMarketSpec, nodes: Bodies, pods: Known[Bodies], settings: NodeSettings
) -> Finding:
    if isinstance(pods, Unknown):
        return check.unknown(f"pods cannot be listed: {pods.reason}")
    held = slots(nodes, pods, spec.gpu, spec.slots.resources, settings=settings, market=spec.address)
    gpus = f"{spec.gpu.count} {spec.gpu.resource_name}"
    if held.total == 0:
        reasons = "; ".join(f"{node.node} {node.excluded or 'has no room'}" for node in held.nodes[:4])
        return check.failure(
            f"no node has room for a slot ({gpus} and spec.slots.resources): {reasons or 'there is no node'}",
            "Compare spec.gpu (resourceName, count, product, nodeSelector, tolerations) and "
            "spec.slots.resources with kubectl describe node.",
        )
    offered = held.total - spec.slots.reserve
    if spec.slots.max is not None:
        offered = min(offered, spec.slots.max)
    if offered <= 0:
        return check.warning(
            f"there is room for {held.total} slots, but spec.slots offers none of them",
            "Raise spec.slots.max, or lower spec.slots.reserve.",
        )
    return check.ok(f"room for {held.total} slots of {gpus}; {offered} are offered")
