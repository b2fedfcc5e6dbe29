"""What the chart's roles allow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Body = dict[str, Any]
Granted = tuple[str, str, str, str | None, str | None]
"""(group, resource with subresource, verb, namespace or None for all, object or None for any)."""


def granted(bodies: list[Body]) -> Iterator[Granted]:
    roles = {(b["kind"], b["metadata"].get("namespace"), b["metadata"]["name"]): b for b in bodies}
    for binding in bodies:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        namespace = binding["metadata"].get("namespace")
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        role = roles[kind, namespace if kind == "Role" else None, name]
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        for one in rule.get("resourceNames", [None]):
                            yield group, resource, verb, namespace, one
