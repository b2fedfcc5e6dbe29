"""`create-volume` ops → claims, and their mounts in other ops (docs/protocol/job-definition.md#volumes).

A claim belongs to the job: its ops share it, and it is deleted with the job. Where storage can be mounted on one
node at a time only, all ops that mount volumes run on one node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from nosana_operator.api import LABEL_JOB_UID
from nosana_operator.api.quantity import parse_quantity
from nosana_operator.definition import Problem, RunArgs
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, make_op_metadata, op_name
from nosana_operator.workload.mount_points import is_absolute_folder, is_reserved, mount_path

LABEL_STORAGE: Final = "nosana.io/mounts-volumes"
"""The label of a job's pods that have to run on one node."""


def build_claim(ctx: JobContext, op_index: int) -> Body:
    """The claim of a `create-volume` op."""
    storage = ctx.storage
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": make_op_metadata(ctx, op_name(ctx, op_index), op_index),
        "spec": {
            "accessModes": [storage.access_mode],
            "resources": {"requests": {"storage": storage.size}},
            **({"storageClassName": storage.storage_class} if storage.storage_class else {}),
        },
    }


def make_volume_mounts(ctx: JobContext, args: RunArgs) -> list[Body]:
    """The `volumeMounts` of the op's container for its volumes."""
    return [
        {"name": f"volume-{ctx.definition.volume_ops[mount.name]}", "mountPath": str(mount_path(mount.dest))}
        for mount in args.volumes or ()
    ]


def make_volumes(ctx: JobContext, args: RunArgs) -> list[Body]:
    """The `volumes` of a pod for the claims that its op mounts."""
    claims = sorted({ctx.definition.volume_ops[mount.name] for mount in args.volumes or ()})
    return [
        {"name": f"volume-{index}", "persistentVolumeClaim": {"claimName": op_name(ctx, index)}}
        for index in claims
    ]


def make_storage_labels(ctx: JobContext, args: RunArgs) -> dict[str, str]:
    """The labels of a pod that has to share a node with its job's other pods with volumes."""
    return {LABEL_STORAGE: "true"} if args.volumes and ctx.storage.access_mode == "ReadWriteOnce" else {}


def needs_gpu_node(ctx: JobContext, args: RunArgs) -> bool:
    """Whether an op has to run where the job's GPUs are: it gets some, or shares a node with an op that does."""
    if ctx.uses_gpu(args):
        return True
    if not make_storage_labels(ctx, args):
        return False
    others = (op.args for op in ctx.definition.ops if isinstance(op.args, RunArgs))
    return any(other.volumes and ctx.uses_gpu(other) for other in others)


def make_storage_affinity(ctx: JobContext, args: RunArgs) -> dict[str, Any]:
    """The part of a pod's `affinity` that keeps it on the node of the job's other pods with volumes."""
    labels = make_storage_labels(ctx, args)
    if not labels:
        return {}
    term = {
        "labelSelector": {"matchLabels": {LABEL_JOB_UID: ctx.uid, **labels}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def storage_problems(ctx: JobContext) -> Iterator[Problem]:
    """The volumes that are more than the claims of one job may have together."""
    count, storage = sum(not isinstance(op.args, RunArgs) for op in ctx.definition.ops), ctx.storage
    allowed = parse_quantity(storage.job_size) // parse_quantity(storage.size)
    if count > allowed:
        yield Problem(
            "ops",
            f"its {count} volumes of {storage.size} each are more than the {storage.job_size} that this host gives to "
            "a job",
            f"create at most {allowed} volumes" if allowed else "create no volume",
        )


def volume_problems(ctx: JobContext, op_index: int, args: RunArgs) -> Iterator[Problem]:
    """The mounts of volumes that no op creates, and folders where nothing can be mounted."""
    folders: Counter[PurePosixPath] = Counter()
    for position, mount in enumerate(args.volumes or ()):
        place = ("ops", op_index, "args", "volumes", position)
        if "%%" not in mount.name and mount.name not in ctx.definition.volume_ops:
            existing = ", ".join(map(quoted, ctx.definition.volume_ops)) or "none"
            yield Problem(
                json_path((*place, "name")),
                f"no op creates a volume {quoted(mount.name)}",
                f"add a container/create-volume op with that name; there are: {existing}",
            )
        if "%%" in mount.dest:
            continue
        folder = mount_path(mount.dest)
        folders[folder] += 1
        if not is_absolute_folder(mount.dest):
            yield Problem(
                json_path((*place, "dest")),
                f"{quoted(mount.dest)} is not an absolute folder",
                "start it with /",
            )
        elif is_reserved(mount.dest) or folders[folder] > 1:
            yield Problem(
                json_path((*place, "dest")),
                f"{quoted(mount.dest)} is taken",
                "mount it at a folder of its own",
            )
