"""Services for programs that run outside any pod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nosana_sandbox.cluster.kubectl import FIELD_MANAGER, Kubectl, find_kubectl

MADE_BY: Final = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
FIRST_NODE_ADDRESS: Final = "10.88.1.1"
"""An address of the namespace in which every local cluster lives; pods can reach it."""


def expose_in_cluster(
    kubeconfig: Path,
    namespace: str,
    name: str,
    port: int,
    target_port: int,
    address: str = FIRST_NODE_ADDRESS,
) -> None:
    """Make Service `name` in `namespace` (made too) lead from `port` to `address:target_port`.

    The program listens inside the cluster's network namespace (`listen_in_namespace`) on all addresses or on
    `address`. Doing it again, also with another port, is fine. Raises `KubectlError`.
    """
    kubectl = Kubectl(find_kubectl(), kubeconfig)
    ensure_namespace(kubectl, namespace)
    kubectl.apply(service_objects(namespace, name, port, target_port, address))


def ensure_namespace(kubectl: Kubectl, name: str) -> None:
    """Create the namespace with the sandbox's label; an existing one is left as it is.

    The label means that it goes when the sandbox goes, so it must never get onto one that the user made.
    """
    if not kubectl.run("get", "namespace", name, "--ignore-not-found", "-o", "name"):
        kubectl.apply(
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(MADE_BY)}}]
        )


def service_objects(
    namespace: str, name: str, port: int, target_port: int, address: str
) -> list[Mapping[str, Any]]:
    """Return the Service without selector and the EndpointSlice that stands for its pods."""
    metadata = {"name": name, "namespace": namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "labels": dict(MADE_BY)},
            "spec": {"ports": [{"name": "main", "protocol": "TCP", "port": port, "targetPort": target_port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {**MADE_BY, "kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "main", "protocol": "TCP", "port": target_port}],
        },
    ]
