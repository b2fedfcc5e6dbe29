"""Constants of the API, each in one place: group, labels, annotations, finalizers, field managers, names."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

GROUP: Final = "nosana.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

JOB_KIND: Final = "NosanaJob"
MARKET_KIND: Final = "NosanaMarket"
PLURALS: Final = {JOB_KIND: "nosanajobs", MARKET_KIND: "nosanamarkets"}

# Label values may hold base58, object names may not (Kubernetes: DNS labels are lower-case).
LABEL_JOB: Final = f"{GROUP}/nosanajob"
"""On every child: the name of its NosanaJob."""
LABEL_JOB_UID: Final = f"{GROUP}/nosanajob-uid"
LABEL_OP: Final = f"{GROUP}/op-index"
LABEL_RUN: Final = f"{GROUP}/run"
LABEL_CHAIN_JOB: Final = f"{GROUP}/job"
LABEL_MARKET: Final = f"{GROUP}/market"
LABEL_MAINTENANCE: Final = f"{GROUP}/maintenance"
"""On a node, with any value but `false`: none of its slots is offered."""

ANNOTATION_OP_ID: Final = f"{GROUP}/op"
ANNOTATION_ATTEMPT: Final = f"{GROUP}/attempt"
"""On a pod: which run of its op it is, when it is not the first (0)."""
ANNOTATION_TRIES: Final = f"{GROUP}/restart-tries"
"""On a pod: how often at most its op gets another one when it fails."""
ANNOTATION_ABANDON: Final = f"{GROUP}/abandon-settlement"
"""Its value has to be the run's address; an admin gives up the pay of that run."""
ANNOTATION_LEAVE_UNTIL: Final = f"{GROUP}/leave-until"
"""On a NosanaMarket: the time (RFC 3339) until which its keys keep out of the queue; `nosana-operator leave`."""

ANNOTATION_KEY_USE: Final = f"{GROUP}/key-use-acknowledged"
"""On a NosanaMarket: the signature of the transaction by which a key was found to be in use elsewhere. An admin
says with it that this is over."""

FINALIZER_JOB: Final = f"{GROUP}/pods"
"""The job controller's on a NosanaJob: until its pods have ended and were read."""
FINALIZER_SETTLEMENT: Final = f"{GROUP}/settlement"
"""The market host's on a NosanaJob of a run, and on a NosanaMarket: until its runs are settled."""
FINALIZER_OP: Final = f"{GROUP}/op"
"""On a pod: until its exit code and log were read."""

MANAGER_JOBS: Final = "nosana-operator-jobs"
MANAGER_MARKET: Final = "nosana-operator-market"

MAX_JOB_NAME: Final = 52
"""`<job>-<opIndex>[-r<n>]` has to fit a pod's name as a DNS label of 63."""


def run_job_name(run: str) -> str:
    """Name of the NosanaJob of a run: `run-` and 20 characters of base32(SHA-256(address)), lower-case.

    The same run always gives the same name, so a second NosanaJob for it cannot be created.
    """
    digest = base64.b32encode(hashlib.sha256(run.encode()).digest()).decode().lower()
    return f"run-{digest[:20]}"
