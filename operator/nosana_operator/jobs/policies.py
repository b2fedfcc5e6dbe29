"""Sees to it that the policies of a namespace stand before an op's pod is made there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import MANAGER_JOBS
from nosana_operator.jobs.ports import Bodies, Cache, Clock, Kube
from nosana_operator.workload import Isolation, namespace_policies, node_ranges

_AGAIN_AFTER: Final = timedelta(minutes=10)
"""Somebody may have taken them down; nothing watches them."""


class PolicyApplier:
    """Applies the policies of a namespace when they are not known to stand as they should."""

    def __init__(self, kube: Kube, cache: Cache, clock: Clock, isolation: Isolation) -> None:
        self._kube = kube
        self._cache = cache
        self._clock = clock
        self._policies = isolation
        self._standing: dict[str, tuple[datetime, Bodies]] = {}

    async def ensure(self, namespace: str) -> None:
        """Return once the policies stand. Raises Refused where they may not be made."""
        wanted = namespace_policies(namespace, self._policies, node_ranges(self._cache.list("Node")))
        now = self._clock.now()
        known = self._standing.get(namespace)
        if known is not None and known[1] == wanted and now - known[0] < _AGAIN_AFTER:
            return
        for body in wanted:
            await self._kube.apply(body, manager=MANAGER_JOBS)
        self._standing[namespace] = (now, wanted)
