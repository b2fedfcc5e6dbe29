"""How long an op that does not start is waited for. Pure.

Its pod is there, but no node takes it, its image cannot be pulled, or its container cannot be made.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from nosana_operator.api import OpStatus
from nosana_operator.jobs.decision.ops import OpReason
from nosana_operator.jobs.decision.view import JobView

PULL: Final = timedelta(minutes=15)
"""Registries have bad minutes, and a poster's budget may be all that ends it."""
CREATE: Final = timedelta(minutes=2)
"""The kubelet tries again for ever; a container that cannot be made twice in a row never can."""
CAPACITY: Final = timedelta(minutes=5)


def limit(view: JobView, op: OpStatus) -> tuple[datetime, OpReason] | None:
    """When the op is given up, and as what; None when nothing is wrong, or the job wants to wait."""
    pod = view.pods.get(op.index)
    if op.state != "Starting" or pod is None or pod.trouble is None or pod.trouble_since is None:
        return None
    match pod.trouble[0]:
        case "ImagePull":
            return pod.trouble_since + PULL, OpReason.IMAGE_PULL
        case "ContainerNotCreated":
            return pod.trouble_since + CREATE, OpReason.NOT_CREATED
        case "Unschedulable" if not _waits(view):
            return pod.trouble_since + CAPACITY, OpReason.NO_CAPACITY
    return None


def _waits(view: JobView) -> bool:
    return (view.spec.on_no_capacity or ("Finish" if view.is_market_job else "Wait")) == "Wait"
