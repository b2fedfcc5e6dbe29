"""Exposed ports → Services, Ingresses and endpoints; host names by which a job's ops reach each other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nosana_operator.api import Endpoint
from nosana_operator.definition import (
    Port,
    RunArgs,
    deployment_hash,
    deployment_service_id,
    private_service_id,
    service_id,
)
from nosana_operator.workload.context import JobContext
from nosana_operator.workload.metadata import Body, make_op_metadata, op_name, op_selector


def host_name(service: str, domain: str) -> str:
    """The public host of a service id, in lower case because an Ingress requires it (DNS ignores case)."""
    return f"{service.lower()}.{domain}"


def service_name(service: str) -> str:
    """The name of a service id's Service. An id may start with a digit, the name of a Service may not."""
    return f"ep-{service.lower()}"


def endpoint_id(ctx: JobContext, op_index: int, port: Port) -> str:
    """The service id of an exposed port: the one that clients compute, or an unguessable one for a private port.

    A private id is derived from the job's uid, which is random and never leaves the cluster. So a private port
    keeps its id after a restart.
    """
    args = ctx.op(op_index).args
    if isinstance(args, RunArgs) and args.private:
        return private_service_id(hashlib.sha256(f"{ctx.uid}:{op_index}:{port.number}".encode()).digest())
    return service_id(op_index, port.number, ctx.job_address)


def deployment_host(ctx: JobContext, op_index: int) -> str | None:
    """The public host that an op shares with its replicas; None without a deployment or a domain."""
    deployment = ctx.definition.deployment_id
    if not deployment or not ctx.domain:
        return None
    identity = deployment_service_id(ctx.op(op_index).id, deployment_hash(deployment, ctx.project))
    return host_name(identity, ctx.domain)


def op_endpoints(ctx: JobContext, op_index: int, ports: Sequence[Port]) -> list[Endpoint]:
    """The endpoints of an op's exposed ports, without their state.

    The URL is `http://`: this operator issues no certificates, and an Ingress controller that has some redirects.
    """
    endpoints = []
    for port in ports:
        identity = endpoint_id(ctx, op_index, port)
        endpoints.append(
            Endpoint(
                op=ctx.op(op_index).id,
                port=port.number,
                id=identity,
                url=f"http://{host_name(identity, ctx.domain)}" if ctx.domain else None,
                service=f"{service_name(identity)}.{ctx.namespace}.svc:{port.number}",
            )
        )
    return endpoints


def build_services(ctx: JobContext, op_index: int, ports: Sequence[Port]) -> list[Body]:
    """A Service for each exposed port, named after its id, and one for the op's host name if an op uses it.

    They are created before the op's pod, so that the address exists before the first client.
    """
    selector = op_selector(ctx, op_index)
    bodies: list[Body] = []
    if ctx.op(op_index).id in ctx.definition.ops_with_host_literals:
        # The Service is headless, so that every port of the op answers, as on Nosana's container network.
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
        bodies.append(_service(ctx, op_name(ctx, op_index), op_index, spec))
    for port in ports:
        name = service_name(endpoint_id(ctx, op_index, port))
        listed = [{"port": port.number, "targetPort": port.number, "protocol": "TCP"}]
        bodies.append(
            _service(ctx, name, op_index, {"type": "ClusterIP", "selector": selector, "ports": listed})
        )
    return bodies


def build_ingresses(ctx: JobContext, op_index: int, ports: Sequence[Port]) -> list[Body]:
    """One Ingress with a rule for each exposed port of the op; none without a domain or ports.

    The host of a deployment leads to the op's first port, because one id stands for all its ports.
    """
    if not ctx.domain or not ports:
        return []
    hosts = [(host_name(endpoint_id(ctx, op_index, port), ctx.domain), port) for port in ports]
    if (shared := deployment_host(ctx, op_index)) is not None:
        hosts.append((shared, ports[0]))
    rules = []
    for host, port in hosts:
        name = service_name(endpoint_id(ctx, op_index, port))
        backend = {"service": {"name": name, "port": {"number": port.number}}}
        rules.append(
            {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        )
    class_name = ctx.ingress_class_name
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": make_op_metadata(ctx, op_name(ctx, op_index), op_index),
            "spec": {**({"ingressClassName": class_name} if class_name else {}), "rules": rules},
        }
    ]


def _service(ctx: JobContext, name: str, op_index: int, spec: Body) -> Body:
    metadata = make_op_metadata(ctx, name, op_index)
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
