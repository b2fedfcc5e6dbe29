"""One op → one pod."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from nosana_operator.api import (
    ANNOTATION_ATTEMPT,
    ANNOTATION_OP_ID,
    ANNOTATION_TRIES,
    FINALIZER_OP,
    Toleration,
)
from nosana_operator.api.placement import LABEL_GPU_MEMORY, LABEL_GPU_PRODUCT, gpu_toleration, is_nvidia
from nosana_operator.api.quantity import cores, parse_quantity, size
from nosana_operator.definition import RunArgs, exposed_ports
from nosana_operator.workload.aliases import make_dns_config
from nosana_operator.workload.container import args_problems, make_command, make_env, work_dir
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.errors import ArgsError
from nosana_operator.workload.image import full_reference
from nosana_operator.workload.isolation import LABEL_EXPOSED
from nosana_operator.workload.metadata import Body, make_op_metadata, pod_name
from nosana_operator.workload.pull_secret import image_pull_policy, make_pull_secrets
from nosana_operator.workload.resources import make_fetch_parts
from nosana_operator.workload.storage import (
    make_storage_affinity,
    make_storage_labels,
    make_volume_mounts,
    make_volumes,
    needs_gpu_node,
)

CONTAINER: Final = "op"
"""The name of an op's container, whose exit code and log are read."""
GRACE_SECONDS: Final = 10
"""Between SIGTERM and SIGKILL: the grace period of Docker and Podman, for which ops are written."""
_SHARED_MEMORY: Final = parse_quantity("4Gi")

# An op cannot be moved, so autoscalers have to leave its node alone.
_DO_NOT_EVICT: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
# The operator, not the node controller's timer, decides what happens to an op whose node does not report.
_STAY_ON_SILENT_NODE: Final = tuple(
    Toleration(key=f"node.kubernetes.io/{state}", operator="Exists", effect="NoExecute")
    for state in ("not-ready", "unreachable")
)


def build_pod(
    ctx: JobContext, op_index: int, args: RunArgs, *, attempt: int = 0, avoid_nodes: Sequence[str] = ()
) -> Body:
    """The pod of one op; `args` are the op's arguments with all literals replaced.

    `avoid_nodes` are chosen only when there is no other node.
    Raises ArgsError when no container can be created from them.
    """
    problems = list(args_problems(ctx, op_index, args))
    if problems:
        raise ArgsError(ctx.op(op_index).id, problems)
    metadata = make_op_metadata(ctx, pod_name(ctx, op_index, attempt), op_index)
    policy = make_restart(args)
    metadata["annotations"] = {
        ANNOTATION_OP_ID: ctx.op(op_index).id,
        **({ANNOTATION_ATTEMPT: str(attempt)} if attempt else {}),
        **({ANNOTATION_TRIES: str(policy.tries)} if policy.tries else {}),
        **_DO_NOT_EVICT,
    }
    metadata["finalizers"] = [FINALIZER_OP]
    metadata["labels"] |= make_storage_labels(ctx, args)
    if exposed_ports(args):
        metadata["labels"][LABEL_EXPOSED] = "true"
    placement = _make_placement(
        ctx, gpu=needs_gpu_node(ctx, args), takes_gpu=ctx.uses_gpu(args), avoid_nodes=avoid_nodes
    )
    if near := make_storage_affinity(ctx, args):
        placement["affinity"] = placement.get("affinity", {}) | near
    files = make_fetch_parts(ctx, op_index, args, _make_resources(ctx, op_index, gpu=False))
    own_mounts, own_volumes = _make_own_volumes(ctx)
    mounts = [*files.mounts, *make_volume_mounts(ctx, args)]
    # What a definition mounts replaces what we mount there: two mounts of one path are refused.
    taken = {mount["mountPath"] for mount in mounts}
    own_mounts = [mount for mount in own_mounts if mount["mountPath"] not in taken]
    own_volumes = [v for v in own_volumes if v["name"] in {mount["name"] for mount in own_mounts}]
    mounts = [*own_mounts, *mounts]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": policy.in_pod,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            **({"runtimeClassName": runtime} if (runtime := ctx.runtime_class(args)) else {}),
            **make_pull_secrets(ctx, op_index, args),
            **placement,
            **make_dns_config(ctx),
            **({"initContainers": [*files.init_containers]} if files.init_containers else {}),
            "containers": [_make_container(ctx, op_index, args, mounts)],
            "volumes": [*own_volumes, *files.volumes, *make_volumes(ctx, args)],
        },
    }


