"""Volumes for the sandbox's cluster: folders of this machine, created for claims and removed with them.

Two StorageClasses, as clusters have them: `sandbox-local` (the default) has a volume on one node, chosen by
the claim's first pod; `sandbox-shared` has volumes that all nodes can write to. The cluster's nodes are all on
this machine, so both are folders; the first kind is tied to its node all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from nosana_operator.errors import NosanaError
from nosana_operator.kube import CORE_KINDS, Credentials, EventRecorder, KubeClient
from nosana_operator.kube.kinds import Resource

PROVISIONER: Final = "sandbox.nosana.io/folders"
LOCAL_CLASS: Final = "sandbox-local"
SHARED_CLASS: Final = "sandbox-shared"

_CLAIM: Final = "PersistentVolumeClaim"
_VOLUME: Final = "PersistentVolume"
_MANAGER: Final = "nosana-sandbox"
_SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
_RETRY_SECONDS: Final = 1.0
_ENDLESS: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)

_KINDS: Final = {
    **CORE_KINDS,
    _VOLUME: Resource(_VOLUME, "", "v1", "persistentvolumes", namespaced=False),
    "StorageClass": Resource("StorageClass", "storage.k8s.io", "v1", "storageclasses", namespaced=False),
}

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no volume can be created for a claim: one sentence with the remedy."""

    note: str


def storage_classes() -> list[dict[str, Any]]:
    """The two classes as objects."""
    return [
        _class(LOCAL_CLASS, "WaitForFirstConsumer", {"storageclass.kubernetes.io/is-default-class": "true"}),
        _class(SHARED_CLASS, "Immediate", {}),
    ]


def _class(name: str, binding: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": dict(annotations)},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": binding,
    }


def volume_for(claim: Body, folder: Path) -> dict[str, Any] | Refusal | None:
    """Return the volume that a claim is to have, below `folder`; None when there is nothing to do (yet).

    A claim of the local class waits until the scheduler has chosen a node for its first pod.
    """
    metadata, spec = claim["metadata"], claim["spec"]
    class_name = spec.get("storageClassName")
    if class_name not in (LOCAL_CLASS, SHARED_CLASS) or spec.get("volumeName"):
        return None
    if (claim.get("status") or {}).get("phase") != "Pending" or metadata.get("deletionTimestamp"):
        return None
    if spec.get("volumeMode", "Filesystem") != "Filesystem":
        return Refusal("the sandbox's volumes are folders; take volumeMode out of the claim")
    modes = spec["accessModes"]
    node: str | None = None
    if class_name == LOCAL_CLASS:
        if many := sorted({"ReadWriteMany", "ReadOnlyMany"} & set(modes)):
            return Refusal(
                f"a volume of class {LOCAL_CLASS} is on one node and cannot be {many[0]}; use {SHARED_CLASS}"
            )
        node = (metadata.get("annotations") or {}).get(_SELECTED_NODE)
        if node is None:
            return None
    name = f"pvc-{metadata['uid']}"
    return {
        "apiVersion": "v1",
        "kind": _VOLUME,
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "storageClassName": class_name,
            "accessModes": modes,
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {
                "apiVersion": "v1",
                "kind": _CLAIM,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(folder / name), "type": "Directory"},
            **({"nodeAffinity": _only_on(node)} if node else {}),
        },
    }


def _only_on(node: str) -> dict[str, Any]:
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}


def is_released(volume: Body) -> bool:
    """Whether a volume of ours has lost its claim, so that it has to go."""
    metadata = volume["metadata"]
    return (
        (metadata.get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
        and (volume.get("status") or {}).get("phase") in ("Released", "Failed")
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        and not metadata.get("deletionTimestamp")
    )


class Provisioner:
    """Makes and removes the volumes of one cluster while it is entered; `folder` holds them."""

    def __init__(self, credentials: Credentials, folder: Path) -> None:
        self._credentials = credentials
        self._folder = folder
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Create the classes and start watching."""
        self._session = self._credentials.open_session(user_agent="nosana-sandbox")
        self._kube = KubeClient(self._session, kinds=_KINDS)
        self._events = EventRecorder(self._kube, controller=PROVISIONER, instance="sandbox")
        for storage_class in storage_classes():
            await self._kube.apply(storage_class, manager=_MANAGER)
        self._tasks = [
            asyncio.create_task(self._events.run()),
            asyncio.create_task(self._follow(_CLAIM, self._claim)),
            asyncio.create_task(self._follow(_VOLUME, self._volume)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closed before the readers are told: it waits for connections that are in use.
        await self._session.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _claim(self, claim: Body) -> None:
        made = volume_for(claim, self._folder)
        if isinstance(made, Refusal):
            self._events.event(
                claim, type="Warning", reason="ProvisioningFailed", action="Provision", note=made.note
            )
        elif made is not None:
            place = self._folder / made["metadata"]["name"]
            place.mkdir(parents=True, exist_ok=True)
            # The image's user, whichever it is, has to be able to write.
            place.chmod(0o777)
            await self._kube.apply(made, manager=_MANAGER)

    async def _volume(self, volume: Body) -> None:
        if is_released(volume):
            name = volume["metadata"]["name"]
            await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)
            await self._kube.delete(_VOLUME, None, name, uid=volume["metadata"]["uid"])

    async def _follow(self, kind: str, act: Callable[[Body], Awaitable[None]]) -> None:
        """Act on every object of a kind as it is and as it becomes; what fails is tried again soon."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, NosanaError):
                snapshot = await self._kube.snapshot(kind)
                for body in snapshot.items:
                    await act(body)
                async for changed in self._changes(kind, snapshot.resource_version):
                    await act(changed)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _changes(self, kind: str, version: str) -> AsyncIterator[Body]:
        """What becomes of a kind's objects, until the API server ends the watch."""
        params = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        path = self._kube.resource(kind).path(None)
        async with self._session.get(path, params=params, timeout=_ENDLESS) as response:
            response.raise_for_status()
            async for line in response.content:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]
                elif event["type"] == "ERROR":
                    return
