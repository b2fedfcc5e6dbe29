"""The rights that the operator needs: one list, for the doctor's access reviews and for the chart's test.

These files use them: `jobs/act.py`, `jobs/policies.py`, `market/host/controller.py`, `market/keys/secrets.py`,
`runtime/watching.py`, `kube/events.py`, `kube/election.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nosana_operator.api import GROUP, JOB_KIND, MARKET_KIND, PLURALS
from nosana_operator.workload import CLUSTER_DNS_SERVICES


class Reach(Enum):
    """Where a right is needed."""

    CLUSTER = "cluster"
    """In all namespaces, whichever are served: slots are what all other pods leave free."""
    SERVED = "served"
    """In the served namespaces, and in those where their markets' jobs run."""


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource; `namespace` None: in all namespaces."""

    group: str
    resource: str
    verb: str
    subresource: str = ""
    namespace: str | None = None
    object_name: str | None = None
    """None: on any object."""

    @property
    def name(self) -> str:
        """The resource as `kubectl auth can-i` names it."""
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{resource}/{self.subresource}" if self.subresource else resource


_JOBS: Final = PLURALS[JOB_KIND]
_MARKETS: Final = PLURALS[MARKET_KIND]

_NEEDED: Final[tuple[tuple[Reach, str, str, str], ...]] = (
    (Reach.CLUSTER, "", "nodes", "list watch"),
    (Reach.CLUSTER, "", "pods", "list watch"),
    (Reach.CLUSTER, "storage.k8s.io", "storageclasses", "list"),
    (Reach.SERVED, GROUP, _JOBS, "get list watch create patch delete"),
    (Reach.SERVED, GROUP, f"{_JOBS}/status", "patch"),
    (Reach.SERVED, GROUP, _MARKETS, "get list watch patch"),
    (Reach.SERVED, GROUP, f"{_MARKETS}/status", "patch"),
    (Reach.SERVED, "", "pods", "get create patch delete"),
    (Reach.SERVED, "", "pods/log", "get"),
    (Reach.SERVED, "", "services", "get create"),
    (Reach.SERVED, "discovery.k8s.io", "endpointslices", "create patch delete"),
    (Reach.SERVED, "", "secrets", "get create patch delete"),
    (Reach.SERVED, "", "resourcequotas", "list watch"),
    (Reach.SERVED, "", "configmaps", "get"),
    (Reach.SERVED, "", "persistentvolumeclaims", "get create delete"),
    (Reach.SERVED, "networking.k8s.io", "ingresses", "get create"),
    (Reach.SERVED, "networking.k8s.io", "networkpolicies", "get create patch"),
    (Reach.SERVED, "policy", "poddisruptionbudgets", "create patch"),
    (Reach.SERVED, "events.k8s.io", "events", "create patch"),
)


def needed_rights(namespaces: tuple[str, ...], lease: tuple[str, str] | None) -> Iterator[Right]:
    """Every right, once per served namespace; `namespaces` empty: all namespaces.

    `lease` is the namespace and name of the election's Lease; None: there is no election.
    """
    for reach, group, resource, verbs in _NEEDED:
        plural, _, subresource = resource.partition("/")
        places: tuple[str | None, ...] = (None,)
        if reach is Reach.SERVED and namespaces:
            places = namespaces
        for place in places:
            for verb in verbs.split():
                yield Right(group, plural, verb, subresource, place)
    for name in dict.fromkeys(name for _, name in CLUSTER_DNS_SERVICES):
        yield Right("", "services", "get", object_name=name)
    if lease is not None:
        namespace, name = lease
        yield Right("coordination.k8s.io", "leases", "create", namespace=namespace)
        for verb in ("get", "patch"):
            yield Right("coordination.k8s.io", "leases", verb, namespace=namespace, object_name=name)
