"""Definition + job → Kubernetes objects, as plain data. Pure: the same job always gives the same objects."""

from __future__ import annotations

from nosana_operator.workload.aliases import aliases, build_names
from nosana_operator.workload.context import Fetching, JobContext, Storage
from nosana_operator.workload.errors import ArgsError
from nosana_operator.workload.isolation import Isolation, namespace_policies, node_ranges
from nosana_operator.workload.metadata import Body, op_name, pod_name
from nosana_operator.workload.network import (
    build_ingresses,
    build_services,
    host_name,
    op_endpoints,
    service_name,
)
from nosana_operator.workload.objects import literal_context, objects, op_objects, run_args
from nosana_operator.workload.pod import CONTAINER, GRACE_SECONDS, build_pod
from nosana_operator.workload.resources import FETCHER
from nosana_operator.workload.unsupported import GpuDemand, gpu_demand, unsupported, unsupported_logistics

__all__ = [
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
    "build_ingresses",
    "build_names",
    "build_pod",
    "build_services",
    "gpu_demand",
    "host_name",
    "literal_context",
    "namespace_policies",
    "node_ranges",
    "objects",
    "op_endpoints",
    "op_name",
    "op_objects",
    "pod_name",
    "run_args",
    "service_name",
    "unsupported",
    "unsupported_logistics",
]
