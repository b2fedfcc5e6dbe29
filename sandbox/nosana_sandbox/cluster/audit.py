"""The requests of a service account to the API server, read from the cluster's audit log."""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_NAMED: Final = frozenset({"leases", "customresourcedefinitions"})
"""RBAC rules grant rights on these by name; other names are those of user objects and are left out."""


@dataclass(frozen=True, order=True, slots=True)
class Asked:
    """One kind of request, as an authorizer sees it; `resource` with its subresource, `namespace` "" for all."""

    group: str
    resource: str
    verb: str
    namespace: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """All requests, and those that were refused."""

    asked: Collection[Asked]
    refused: Collection[Asked]


def audited(log: Path, user: str) -> Audited:
    """The requests of `user` (`system:serviceaccount:NAMESPACE:NAME`) since the cluster was started."""
    asked: set[Asked] = set()
    refused: set[Asked] = set()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"] != user or "objectRef" not in event:
            continue
        made = set(_asked(event))
        asked |= made
        if event.get("responseStatus", {}).get("code") == http.client.FORBIDDEN:
            refused |= made
    return Audited(asked, refused)


def _asked(event: Mapping[str, Any]) -> Iterator[Asked]:
    target = event["objectRef"]
    resource = target["resource"]
    if subresource := target.get("subresource"):
        resource += f"/{subresource}"
    name = target.get("name", "") if target["resource"] in _NAMED else ""
    verbs = [event["verb"]]
    # An apply that creates an object is a patch that also needs the right to create.
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == http.client.CREATED:
        verbs.append("create")
    for verb in verbs:
        # An authorizer sees no name in a create request.
        asked_name = "" if verb == "create" else name
        yield Asked(target.get("apiGroup", ""), resource, verb, target.get("namespace", ""), asked_name)
