"""Which nodes `spec.gpu` means: one reading for the builder of pods and for the slot arithmetic."""

from __future__ import annotations

from typing import Final

from nosana_operator.api.common import Gpu, Toleration

LABEL_GPU_PRODUCT: Final = "nvidia.com/gpu.product"
"""Set by NVIDIA's GPU feature discovery."""
LABEL_GPU_MEMORY: Final = "nvidia.com/gpu.memory"
"""As above: the memory of one GPU of the node in MiB, a whole number."""

_NVIDIA: Final = "nvidia.com/"


def is_nvidia(resource_name: str) -> bool:
    """Whether NVIDIA's device plugin offers that resource (whole GPUs, shared ones, MIG slices)."""
    return resource_name.startswith(_NVIDIA)


def gpu_toleration(gpu: Gpu) -> Toleration:
    """For the taint by which GPU nodes are kept free of other pods.

    Its key is the resource's own name by convention; NVIDIA's nodes carry one key for all its resources.
    """
    key = f"{_NVIDIA}gpu" if is_nvidia(gpu.resource_name) else gpu.resource_name
    return Toleration(key=key, operator="Exists", effect="NoSchedule")


def gpu_tolerations(gpu: Gpu) -> tuple[Toleration, ...]:
    """What a pod with GPUs tolerates: the admin's own tolerations and the taint of GPU nodes."""
    return (*gpu.tolerations, gpu_toleration(gpu))
