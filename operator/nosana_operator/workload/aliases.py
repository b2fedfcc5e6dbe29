"""Names of an op's own choice (`aliases`), by which the job's other ops call it (docs/protocol/node.md#aliases).

Nosana's node gives them on a network that all jobs share. Here they are names below a headless Service of the
job: its EndpointSlices say which pod has which name, and the pods of the job, and no others, look there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final

from nosana_operator.definition import Problem, RunArgs
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, child, job_child, op_name

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def aliases(args: RunArgs) -> tuple[str, ...]:
    """The aliases of an op, in lower case as DNS does not care; a string is a comma separated list."""
    given = args.aliases or []
    words = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(word.strip().lower() for word in words if word.strip()))


def alias_problems(op_index: int, args: RunArgs) -> Iterator[Problem]:
    """Aliases that cannot be names in the cluster's DNS. Text that still holds a literal is passed over."""
    for alias in aliases(args):
        if "%%" not in alias and not _LABEL.fullmatch(alias):
            yield Problem(
                json_path(("ops", op_index, "args", "aliases")),
                f"{quoted(alias)} cannot be a host name in the cluster",
                "use at most 63 letters, digits and dashes, without dots",
            )


def names_service(ctx: JobContext) -> str:
    """The headless Service below which the job's aliases are."""
    return f"{ctx.name}-names"


def build_names_service(ctx: JobContext) -> Body:
    """That Service. It selects nothing: the job controller says which pod has which name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": job_child(ctx, names_service(ctx)),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True},
    }


def build_names(ctx: JobContext, op_index: int, args: RunArgs, address: str | None) -> Body:
    """The names of one op; `address` is its pod's, None once the pod has ended."""
    metadata = child(ctx, op_name(ctx, op_index), op_index)
    metadata["labels"] |= {
        "kubernetes.io/service-name": names_service(ctx),
        "endpointslice.kubernetes.io/managed-by": "nosana-operator",
    }
    is_v6 = address is not None and ipaddress.ip_address(address).version == 6
    endpoints = [{"addresses": [address], "hostname": alias} for alias in aliases(args)] if address else []
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv6" if is_v6 else "IPv4",
        "endpoints": endpoints,
        "ports": [],
    }


def name_search(ctx: JobContext) -> dict[str, Any]:
    """Of a pod's spec: where it looks for bare names; nothing when no op of the job has an alias."""
    if not ctx.has_aliases:
        return {}
    domain = f"{names_service(ctx)}.{ctx.namespace}.svc.{ctx.cluster_domain}"
    return {"dnsConfig": {"searches": [domain]}}
