"""How long the operator waits for an op whose pod exists but does not start. Pure.

No node takes the pod, its image cannot be pulled, or its container cannot be created.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus
from nosana_operator.jobs.decision.ops import OpReason
from nosana_operator.jobs.decision.view import JobView

PULL_LIMIT: Final = timedelta(minutes=15)
"""Registries have short outages; without a limit only the poster's budget would end the wait."""
CREATE_LIMIT: Final = timedelta(minutes=2)
"""The kubelet retries endlessly; a container that fails to be created twice in a row always fails."""
CAPACITY_LIMIT: Final = timedelta(minutes=5)


def give_up_limit(view: JobView, op: OpStatus) -> tuple[datetime, OpReason] | None:
    """When the op is given up, and for which reason; None when nothing is wrong or the job waits."""
    pod = view.pods.get(op.index)
    if op.state != "Starting" or pod is None or pod.trouble is None or pod.trouble_since is None:
        return None
    match pod.trouble[0]:
        case "ImagePull":
            return pod.trouble_since + PULL_LIMIT, OpReason.IMAGE_PULL
        case "ContainerNotCreated":
            return pod.trouble_since + CREATE_LIMIT, OpReason.NOT_CREATED
        case "Unschedulable" if (limit := capacity_limit(view)) is not None:
            return pod.trouble_since + limit, OpReason.NO_CAPACITY
    return None


def capacity_limit(view: JobView) -> timedelta | None:
    """How long the job waits for room in the cluster; None: until its time is up."""
    policy = view.spec.on_no_capacity or ("Finish" if view.is_market_job else "Wait")
    return None if policy == "Wait" else CAPACITY_LIMIT
