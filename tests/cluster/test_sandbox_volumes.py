"""Claims get volumes that keep what is written, where it may be read, until they are deleted."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_sandbox.cluster import LocalCluster
from nosana_sandbox.cluster.kubectl import Kubectl
from nosana_sandbox.world.sandbox import Sandbox

pytestmark = pytest.mark.cluster

OF_TEST = {"test": "volumes"}


def claim(name: str, mode: str, class_name: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
    if class_name:
        spec["storageClassName"] = class_name
    metadata = {"name": name, "labels": OF_TEST}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def pod(name: str, claim_name: str, command: str, node: str | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": OF_TEST},
        "spec": {
            "restartPolicy": "Never",
            **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
            "securityContext": {"runAsUser": 1000},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}],
            "containers": [
                {
                    "name": "main",
                    "image": "busybox:latest",
                    "command": ["sh", "-c", command],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
        },
    }


def test_volumes_come_and_go_with_their_claims(
    sandbox: Sandbox, sandbox_cluster: LocalCluster, kubectl: Kubectl
) -> None:
    def done(*names: str) -> None:
        for name in names:
            kubectl.run("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")

    kubectl.apply(
        [
            claim("local", "ReadWriteOnce"),
            claim("shared", "ReadWriteMany", "sandbox-shared"),
            claim("refused", "ReadWriteMany", "sandbox-local"),
            pod("writes-local", "local", "echo kept > /data/note", "node-2"),
            pod("writes-shared", "shared", "echo seen > /data/note", "node-1"),
        ]
    )
    done("writes-local", "writes-shared")
    # Without a node of its own the second pod goes where the volume is.
    kubectl.apply(
        [
            pod("reads-local", "local", "cat /data/note"),
            pod("reads-shared", "shared", "cat /data/note", "node-2"),
        ]
    )
    done("reads-local", "reads-shared")
    assert kubectl.run("logs", "reads-local") == "kept\n"
    assert kubectl.run("logs", "reads-shared") == "seen\n"
    assert kubectl.get("pod", "reads-local")["spec"]["nodeName"] == "node-2"
    told = kubectl.run("get", "events", "--field-selector=reason=ProvisioningFailed", "-o", "json")
    assert "cannot be ReadWriteMany; use sandbox-shared" in told

    volumes = [kubectl.get("pvc", name)["spec"]["volumeName"] for name in ("local", "shared")]
    folder = sandbox.state / "cluster" / "volumes"
    assert sorted(entry.name for entry in folder.iterdir() if entry.name in volumes) == sorted(volumes)
    kubectl.run("delete", "pods,pvc", "--selector=test=volumes", "--grace-period=1", timeout=90)
    kubectl.run("wait", "--for=delete", *(f"pv/{name}" for name in volumes), "--timeout=30s")
    assert not any((folder / name).exists() for name in volumes)
