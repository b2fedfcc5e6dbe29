"""A whole job: the values of its literals, and all its Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from nosana_operator.definition import RunArgs, VolumeArgs, exposed_ports, interpolate
from nosana_operator.definition.literals import Context, OpFacts
from nosana_operator.workload.aliases import build_alias_service
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.isolation import build_job_policies
from nosana_operator.workload.metadata import Body, op_name
from nosana_operator.workload.network import (
    build_ingresses,
    build_services,
    deployment_host,
    endpoint_id,
    host_name,
)
from nosana_operator.workload.pod import build_pod
from nosana_operator.workload.pull_secret import build_pull_secret
from nosana_operator.workload.resources import build_fetch_secret
from nosana_operator.workload.storage import build_claim


def literal_context(ctx: JobContext) -> Context:
    """The values of this job's literals, as far as they are known now."""
    variables = ctx.definition.global_.variables if ctx.definition.global_ else None
    return Context(
        job=ctx.job_address,
        host=ctx.host,
        project=ctx.project,
        frps_address=ctx.domain or "",
        variables=variables or {},
        ops={
            op.id: OpFacts(
                host=op.args.name if isinstance(op.args, VolumeArgs) else op_name(ctx, index),
                endpoints=_PublicHosts(ctx, index),
                deployment_endpoint=_deployment_endpoint(ctx, index),
                container_ip=ctx.addresses.get(op.id),
                results=ctx.results.get(op.id, {}),
            )
            for index, op in enumerate(ctx.definition.ops)
        },
    )


def run_args(ctx: JobContext, op_index: int) -> RunArgs:
    """The arguments of a `container/run` op with its literals replaced.

    The arguments of a job never change, except for the results and addresses of its ops.
    Raises LiteralError when a literal has no value, TypeError for an op that runs no container.
    """
    args = interpolate(ctx.op(op_index), literal_context(ctx), ctx.definition.global_)
    if not isinstance(args, RunArgs):
        raise TypeError(f"ops[{op_index}] runs no container")
    return args


def build_op_objects(
    ctx: JobContext, op_index: int, *, attempt: int = 0, avoid_nodes: Sequence[str] = ()
) -> list[Body]:
    """The objects of one op in the order of their creation: Services, Ingress, Secrets, pod; or a claim.

    Raises LiteralError or ArgsError (both DefinitionError) when the op can never start.
    """
    if isinstance(ctx.op(op_index).args, VolumeArgs):
        return [build_claim(ctx, op_index)]
    args = run_args(ctx, op_index)
    ports = exposed_ports(args)
    return [
        *build_job_policies(ctx),
        *([build_alias_service(ctx)] if args.aliases else []),
        *build_services(ctx, op_index, ports),
        *build_ingresses(ctx, op_index, ports),
        *build_pull_secret(ctx, op_index, args),
        *build_fetch_secret(ctx, op_index, args),
        build_pod(ctx, op_index, args, attempt=attempt, avoid_nodes=avoid_nodes),
    ]


def build_objects(ctx: JobContext) -> list[Body]:
    """All objects of a job, op by op in the definition's order, each once. Raises like `build_op_objects`."""
    bodies: dict[tuple[str, str], Body] = {}
    for index in range(len(ctx.definition.ops)):
        for body in build_op_objects(ctx, index):
            bodies.setdefault((body["kind"], body["metadata"]["name"]), body)
    return list(bodies.values())


def _deployment_endpoint(ctx: JobContext, op_index: int) -> str | None:
    args = ctx.op(op_index).args
    return deployment_host(ctx, op_index) if isinstance(args, RunArgs) and args.expose else None


class _PublicHosts(Mapping[str, str]):
    """Port as text → public host, for ports that are written as numbers; empty without a domain.

    Computed only when a literal reads it: a job may have hundreds of ports.
    """

    def __init__(self, ctx: JobContext, op_index: int) -> None:
        self._ctx = ctx
        self._op_index = op_index

    @cached_property
    def _hosts(self) -> dict[str, str]:
        ctx, args = self._ctx, self._ctx.op(self._op_index).args
        if not ctx.domain or not isinstance(args, RunArgs):
            return {}
        return {
            str(port.number): host_name(endpoint_id(ctx, self._op_index, port), ctx.domain)
            for port in exposed_ports(args)
        }

    def __getitem__(self, port: str) -> str:
        return self._hosts[port]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)
