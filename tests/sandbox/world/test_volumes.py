"""Volumes of the sandbox: what is made for a claim, and when it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nosana_sandbox.volumes import Refusal, is_released, storage_classes, volume_for

FOLDER = Path("/volumes")
NODE = {"volume.kubernetes.io/selected-node": "node-2"}


def claim(
    class_name: str | None, *modes: str, annotations: dict[str, str] | None = None, **changes: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "data", "namespace": "jobs", "uid": "u-1"}
    if annotations:
        metadata["annotations"] = annotations
    spec: dict[str, Any] = {
        "accessModes": list(modes or ("ReadWriteOnce",)),
        "resources": {"requests": {"storage": "1Gi"}},
    }
    if class_name:
        spec["storageClassName"] = class_name
    made = {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}
    for path, value in changes.items():
        made[path] = {**made[path], **value}
    return made


def test_a_local_volume_is_tied_to_the_node_of_its_first_pod() -> None:
    made = volume_for(claim("sandbox-local", annotations=NODE), FOLDER)
    assert isinstance(made, dict)
    assert made["metadata"]["name"] == "pvc-u-1"
    spec = made["spec"]
    assert spec["hostPath"]["path"] == "/volumes/pvc-u-1"
    assert spec["claimRef"]["uid"] == "u-1"
    assert (spec["accessModes"], spec["capacity"]) == (["ReadWriteOnce"], {"storage": "1Gi"})
    (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-2"]}
    ]


def test_a_shared_volume_is_everywhere() -> None:
    made = volume_for(claim("sandbox-shared", "ReadWriteMany"), FOLDER)
    assert isinstance(made, dict)
    assert "nodeAffinity" not in made["spec"]


@pytest.mark.parametrize(
    "waiting",
    [
        claim(None),
        claim("standard", annotations=NODE),
        claim("sandbox-local"),
        claim("sandbox-shared", spec={"volumeName": "pvc-u-1"}),
        claim("sandbox-shared", status={"phase": "Bound"}),
        claim("sandbox-shared", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ],
    ids=["no-class", "another-class", "no-node-yet", "has-one", "bound", "going"],
)
def test_nothing_is_made_for(waiting: dict[str, Any]) -> None:
    assert volume_for(waiting, FOLDER) is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (claim("sandbox-local", "ReadWriteMany"), "cannot be ReadWriteMany; use sandbox-shared"),
        (claim("sandbox-shared", spec={"volumeMode": "Block"}), "take volumeMode out"),
    ],
)
def test_what_cannot_be_made_is_said(asked: dict[str, Any], says: str) -> None:
    refused = volume_for(asked, FOLDER)
    assert isinstance(refused, Refusal)
    assert says in refused.note


def test_only_a_released_volume_of_ours_goes() -> None:
    made = volume_for(claim("sandbox-shared"), FOLDER)
    assert isinstance(made, dict)
    assert not is_released(made)
    assert not is_released(made | {"status": {"phase": "Bound"}})
    released = made | {"status": {"phase": "Released"}}
    assert is_released(released)
    assert not is_released(released | {"metadata": {"name": "pvc-u-1"}})
    kept = {**made["spec"], "persistentVolumeReclaimPolicy": "Retain"}
    assert not is_released(released | {"spec": kept})


def test_one_class_is_the_default() -> None:
    marked = {c["metadata"]["name"]: c["metadata"]["annotations"] for c in storage_classes()}
    assert marked["sandbox-local"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert marked["sandbox-shared"] == {}