def _make_container(ctx: JobContext, op_index: int, args: RunArgs, mounts: list[Body]) -> Body:
    folder = work_dir(ctx, args)
    ports = [{"containerPort": port.number, "protocol": "TCP"} for port in exposed_ports(args)]
    resources = _make_resources(ctx, op_index, gpu=ctx.uses_gpu(args))
    return {
        "name": CONTAINER,
        "image": full_reference(args.image),
        "imagePullPolicy": image_pull_policy(ctx, args),
        **make_command(ctx, args),
        **({"workingDir": folder} if folder else {}),
        "env": make_env(ctx, args),
        **({"ports": ports} if ports else {}),
        **({"resources": resources} if resources else {}),
        "securityContext": {"allowPrivilegeEscalation": False},
        **({"volumeMounts": mounts} if mounts else {}),
    }


def _make_own_volumes(ctx: JobContext) -> tuple[list[Body], list[Body]]:
    """The mounts and volumes that every op gets."""
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 - the op's own
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _shared_memory_size(ctx)}}]
    return mounts, volumes


def _make_resources(ctx: JobContext, op_index: int, *, gpu: bool) -> dict[str, dict[str, str]]:
    """The limits and requests of one op.

    The ops of a stage share the job's resources. Each may use all of them while the others are idle (limit) and
    is guaranteed an equal part (request), so a stage never requests more than the slot has.
    """
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    beside = ctx.runs_beside(op_index)
    for name, quantity, write in (
        ("cpu", ctx.spec.resources.cpu, cores),
        ("memory", ctx.spec.resources.memory, size),
        ("ephemeral-storage", ctx.spec.resources.ephemeral_storage, size),
    ):
        amount = parse_quantity(quantity) if quantity else 0
        if quantity and amount > 0:
            limits[name] = quantity
            requests[name] = quantity if beside == 1 else write(amount // beside)
    if gpu:
        limits[ctx.spec.gpu.resource_name] = requests[ctx.spec.gpu.resource_name] = str(ctx.spec.gpu.count)
    return {"limits": limits, "requests": requests} if limits else {}


def _shared_memory_size(ctx: JobContext) -> str:
    """The size of /dev/shm: that of Nosana's nodes, but never more than the memory limit it counts against."""
    memory = parse_quantity(ctx.spec.resources.memory) if ctx.spec.resources.memory else 0
    return size(min(_SHARED_MEMORY, memory) if memory > 0 else _SHARED_MEMORY)


def _make_placement(
    ctx: JobContext, *, gpu: bool, takes_gpu: bool, avoid_nodes: Sequence[str]
) -> dict[str, Any]:
    """The node selector, affinity and tolerations.

    The settings' labels and the admin's selector and tolerations apply to all ops of a job, so that it stays on the
    nodes assigned to it; the GPU's product and memory apply to ops with GPUs, and to those that share a node with
    them (`gpu`). These tolerate the taint of GPU nodes, and so do ops that the selector binds to such nodes.
    """
    spec = ctx.spec.gpu
    selector = ctx.nodes.labels | dict(spec.node_selector)
    tolerations = [*_STAY_ON_SILENT_NODE, *spec.tolerations]
    if gpu or spec.node_selector:
        tolerations.append(gpu_toleration(spec))
    required: list[Body] = []
    preferred: list[Body] = []
    if gpu and spec.product is not None:
        selector[LABEL_GPU_PRODUCT] = spec.product
    if gpu and spec.min_memory_mi_b is not None:
        required.append(
            {"key": LABEL_GPU_MEMORY, "operator": "Gt", "values": [str(spec.min_memory_mi_b - 1)]}
        )
    if gpu and not takes_gpu and is_nvidia(spec.resource_name):
        # Nothing that an op without GPUs may request leads it to GPU nodes; their label does, where they have it.
        preferred.append({"matchExpressions": [{"key": LABEL_GPU_PRODUCT, "operator": "Exists"}]})
    if avoid_nodes:
        names = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in avoid_nodes]
        preferred.append({"matchFields": names})
    affinity: Body = {}
    if required:
        terms = {"nodeSelectorTerms": [{"matchExpressions": required}]}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = terms
    if preferred:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": term} for term in preferred
        ]
    return {
        "nodeSelector": selector,
        **({"affinity": {"nodeAffinity": affinity}} if affinity else {}),
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in tolerations],
    }


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
