"""What `restart_policy` asks for, and who does it. Pure.

Kubernetes knows no number of retries, so a counted policy is the job controller's: each run is a pod of its
own. The others are the kubelet's: one pod, its container started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nosana_operator.definition import RunArgs


@dataclass(frozen=True, slots=True)
class Restart:
    """`in_pod` is the pod's restartPolicy; `tries`: how often at most a failed op gets another pod."""

    in_pod: Literal["Never", "OnFailure", "Always"] = "Never"
    tries: int = 0


def restart(args: RunArgs) -> Restart:
    """The policy of an op. As for Docker and Podman, no tries, or 0, means without bound."""
    policy = args.restart_policy
    if policy is None or policy == "no":
        return Restart()
    if policy in ("always", "unless-stopped"):
        return Restart(in_pod="Always")
    tries = 0 if isinstance(policy, str) else int(policy.restart_tries or 0)
    return Restart(tries=tries) if tries > 0 else Restart(in_pod="OnFailure")
