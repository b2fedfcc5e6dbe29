"""An op's `resources` → volumes that an init container fills before the op starts.

Resources with the same target share a volume, and so do targets inside each other, because a mount point inside a
read-only volume cannot be created. A Secret that only the init container mounts lists what to fetch, including
credentials; `nosana_operator.fetching.spec` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from nosana_operator.api.quantity import UNIT, parse_quantity
from nosana_operator.definition import Problem, RunArgs
from nosana_operator.definition.literals import Place
from nosana_operator.definition.model import (
    HuggingFaceResource,
    OllamaResource,
    Resource,
    S3BucketResource,
    S3BucketsResource,
    S3Resource,
)
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.context import DEFAULT_MIRRORS, JobContext
from nosana_operator.workload.metadata import Body, make_op_metadata, op_name
from nosana_operator.workload.mount_points import is_absolute_folder, is_reserved, mount_path

FETCHER: Final = "fetch"
"""The name of the init container."""
_SPEC_VOLUME: Final = "fetch"
_SPEC_FOLDER: Final = PurePosixPath("/etc/nosana-fetch")
_SPEC_FILE: Final = "spec.json"
_ROOT: Final = PurePosixPath("/resources")

_S3 = S3Resource | S3BucketResource | S3BucketsResource


@dataclass(slots=True)
class _Target:
    """One folder in the op's container."""

    path: PurePosixPath
    resources: list[Resource]
    writable: bool = False
    volume: str = ""
    folder: PurePosixPath = _ROOT
    """The folder in the init container."""
    above: _Target | None = None
    """The target that contains this one."""


@dataclass(frozen=True, slots=True)
class FetchParts:
    """The parts of a pod for its op's resources; all empty when the op has none."""

    init_containers: tuple[Body, ...] = ()
    volumes: tuple[Body, ...] = ()
    mounts: tuple[Body, ...] = ()
    """The volume mounts of the op's container."""


def secret_name(ctx: JobContext, op_index: int) -> str:
    """The name of the Secret that lists what to fetch for an op."""
    return f"{op_name(ctx, op_index)}-fetch"


def build_fetch_secret(ctx: JobContext, op_index: int, args: RunArgs) -> list[Body]:
    """The Secret that lists what to fetch; none for an op without resources. It is deleted after the op's end."""
    if ctx.fetching.image is None or not _resources(args):
        return []
    storage = ctx.spec.resources.ephemeral_storage
    room = parse_quantity(storage) // UNIT if storage else 0
    targets = _targets(args)
    spec = {
        "mirrors": {**DEFAULT_MIRRORS, **ctx.fetching.mirrors},
        "room": room or None,
        "resources": [
            {"folder": str(target.folder), **_described(resource)}
            for target in targets
            for resource in target.resources
        ],
        "folders": [*(str(target.folder) for target in targets), *_mount_points(args, targets)],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": make_op_metadata(ctx, secret_name(ctx, op_index), op_index),
            "type": "Opaque",
            "immutable": True,
            "stringData": {_SPEC_FILE: json.dumps(spec)},
        }
    ]


def make_fetch_parts(ctx: JobContext, op_index: int, args: RunArgs, limits: Mapping[str, Any]) -> FetchParts:
    """The parts of an op's pod that fetch its resources; `limits` are the container's `resources`."""
    if ctx.fetching.image is None or not _resources(args):
        return FetchParts()
    targets = _targets(args)
    roots = [target for target in targets if target.above is None]
    container = {
        "name": FETCHER,
        "image": ctx.fetching.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [str(_SPEC_FOLDER / _SPEC_FILE)],
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
        **({"resources": dict(limits)} if limits else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": _SPEC_VOLUME, "mountPath": str(_SPEC_FOLDER), "readOnly": True},
            *({"name": target.volume, "mountPath": str(target.folder)} for target in roots),
        ],
    }
    volumes = [
        {"name": _SPEC_VOLUME, "secret": {"secretName": secret_name(ctx, op_index), "defaultMode": 0o400}},
        *({"name": target.volume, "emptyDir": {}} for target in roots),
    ]
    mounts = [
        {
            "name": target.volume,
            "mountPath": str(target.path),
            **({"subPath": str(target.folder.relative_to(_root(target).folder))} if target.above else {}),
            **({} if target.writable else {"readOnly": True}),
        }
        for target in targets
        if target.above is None or target.writable != target.above.writable
    ]
    return FetchParts((container,), tuple(volumes), tuple(mounts))


