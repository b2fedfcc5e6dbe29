"""A job and its definition → Kubernetes objects, as plain data. Pure: equal input gives equal objects."""

from __future__ import annotations

from nosana_operator.workload.aliases import aliases, build_alias_slice
from nosana_operator.workload.context import Fetching, JobContext, Storage
from nosana_operator.workload.errors import ArgsError
from nosana_operator.workload.isolation import (
    CLUSTER_DNS_SERVICES,
    Isolation,
    build_namespace_policies,
    node_ranges,
    resolver_ranges,
)
from nosana_operator.workload.metadata import Body, op_name, pod_name
from nosana_operator.workload.network import (
    build_ingresses,
    build_services,
    host_name,
    op_endpoints,
    service_name,
)
from nosana_operator.workload.objects import build_objects, build_op_objects, literal_context, run_args
from nosana_operator.workload.pod import CONTAINER, GRACE_SECONDS, build_pod
from nosana_operator.workload.resources import FETCHER
from nosana_operator.workload.unsupported import GpuDemand, gpu_demand, unsupported, unsupported_logistics

__all__ = [
    "CLUSTER_DNS_SERVICES",
    "CONTAINER",
    "FETCHER",
    "GRACE_SECONDS",
    "ArgsError",
    "Body",
    "Fetching",
    "GpuDemand",
    "Isolation",
    "JobContext",
    "Storage",
    "aliases",
    "build_alias_slice",
    "build_ingresses",
    "build_namespace_policies",
    "build_objects",
    "build_op_objects",
    "build_pod",
    "build_services",
    "gpu_demand",
    "host_name",
    "literal_context",
    "node_ranges",
    "op_endpoints",
    "op_name",
    "pod_name",
    "resolver_ranges",
    "run_args",
    "service_name",
    "unsupported",
    "unsupported_logistics",
]
