from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from nosana_operator.api import Gpu
from nosana_operator.api.placement import NodeSettings
from nosana_operator.workload import JobContext, Storage, build_op_objects, unsupported
from nosana_operator.workload.pull_secret import registry_of
from support.workload import context, op

MAKE = {"type": "container/create-volume", "id": "make", "args": {"name": "data"}}
DATA = {"name": "data", "dest": "/data"}


def pod(ctx: JobContext, index: int) -> dict[str, Any]:
    return build_op_objects(ctx, index)[-1]


def test_ops_mount_the_claim_of_the_op_that_makes_it() -> None:
    ctx = context(MAKE, op("a", volumes=[DATA]))
    [claim] = build_op_objects(ctx, 0)
    assert (claim["kind"], claim["metadata"]["name"]) == ("PersistentVolumeClaim", "job-0")
    spec = pod(ctx, 1)["spec"]
    [volume] = [v for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert volume["persistentVolumeClaim"] == {"claimName": "job-0"}
    assert {"name": volume["name"], "mountPath": "/data"} in spec["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(("mode", "together"), [("ReadWriteOnce", True), ("ReadWriteMany", False)])
def test_pods_share_a_node_where_storage_is_on_one_node_at_a_time(mode: Any, together: bool) -> None:
    ctx = replace(
        context(MAKE, op("a", volumes=[DATA]), op("b")),
        storage=Storage(storage_class="fast", access_mode=mode, size="5Gi"),
    )
    claim = build_op_objects(ctx, 0)[0]["spec"]
    assert claim == {
        "accessModes": [mode],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "5Gi"}},
    }
    mounting, other = pod(ctx, 1), pod(ctx, 2)
    assert ("podAffinity" in mounting["spec"].get("affinity", {})) is together
    assert "affinity" not in other["spec"]
    if together:
        [term] = mounting["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        wanted = term["labelSelector"]["matchLabels"].items()
        assert wanted <= mounting["metadata"]["labels"].items()
        assert not wanted <= other["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("mounts", "path"),
    [
        ([{"name": "other", "dest": "/x"}], "ops[1].args.volumes[0].name"),
        ([{"name": "data", "dest": "x"}], "ops[1].args.volumes[0].dest"),
        ([{"name": "data", "dest": "/../x"}], "ops[1].args.volumes[0].dest"),
        ([{"name": "data", "dest": "/"}], "ops[1].args.volumes[0].dest"),
        ([DATA, {"name": "data", "dest": "/data/"}], "ops[1].args.volumes[1].dest"),
    ],
)
def test_mounts_that_cannot_be_made_are_refused(mounts: list[dict[str, str]], path: str) -> None:
    assert [problem.path for problem in unsupported(context(MAKE, op("a", volumes=mounts)))] == [path]


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("ubuntu", "https://index.docker.io/v1/"),
        ("me/app:1", "https://index.docker.io/v1/"),
        ("docker.io/me/app", "https://index.docker.io/v1/"),
        ("ghcr.io/me/app@sha256:" + "0" * 64, "ghcr.io"),
        ("localhost/app", "localhost"),
        ("registry.example.com:5000/app", "registry.example.com:5000"),
        ("registry.hub.docker.com/library/x", "registry.hub.docker.com"),
    ],
)
def test_a_login_is_filed_under_the_images_registry(image: str, registry: str) -> None:
    ctx = context(op(image=image, authentication={"docker": {"username": "me", "password": "hush"}}))
    secret, made = build_op_objects(ctx, 0)
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert list(config["auths"]) == [registry] == [registry_of(image)]
    assert base64.b64decode(config["auths"][registry]["auth"]) == b"me:hush"
    assert made["spec"]["imagePullSecrets"] == [{"name": secret["metadata"]["name"]}]
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert "hush" not in json.dumps(made)


def test_without_a_login_there_is_no_secret() -> None:
    [made] = build_op_objects(context(op(authentication={"docker": {}})), 0)
    assert "imagePullSecrets" not in made["spec"]


def test_ops_that_share_a_node_go_where_the_gpus_are() -> None:
    """A CPU op that mounts the volume first would pin it to a node without GPUs."""
    spec = Gpu(product="A100", min_memory_mi_b=8000)
    ctx = context(MAKE, op("a", volumes=[DATA]), op("b", volumes=[DATA], gpu=True), op("c"), gpu=spec)
    first, second, apart = (build_op_objects(ctx, index)[-1]["spec"] for index in (1, 2, 3))
    assert first["nodeSelector"] == second["nodeSelector"]
    assert first["nodeSelector"]["nvidia.com/gpu.product"] == "A100"
    assert first["tolerations"] == second["tolerations"]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    near, far = (each["affinity"]["nodeAffinity"][required] for each in (first, second))
    assert near == far
    assert "nvidia.com/gpu.product" not in apart["nodeSelector"]
    assert "limits" not in first["containers"][0].get("resources", {})
    anywhere = replace(ctx, storage=Storage(access_mode="ReadWriteMany"))
    assert "nvidia.com/gpu.product" not in build_op_objects(anywhere, 1)[-1]["spec"]["nodeSelector"]


@pytest.mark.parametrize("dest", ["/dev/shm", "/dev/shm/", "//dev//shm"])
def test_a_volume_replaces_what_we_mount(dest: str) -> None:
    ctx = context(MAKE, op("a", volumes=[{"name": DATA["name"], "dest": dest}]))
    spec = build_op_objects(ctx, 1)[-1]["spec"]
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == ["/dev/shm"]
    assert [volume["name"] for volume in spec["volumes"]] == ["volume-0"]


def test_every_pod_runs_on_linux_nodes_of_the_architecture() -> None:
    ctx = replace(context(op()), nodes=NodeSettings(architecture="arm64"))
    selector = build_op_objects(ctx, 0)[-1]["spec"]["nodeSelector"]
    assert selector == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    other = context(op(), gpu=Gpu(node_selector={"kubernetes.io/arch": "riscv64"}))
    assert build_op_objects(other, 0)[-1]["spec"]["nodeSelector"]["kubernetes.io/arch"] == "riscv64"


def test_another_attempt_avoids_nodes_that_refused_the_op() -> None:
    affinity = build_op_objects(context(op()), 0, attempt=1, avoid_nodes=("n1", "n2"))[-1]["spec"]["affinity"]
    [term] = affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [(e["operator"], e["values"]) for e in term["preference"]["matchFields"]] == [
        ("NotIn", ["n1"]),
        ("NotIn", ["n2"]),
    ]
