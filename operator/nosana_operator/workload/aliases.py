"""DNS names that an op chooses (`aliases`), by which the job's other ops reach it (docs/protocol/node.md#aliases).

Nosana's node publishes aliases on a network that all jobs share. Here they are names below a headless Service of
the job: its EndpointSlices map each name to a pod, and only the pods of the job search that domain.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Final

from nosana_operator.definition import Problem, RunArgs
from nosana_operator.json_paths import json_path, quoted
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, make_job_metadata, make_op_metadata, op_name

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def aliases(args: RunArgs) -> tuple[str, ...]:
    """The aliases of an op, in lower case because DNS ignores case; a string is a comma-separated list."""
    given = args.aliases or []
    words = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(word.strip().lower() for word in words if word.strip()))


def alias_problems(op_index: int, args: RunArgs) -> Iterator[Problem]:
    """The aliases that cannot be DNS names in the cluster. Text that still contains a literal is skipped."""
    for alias in aliases(args):
        if "%%" not in alias and not _LABEL.fullmatch(alias):
            yield Problem(
                json_path(("ops", op_index, "args", "aliases")),
                f"{quoted(alias)} cannot be a host name in the cluster",
                "use at most 63 letters, digits and dashes, without dots",
            )


def alias_service_name(ctx: JobContext) -> str:
    """The name of the headless Service below which the job's aliases are."""
    return f"{ctx.name}-names"


def build_alias_service(ctx: JobContext) -> Body:
    """The headless Service. It has no selector: the job controller writes the EndpointSlices."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": make_job_metadata(ctx, alias_service_name(ctx)),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True},
    }


def build_alias_slice(ctx: JobContext, op_index: int, args: RunArgs, address: str | None) -> Body:
    """The EndpointSlice of one op's aliases; `address` is its pod's, None once the pod has ended."""
    metadata = make_op_metadata(ctx, op_name(ctx, op_index), op_index)
    metadata["labels"] |= {
        "kubernetes.io/service-name": alias_service_name(ctx),
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


def make_dns_config(ctx: JobContext) -> dict[str, Any]:
    """The `dnsConfig` of a pod that searches the job's aliases; empty when no op of the job has one."""
    if not ctx.has_aliases:
        return {}
    domain = f"{alias_service_name(ctx)}.{ctx.namespace}.svc.{ctx.cluster_domain}"
    return {"dnsConfig": {"searches": [domain]}}
