"""How an op's `restart_policy` is carried out. Pure.

Kubernetes cannot count retries, so the job controller carries out a policy with a number: each attempt is a pod
of its own. The kubelet carries out the others: it restarts the container of the one pod.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nosana_operator.definition import RunArgs


@dataclass(frozen=True, slots=True)
class Restart:
    """`in_pod` is the pod's restartPolicy; `tries` is how often a failed op gets another pod at most."""

    in_pod: Literal["Never", "OnFailure", "Always"] = "Never"
    tries: int = 0


def make_restart(args: RunArgs) -> Restart:
    """The restart policy of an op. As for Docker and Podman, a missing number or 0 means no limit."""
    policy = args.restart_policy
    if policy is None or policy == "no":
        return Restart()
    if policy in ("always", "unless-stopped"):
        return Restart(in_pod="Always")
    tries = 0 if isinstance(policy, str) else int(policy.restart_tries or 0)
    return Restart(tries=tries) if tries > 0 else Restart(in_pod="OnFailure")
