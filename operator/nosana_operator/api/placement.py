"""The nodes that ops may run on, for pod builders and slot counting alike."""

from __future__ import annotations

from typing import Final, Literal

from nosana_operator.api.common import Gpu, Toleration
from nosana_operator.settings_group import SettingsGroup

LABEL_GPU_PRODUCT: Final = "nvidia.com/gpu.product"
"""Set by NVIDIA's GPU feature discovery."""
LABEL_GPU_MEMORY: Final = "nvidia.com/gpu.memory"
"""As above: the memory of one GPU of the node in MiB, a whole number."""

LABEL_OS: Final = "kubernetes.io/os"
"""Set by the kubelet."""
LABEL_ARCHITECTURE: Final = "kubernetes.io/arch"
"""Set by the kubelet."""

_NVIDIA: Final = "nvidia.com/"


class NodeSettings(SettingsGroup):
    """Which nodes ops run on. Only Linux nodes count, because definitions name Linux images."""

    architecture: Literal["amd64", "arm64"] = "amd64"
    """The CPU architecture of the nodes (label kubernetes.io/arch). The default is what posters build their images
    for; a NosanaMarket's spec.gpu.nodeSelector may name another one for its jobs."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of a node that can run ops: every op's pod selects them, and slots are counted on them only."""
        return {LABEL_OS: "linux", LABEL_ARCHITECTURE: self.architecture}


def is_nvidia(resource_name: str) -> bool:
    """Whether NVIDIA's device plugin offers that resource (whole GPUs, shared ones, MIG slices)."""
    return resource_name.startswith(_NVIDIA)


def gpu_toleration(gpu: Gpu) -> Toleration:
    """Tolerates the taint that keeps other pods off GPU nodes.

    By convention its key is the resource's name; NVIDIA's nodes have one key for all of its resources.
    """
    key = f"{_NVIDIA}gpu" if is_nvidia(gpu.resource_name) else gpu.resource_name
    return Toleration(key=key, operator="Exists", effect="NoSchedule")


def gpu_tolerations(gpu: Gpu) -> tuple[Toleration, ...]:
    """The tolerations of a pod with GPUs: those of the spec and the one for GPU nodes."""
    return (*gpu.tolerations, gpu_toleration(gpu))
