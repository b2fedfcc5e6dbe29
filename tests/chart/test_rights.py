"""The chart's roles and the list of rights that the doctor asks for are one."""

from __future__ import annotations

from typing import Any

import pytest

from nosana_operator.doctor.rights import needed_rights
from support.roles import Granted, granted

Body = dict[str, Any]

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
