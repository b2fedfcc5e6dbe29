"""`create-volume` ops → claims, and where other ops mount them (docs/protocol/job-definition.md#volumes).

A claim belongs to the job: its ops share it, and it goes with it. Where storage can be mounted on one node at
a time only, the ops that mount some are kept on one node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from nosana_operator.api import LABEL_JOB_UID
from nosana_operator.definition import Problem, RunArgs, VolumeArgs
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, child, op_name

LABEL_STORAGE: Final = "nosana.io/mounts-volumes"
"""On the pods of a job that have to be on one node."""
_TAKEN: Final = tuple(PurePosixPath(path) for path in ("/", "/dev", "/proc", "/sys"))


def build_claim(ctx: JobContext, op_index: int) -> Body:
    """The claim that a `create-volume` op makes."""
    storage = ctx.storage
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": child(ctx, op_name(ctx, op_index), op_index),
        "spec": {
            "accessModes": [storage.access_mode],
            "resources": {"requests": {"storage": storage.size}},
            **({"storageClassName": storage.storage_class} if storage.storage_class else {}),
        },
    }


def mounts(ctx: JobContext, args: RunArgs) -> list[Body]:
    """Of the op's container: where it has volumes."""
    return [
        {"name": f"volume-{_makers(ctx)[mount.name]}", "mountPath": mount.dest}
        for mount in args.volumes or ()
    ]


def volumes(ctx: JobContext, args: RunArgs) -> list[Body]:
    """Of a pod's spec: the claims that its op mounts."""
    wanted = sorted({_makers(ctx)[mount.name] for mount in args.volumes or ()})
    return [
        {"name": f"volume-{index}", "persistentVolumeClaim": {"claimName": op_name(ctx, index)}}
        for index in wanted
    ]


def storage_labels(ctx: JobContext, args: RunArgs) -> dict[str, str]:
    """Of a pod that has to be where its job's other pods with volumes are."""
    return {LABEL_STORAGE: "true"} if args.volumes and ctx.storage.access_mode == "ReadWriteOnce" else {}


def storage_affinity(ctx: JobContext, args: RunArgs) -> dict[str, Any]:
    """Of a pod's `affinity`: on the node of the job's other pods with volumes; the first one may choose."""
    labels = storage_labels(ctx, args)
    if not labels:
        return {}
    term = {
        "labelSelector": {"matchLabels": {LABEL_JOB_UID: ctx.uid, **labels}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def volume_problems(ctx: JobContext, op_index: int, args: RunArgs) -> Iterator[Problem]:
    """Mounts of volumes that no op makes, and folders where nothing can be mounted."""
    folders: Counter[str] = Counter()
    for position, mount in enumerate(args.volumes or ()):
        place = ("ops", op_index, "args", "volumes", position)
        if "%%" not in mount.name and mount.name not in _makers(ctx):
            made = ", ".join(map(quoted, _makers(ctx))) or "none"
            yield Problem(
                json_path((*place, "name")),
                f"no op makes a volume {quoted(mount.name)}",
                f"add a container/create-volume op with that name; there are: {made}",
            )
        if "%%" in mount.dest:
            continue
        folder = PurePosixPath(mount.dest)
        folders[str(folder)] += 1
        if not folder.is_absolute() or ".." in folder.parts or ":" in mount.dest or "\0" in mount.dest:
            yield Problem(
                json_path((*place, "dest")), f"{quoted(mount.dest)} is no absolute folder", "start it with /"
            )
        elif folder in _TAKEN or folders[str(folder)] > 1:
            yield Problem(
                json_path((*place, "dest")),
                f"{quoted(mount.dest)} is taken",
                "mount it at a folder of its own",
            )


def _makers(ctx: JobContext) -> dict[str, int]:
    """Volume name → index of the op that makes it; the first one, when several do."""
    made: dict[str, int] = {}
    for index, op in enumerate(ctx.definition.ops):
        if isinstance(op.args, VolumeArgs):
            made.setdefault(op.args.name, index)
    return made
