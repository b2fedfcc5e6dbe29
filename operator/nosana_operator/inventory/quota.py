"""ResourceQuotas → how many more slots a namespace admits. Pure.

The API server refuses a pod for which a quota of its namespace has no room. So a slot that the nodes hold and a quota
does not is no slot: the chain would give it a paid job that cannot start.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nosana_operator.api import GROUP, JOB_KIND, LABEL_JOB_UID, PLURALS, Gpu, Resources
from nosana_operator.api.quantity import UNIT
from nosana_operator.inventory.requests import PODS, Amounts, add, amounts, has_ended, limits, requests
from nosana_operator.inventory.slots import need_of, shown

_BARE: Final = ("cpu", "memory", "ephemeral-storage")
"""Resources whose plain name in a quota means their requests."""
_MUST_BE_SET: Final = frozenset(
    f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in ("cpu", "memory")
)
"""Where a quota bounds one of these, the API server refuses a pod that does not state it."""
_OBJECTS: Final = (
    *(prefix + name for name in ("secrets", "services") for prefix in ("", "count/")),
    f"count/{PLURALS[JOB_KIND]}.{GROUP}",
)
"""A job is an object itself, and has a Secret for its result, and a Service when it exposes a port."""


@dataclass(slots=True)
class Quota:
    """One ResourceQuota, and what it leaves while slots are placed."""

    name: str
    """`namespace/name`."""
    left: Amounts | None
    """Resource as the quota names it → what is left, possibly negative. None: its status is not computed yet, and
    until then the API server admits nothing."""
    scopes: tuple[str, ...] = ()

    def copy(self) -> Quota:
        """A quota from which slots can be taken without changing this one."""
        return Quota(self.name, None if self.left is None else dict(self.left), self.scopes)

    def admitted(self, cost: Amounts) -> int:
        """How many more slots of that cost it admits."""
        if not selects(self.scopes, cost):
            return sys.maxsize
        if self.left is None or self._unset(cost):
            return 0
        return min(
            (max(0, left // cost[name]) for name, left in self.left.items() if cost.get(name)),
            default=sys.maxsize,
        )

    def take(self, amount: Amounts) -> None:
        """Subtract from what is left."""
        if self.left is not None and selects(self.scopes, amount):
            self.left = {name: left - amount.get(name, 0) for name, left in self.left.items()}

    def shortage(self, cost: Amounts) -> str:
        """Why it admits no further slot, as a clause for a person; empty when it does."""
        if not selects(self.scopes, cost):
            return ""
        if self.left is None:
            return f"ResourceQuota {self.name} has no status yet, so it is not known what it leaves"
        if unset := self._unset(cost):
            return f"ResourceQuota {self.name} bounds {unset}, which spec.slots.resources does not set"
        clauses = [
            f"{shown(name, left)} of {shown(name, cost[name])} {name}"
            for name, left in self.left.items()
            if left < cost.get(name, 0)
        ]
        return f"ResourceQuota {self.name} leaves {', '.join(clauses)}" if clauses else ""

    def _unset(self, cost: Amounts) -> str:
        return ", ".join(sorted(_MUST_BE_SET & (self.left or {}).keys() - cost.keys()))


def slot_cost(gpu: Gpu, resources: Resources) -> Amounts:
    """What one slot takes of a quota, by each name that a quota may have for it."""
    need = need_of(gpu, resources)
    return _pod_cost(need, need) | dict.fromkeys(_OBJECTS, UNIT)


def pod_part(cost: Amounts) -> Amounts:
    """The part of a slot's cost that its pods take, without the other objects of a job."""
    return {name: amount for name, amount in cost.items() if name not in _OBJECTS}


def quotas_left(
    quotas: Sequence[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], own_jobs: Collection[str]
) -> dict[str, list[Quota]]:
    """By namespace: what each ResourceQuota leaves, as if the pods of the markets' own jobs were not there.

    Args:
        quotas: as the API server returns them.
        pods: all pods of the cluster. The API server counts a pod when it is created, and the watch of the quota
            may lag: so what the pods take is counted here too, and the larger figure holds.
        own_jobs: uids of the markets' own jobs.
    """
    out: dict[str, list[Quota]] = {}
    bounded = {quota["metadata"]["namespace"] for quota in quotas}
    costs: dict[str, list[tuple[Amounts, bool]]] = defaultdict(list)
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("namespace", "") in bounded and not has_ended(pod):
            own = (metadata.get("labels") or {}).get(LABEL_JOB_UID, "") in own_jobs
            costs[metadata["namespace"]].append((pod_cost(pod), own))
    for quota in quotas:
        namespace = quota["metadata"]["namespace"]
        out.setdefault(namespace, []).append(_left(quota, costs[namespace]))
    return out


def _left(quota: Mapping[str, Any], costs: Iterable[tuple[Amounts, bool]]) -> Quota:
    metadata, spec, status = quota["metadata"], quota.get("spec") or {}, quota.get("status") or {}
    name, scopes = f"{metadata['namespace']}/{metadata['name']}", tuple(_scopes(spec))
    hard, used = amounts(status.get("hard")), amounts(status.get("used"))
    if hard.keys() != amounts(spec.get("hard")).keys() or hard.keys() - used.keys():
        return Quota(name, None, scopes)
    taken: Amounts = {}
    own: Amounts = {}
    for cost, is_own in costs:
        if selects(scopes, cost):
            add(taken, cost)
            add(own, cost if is_own else {})
    left = {
        resource: amount - max(used[resource], taken.get(resource, 0)) + own.get(resource, 0)
        for resource, amount in hard.items()
    }
    return Quota(name, left, scopes)


def pod_cost(pod: Mapping[str, Any]) -> Amounts:
    """What a pod takes of a quota."""
    return _pod_cost(requests(pod), limits(pod))


def _pod_cost(requested: Amounts, limited: Amounts) -> Amounts:
    out: Amounts = {PODS: UNIT, f"count/{PODS}": UNIT}
    for name, amount in requested.items():
        if name != PODS:
            out[f"requests.{name}"] = amount
            if name in _BARE:
                out[name] = amount
    out |= {f"limits.{name}": amount for name, amount in limited.items() if name != PODS}
    return out


def selects(scopes: Iterable[str], cost: Amounts) -> bool:
    """Whether a quota with these scopes counts an op's pod of that cost; an unknown scope is taken to do so."""
    best_effort = not {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"} & cost.keys()
    known = {
        "Terminating": False,  # An op's pod has no activeDeadlineSeconds.
        "NotTerminating": True,
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
        "CrossNamespacePodAffinity": False,
    }
    return all(known.get(scope, True) for scope in scopes)


def _scopes(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from spec.get("scopes") or ()
    for term in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        yield term["scopeName"]


def admitted(quotas: Sequence[Quota], cost: Amounts) -> int:
    """How many more slots of that cost all of these quotas admit."""
    return min((quota.admitted(cost) for quota in quotas), default=sys.maxsize)
