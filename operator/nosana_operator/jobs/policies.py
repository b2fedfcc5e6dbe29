"""Applies a namespace's NetworkPolicies and PodDisruptionBudget before the first pod of an op is created there."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import MANAGER_JOBS
from nosana_operator.errors import NotFound, Refused
from nosana_operator.jobs.ports import Bodies, Cache, Clock, Kube
from nosana_operator.workload import CLUSTER_DNS_SERVICES, Isolation, build_namespace_policies

log = logging.getLogger(__name__)

_REAPPLY_AFTER: Final = timedelta(minutes=10)
"""The operator does not watch the policies, and somebody may have deleted them."""


class PolicyApplier:
    """Applies the policies of a namespace unless it did so recently."""

    def __init__(self, kube: Kube, cache: Cache, clock: Clock, isolation: Isolation) -> None:
        self._kube = kube
        self._cache = cache
        self._clock = clock
        self._isolation = isolation
        self._applied: dict[str, tuple[datetime, Bodies]] = {}
        self._dns_services: Bodies = []
        self._services_read_at: datetime | None = None

    async def ensure(self, namespace: str) -> None:
        """Return once the policies are in place. Raises Refused when the operator may not create them."""
        now = self._clock.now()
        if self._services_read_at is None or now - self._services_read_at >= _REAPPLY_AFTER:
            self._dns_services = await self._read_dns_services()
            self._services_read_at = now
        nodes = self._cache.list("Node")
        desired = build_namespace_policies(namespace, self._isolation, nodes, self._dns_services)
        last = self._applied.get(namespace)
        if last is not None and last[1] == desired and now - last[0] < _REAPPLY_AFTER:
            return
        for body in desired:
            await self._kube.apply(body, manager=MANAGER_JOBS)
        self._applied[namespace] = (now, desired)

    async def _read_dns_services(self) -> Bodies:
        services = []
        for namespace, name in CLUSTER_DNS_SERVICES:
            try:
                services.append(await self._kube.get("Service", namespace, name))
            except NotFound:
                continue  # Each distribution has one of them.
            except Refused as error:
                # Where the DNS pods or a configured address answer, the Service's own address is not needed.
                log.warning("the Service of the cluster's DNS cannot be read: %s", error)
        return services
