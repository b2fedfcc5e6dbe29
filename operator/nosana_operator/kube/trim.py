"""Trims cached bodies: most bytes of a large cluster's pods and nodes are never read."""

from __future__ import annotations

from nosana_operator.ports import Body

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def without_bookkeeping(body: Body) -> Body:
    """The body without managedFields and kubectl's copy of the whole object."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != _LAST_APPLIED}
    return {**body, "metadata": metadata}


def node(body: Body) -> Body:
    """A node without the list of its images (often most of its bytes)."""
    slim = without_bookkeeping(body)
    status = slim.get("status")
    if status and "images" in status:
        slim["status"] = {name: value for name, value in status.items() if name != "images"}
    return slim


def pod_footprint(body: Body) -> Body:
    """The footprint of a foreign pod: its node, phase and resources.

    Keeps metadata (less bookkeeping and annotations), `spec.nodeName`, `overhead`, `resources`, each
    container's name, restartPolicy and resources, and `status.phase`.
    """
    slim = without_bookkeeping(body)
    slim["metadata"].pop("annotations", None)
    spec = body.get("spec") or {}
    kept: Body = {name: spec[name] for name in ("nodeName", "overhead", "resources") if name in spec}
    for group in ("containers", "initContainers"):
        if group in spec:
            kept[group] = [
                {
                    name: container[name]
                    for name in ("name", "restartPolicy", "resources")
                    if name in container
                }
                for container in spec[group]
            ]
    slim["spec"] = kept
    status = body.get("status") or {}
    slim["status"] = {"phase": status["phase"]} if "phase" in status else {}
    return slim
