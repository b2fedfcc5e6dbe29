"""The chart's roles and the list of rights that the doctor asks for are one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nosana_operator.doctor.rights import needed_rights

Body = dict[str, Any]
Granted = tuple[str, str, str, str | None, str | None]
"""(group, resource with subresource, verb, namespace or None for all, object or None for any)."""

BEYOND: dict[Granted, str] = {
    ("nosana.io", "nosanajobs/finalizers", "update", None, None): "OpenShift guards owner references",
    ("", "namespaces", "get", None, None): "the doctor's own questions",
    ("networking.k8s.io", "ingressclasses", "list", None, None): "the doctor's own questions",
    **{
        (
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "get",
            None,
            f"{kind}.nosana.io",
        ): "the doctor's"
        for kind in ("nosanajobs", "nosanamarkets")
    },
}
"""What the chart gives although the operator's work does not need it, and why."""


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


@pytest.mark.parametrize("namespaces", [(), ("nosana-system", "nosana-jobs")])
@pytest.mark.parametrize("election", [{}, {"namespace": "leases", "name": "host"}, {"enabled": False}])
def test_the_chart_gives_what_the_doctor_asks_for(
    rendered: Any, namespaces: tuple[str, ...], election: dict[str, Any]
) -> None:
    values = {"watchNamespaces": list(namespaces), "settings": {"election": election}}
    given = list(granted(rendered(values)))
    lease = (election.get("namespace", "nosana-system"), election.get("name", "nosana-operator"))
    needed = {
        (
            r.group,
            f"{r.resource}/{r.subresource}" if r.subresource else r.resource,
            r.verb,
            r.namespace,
            r.object_name,
        )
        for r in needed_rights(namespaces, lease if election.get("enabled", True) else None)
    }
    assert len(given) == len(set(given))
    beyond = {(*right[:3], None, right[4]) for right in set(given) - needed}
    assert beyond == set(BEYOND)
    assert needed - set(given) == set()
