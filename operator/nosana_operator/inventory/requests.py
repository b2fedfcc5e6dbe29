"""What a pod takes from its node, counted as the scheduler counts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from nosana_operator.api.quantity import UNIT, parse_quantity

Amounts = dict[str, int]
"""Resource name → amount in billionths (`api.quantity`): of a core, a byte, a device."""

PODS = "pods"

Field = Literal["requests", "limits"]


def amounts(quantities: Mapping[str, str | int | float] | None) -> Amounts:
    """A Kubernetes resource list as exact numbers."""
    return {name: parse_quantity(str(text)) for name, text in (quantities or {}).items()}


def holds_node(pod: Mapping[str, Any]) -> bool:
    """Whether the pod takes anything from a node: it is bound to one, and has not ended."""
    return bool(pod.get("spec", {}).get("nodeName")) and not has_ended(pod)


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's phase is final."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def requests(pod: Mapping[str, Any]) -> Amounts:
    """The pod's effective requests, one of `pods` included."""
    total = _effective(pod, "requests")
    total[PODS] = UNIT
    return total


def limits(pod: Mapping[str, Any]) -> Amounts:
    """The pod's effective limits."""
    return _effective(pod, "limits")


def _effective(pod: Mapping[str, Any], field: Field) -> Amounts:
    """The requests or limits of a pod.

    Per resource the larger of: all app containers and sidecars together; any init container with the sidecars
    started before it. Those of the pod as a whole take precedence over that sum; overhead is added.
    """
    spec = pod.get("spec", {})
    running = _sum(_amounts_of(container, field) for container in spec.get("containers", ()))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, _amounts_of(container, field)))
            peak = _largest(peak, sidecars)
        else:
            peak = _largest(peak, _sum((sidecars, _amounts_of(container, field))))
    total = _largest(_sum((running, sidecars)), peak)
    total.update(_amounts_of(spec, field))
    return _sum((total, amounts(spec.get("overhead"))))


def _amounts_of(owner: Mapping[str, Any], field: Field) -> Amounts:
    return amounts((owner.get("resources") or {}).get(field))


def add(into: Amounts, more: Amounts) -> None:
    """Add the amounts in place."""
    for name, amount in more.items():
        into[name] = into.get(name, 0) + amount


def _sum(parts: Iterable[Amounts]) -> Amounts:
    out: Amounts = {}
    for part in parts:
        add(out, part)
    return out


def _largest(left: Amounts, right: Amounts) -> Amounts:
    return {name: max(left.get(name, 0), right.get(name, 0)) for name in left | right}
