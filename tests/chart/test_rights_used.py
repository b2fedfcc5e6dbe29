"""No rule of the chart without a use: the requests of a full run in the cluster, held against the roles.

`tests/cluster/test_install.py` records them (`make rights`): installed, jobs of every kind, upgraded, killed,
uninstalled, installed again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nosana_sandbox.cluster.audit import Asked
from support.roles import Granted, granted

ASKED = tuple(
    Asked(**one)
    for one in json.loads((Path(__file__).parents[1] / "data" / "rights" / "asked.json").read_text())
)
OF_EVERYBODY = Asked("authorization.k8s.io", "selfsubjectaccessreviews", "create", "")
"""The doctor asks what it may do; Kubernetes' own role system:basic-user lets everybody ask that."""
UNUSED: dict[tuple[str, str, str], str] = {
    ("nosana.io", "nosanajobs/finalizers", "update"): "asked where owner references are guarded (OpenShift)",
    ("nosana.io", "nosanajobs", "get"): "read again when its finalizers have changed in between",
    ("", "services", "get"): "after a crash between making a Service and noting it: is it this job's?",
    ("", "persistentvolumeclaims", "get"): "the same of a volume",
    ("networking.k8s.io", "ingresses", "get"): "the same of an Ingress",
    ("networking.k8s.io", "networkpolicies", "get"): "the same of a NetworkPolicy",
    ("events.k8s.io", "events", "patch"): "an Event that repeats is counted, after minutes",
}
"""What a full run does not need, and when it is."""


def allows(grants: Iterable[Granted], asked: Asked) -> bool:
    return any(
        (group, resource, verb) == (asked.group, asked.resource, asked.verb)
        and namespace in (None, asked.namespace)
        and name in (None, asked.name)
        for group, resource, verb, namespace, name in grants
    )


def test_a_full_run_needs_every_right_that_the_chart_gives(rendered: Any) -> None:
    grants = set(granted(rendered({})))
    assert [asked for asked in ASKED if not allows(grants, asked)] == [OF_EVERYBODY]
    useless = {
        grant[:3]
        for grant in grants
        if all(allows(grants - {grant}, asked) for asked in ASKED if asked != OF_EVERYBODY)
    }
    assert useless == set(UNUSED)