def resources_problems(op_index: int, args: RunArgs) -> Iterator[Problem]:
    """The resources that cannot be fetched or mounted. Text that still contains a literal is skipped."""
    mounted = {mount_path(volume.dest) for volume in args.volumes or ()}
    for index, resource in enumerate(args.resources or ()):
        if not isinstance(resource, _S3 | HuggingFaceResource | OllamaResource):
            continue
        place: Place = ("ops", op_index, "args", "resources", index)
        yield from _target_problems((*place, "target"), resource.target)
        if mount_path(resource.target) in mounted:
            yield Problem(
                json_path((*place, "target")),
                f"the op mounts a volume on {quoted(resource.target)}",
                "give the resource a folder of its own; it may be inside the volume",
            )
        match resource:
            case S3Resource():
                if resource.url is None:
                    yield Problem(json_path(place), "it names no place", "set url, bucket or buckets")
                yield from _url_problems((*place, "url"), resource.url)
                yield from _file_problems((*place, "files"), resource.files)
            case S3BucketResource():
                yield from _url_problems((*place, "url"), resource.url)
            case S3BucketsResource():
                yield from _url_problems((*place, "url"), resource.url)
                for number, source in enumerate(resource.buckets):
                    yield from _url_problems((*place, "buckets", number, "url"), source.url)
                    yield from _file_problems((*place, "buckets", number, "files"), source.files)
            case HuggingFaceResource():
                parts = resource.repo.split("/")
                if "%%" not in resource.repo and (
                    len(parts) > 2 or any(part in ("", ".", "..") for part in parts)
                ):
                    yield Problem(
                        json_path((*place, "repo")),
                        f"{quoted(resource.repo)} is not the name of a repository",
                        "write it as owner/name",
                    )
                yield from _file_problems((*place, "files"), resource.files)


def _target_problems(place: Place, target: str) -> Iterator[Problem]:
    if "%%" in target:
        return
    if not is_absolute_folder(target):
        yield Problem(
            json_path(place),
            f"{quoted(target)} is not a folder that can be mounted",
            "write an absolute path without .. and without colons, like /models",
        )
    elif is_reserved(target, inside=True):
        yield Problem(
            json_path(place),
            f"nothing can be mounted on {quoted(target)}",
            "choose a folder of its own, like /models",
        )


def _url_problems(place: Place, url: str | None) -> Iterator[Problem]:
    if url is None or "%%" in url:
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https", "s3") and bool(parts.hostname) and parts.username is None
    except ValueError:
        good = False
    if not good:
        # Not shown: it may hold a password.
        yield Problem(
            json_path(place),
            "it is not the address of a bucket",
            "write https://… or s3://bucket/folder, and credentials in IAM",
        )


def _file_problems(place: Place, files: list[str] | None) -> Iterator[Problem]:
    for index, name in enumerate(files or ()):
        if "%%" in name:
            continue
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name or "\\" in name:
            yield Problem(
                json_path((*place, index)),
                f"{quoted(name)} is not a file below the target",
                "write a relative path without . and .., like folder/file",
            )


def _resources(args: RunArgs) -> list[Resource]:
    """The resources of an op, its literals replaced."""
    return [
        item for item in args.resources or () if isinstance(item, _S3 | HuggingFaceResource | OllamaResource)
    ]


def _targets(args: RunArgs) -> list[_Target]:
    """The folders of an op, a folder before those in it."""
    by_path: dict[PurePosixPath, _Target] = {}
    for resource in _resources(args):
        path = mount_path(resource.target)
        target = by_path.setdefault(path, _Target(path, []))
        target.resources.append(resource)
        target.writable |= isinstance(resource, _S3) and resource.allow_write
    count = 0
    for path in sorted(by_path, key=lambda path: len(path.parts)):
        target = by_path[path]
        target.above = next((by_path[up] for up in path.parents if up in by_path), None)
        if target.above is None:
            target.volume, target.folder = f"resource-{count}", _ROOT / str(count)
            count += 1
        else:
            target.volume = target.above.volume
            target.folder = target.above.folder / path.relative_to(target.above.path)
    return sorted(
        by_path.values(), key=lambda target: (int(target.volume.rpartition("-")[2]), len(target.path.parts))
    )


def _mount_points(args: RunArgs, targets: list[_Target]) -> list[str]:
    """The folders inside targets where volumes are mounted: they have to exist before the target is read-only."""
    folders = []
    for volume in args.volumes or ():
        dest = mount_path(volume.dest)
        for target in targets:
            if target.path in dest.parents:
                folders.append(str(target.folder / dest.relative_to(target.path)))
                break
    return folders


def _root(target: _Target) -> _Target:
    return target if target.above is None else _root(target.above)


def _described(resource: Resource) -> dict[str, Any]:
    """The resource in the form that the fetcher reads."""
    match resource:
        case HuggingFaceResource():
            fields: dict[str, Any] = {
                "type": "HF",
                "repo": resource.repo,
                "revision": resource.revision or None,
                "files": resource.files or None,
                "token": resource.access_token or None,
            }
        case OllamaResource():
            fields = {"type": "Ollama", "model": resource.model}
        case _:
            fields = {
                "type": "S3",
                "sources": _sources(resource),
                "credentials": {
                    "region": resource.iam.region,
                    "keyId": resource.iam.access_key_id,
                    "secret": resource.iam.secret_access_key,
                }
                if resource.iam and resource.iam.access_key_id
                else None,
                "writable": resource.allow_write or None,
            }
    return {name: value for name, value in fields.items() if value is not None}


def _sources(resource: _S3) -> list[dict[str, Any]]:
    """The sources of an S3 resource; as on Nosana's nodes, `url` wins over `buckets`.

    (docs/protocol/job-definition.md#resources)
    """
    if isinstance(resource, S3BucketsResource) and resource.url is None:
        return [
            {"url": source.url, **({"files": source.files} if source.files else {})}
            for source in resource.buckets
        ]
    source: dict[str, Any] = {}
    if resource.url is not None:
        source["url"] = resource.url
    if isinstance(resource, S3BucketResource):
        source["bucket"] = resource.bucket
    if isinstance(resource, S3Resource) and resource.files:
        source["files"] = resource.files
    return [source]
