"""What a pod takes from its node, counted as the scheduler counts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nosana_operator.api.quantity import UNIT, parse_quantity

Amounts = dict[str, int]
"""Resource name → amount in billionths (`api.quantity`): of a core, a byte, a device."""

PODS = "pods"


def amounts(quantities: Mapping[str, str | int | float] | None) -> Amounts:
    """A Kubernetes resource list as exact numbers."""
    return {name: parse_quantity(str(text)) for name, text in (quantities or {}).items()}


def holds_node(pod: Mapping[str, Any]) -> bool:
    """Whether the pod takes anything from a node: it is bound to one, and has not ended."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return bool(pod.get("spec", {}).get("nodeName")) and not ended


def requests(pod: Mapping[str, Any]) -> Amounts:
    """The pod's effective requests, one of `pods` included.

    Per resource the larger of: all app containers and sidecars together; any init container with the sidecars
    started before it. Requests of the pod as a whole take precedence over that sum; overhead is added.
    """
    spec = pod.get("spec", {})
    running = _sum(_requests(container) for container in spec.get("containers", ()))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, _requests(container)))
            peak = _largest(peak, sidecars)
        else:
            peak = _largest(peak, _sum((sidecars, _requests(container))))
    total = _largest(_sum((running, sidecars)), peak)
    total.update(_requests(spec))
    total = _sum((total, amounts(spec.get("overhead"))))
    total[PODS] = UNIT
    return total


def _requests(owner: Mapping[str, Any]) -> Amounts:
    return amounts((owner.get("resources") or {}).get("requests"))


def _sum(parts: Iterable[Amounts]) -> Amounts:
    out: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            out[name] = out.get(name, 0) + amount
    return out


def _largest(left: Amounts, right: Amounts) -> Amounts:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left | right}
