"""Applies a namespace's NetworkPolicies and PodDisruptionBudget before the first pod of an op is created there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import MANAGER_JOBS
from nosana_operator.jobs.ports import Bodies, Cache, Clock, Kube
from nosana_operator.workload import Isolation, build_namespace_policies, node_ranges

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

    async def ensure(self, namespace: str) -> None:
        """Return once the policies are in place. Raises Refused when the operator may not create them."""
        desired = build_namespace_policies(namespace, self._isolation, node_ranges(self._cache.list("Node")))
        now = self._clock.now()
        last = self._applied.get(namespace)
        if last is not None and last[1] == desired and now - last[0] < _REAPPLY_AFTER:
            return
        for body in desired:
            await self._kube.apply(body, manager=MANAGER_JOBS)
        self._applied[namespace] = (now, desired)
