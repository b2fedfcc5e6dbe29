"""The Nosana job definition as a language: reading, checking, ordering, literals, names, results. Pure.

    definition = parse(text)        # or every problem, as a DefinitionError
    order = plan(definition)        # stages; DefinitionError when the ops can never run
    decision = next_ops(order, progress)
    args = interpolate(op, context) # just before the op starts

Facts: the published schema (2.2.x) and the behaviour of Nosana's own node, with its defects left out.
"""

from __future__ import annotations

from nosana_operator.definition.errors import DefinitionError, LiteralError, Problem
from nosana_operator.definition.exposure import (
    Port,
    Service,
    create_hash,
    deployment_hash,
    deployment_service_id,
    exposed_ports,
    private_service_id,
    service_id,
    services,
)
from nosana_operator.definition.interpolate import interpolate
from nosana_operator.definition.literals import Context, OpFacts, ResultValue
from nosana_operator.definition.load import Loaded, Syntax, load
from nosana_operator.definition.model import (
    Definition,
    Execution,
    ExposedPort,
    Global,
    HealthCheck,
    HttpHealthCheck,
    HuggingFaceResource,
    OllamaResource,
    OnFailureRestart,
    Operation,
    Resource,
    ResultPattern,
    RunArgs,
    S3BucketResource,
    S3BucketsResource,
    S3Resource,
    VolumeArgs,
    VolumeMount,
    WebSocketHealthCheck,
)
from nosana_operator.definition.stages import (
    Decision,
    Halt,
    OpProgress,
    Plan,
    PlannedOp,
    Stage,
    next_ops,
    plan,
)
from nosana_operator.definition.validate import Report, check, parse, validate

__all__ = [
    "Context",
    "Decision",
    "Definition",
    "DefinitionError",
    "Execution",
    "ExposedPort",
    "Global",
    "Halt",
    "HealthCheck",
    "HttpHealthCheck",
    "HuggingFaceResource",
    "LiteralError",
    "Loaded",
    "OllamaResource",
    "OnFailureRestart",
    "OpFacts",
    "OpProgress",
    "Operation",
    "Plan",
    "PlannedOp",
    "Port",
    "Problem",
    "Report",
    "Resource",
    "ResultPattern",
    "ResultValue",
    "RunArgs",
    "S3BucketResource",
    "S3BucketsResource",
    "S3Resource",
    "Service",
    "Stage",
    "Syntax",
    "VolumeArgs",
    "VolumeMount",
    "WebSocketHealthCheck",
    "check",
    "create_hash",
    "deployment_hash",
    "deployment_service_id",
    "exposed_ports",
    "interpolate",
    "load",
    "next_ops",
    "parse",
    "plan",
    "private_service_id",
    "service_id",
    "services",
    "validate",
]
