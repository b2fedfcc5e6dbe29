"""The Nosana job definition as a language: parsing, validation, stages, literals, service ids, results. Pure.

    definition = parse(text)        # or raises DefinitionError with every problem
    order = plan(definition)        # stages; DefinitionError when the ops can never run
    decision = next_ops(order, progress)
    args = interpolate(op, context) # just before the op starts

It follows the published schema (2.2.x) and the behaviour of Nosana's own node without the node's defects
(docs/protocol/job-definition.md#the-nosana-job-definition).
"""

from __future__ import annotations

from nosana_operator.definition.arguments import interpolate
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
from nosana_operator.definition.flowstate import (
    MAX_LOG_ENTRIES,
    EndReason,
    FlowError,
    FlowState,
    FlowStatus,
    LogEntry,
    LogTail,
    OpState,
    OpStatus,
)
from nosana_operator.definition.json_schema import schema
from nosana_operator.definition.limits import LIMITS, MAX_BYTES, MAX_OPS, Limit
from nosana_operator.definition.literals import Context, OpFacts, ResultValue
from nosana_operator.definition.model import (
    Definition,
    Execution,
    ExposedPort,
    Global,
    HealthCheck,
    HttpHealthCheck,
    HuggingFaceResource,
    LogType,
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
from nosana_operator.definition.reading import Loaded, Syntax, load
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
from nosana_operator.definition.verdict import Report, check, parse, validate

__all__ = [
    "LIMITS",
    "MAX_BYTES",
    "MAX_LOG_ENTRIES",
    "MAX_OPS",
    "Context",
    "Decision",
    "Definition",
    "DefinitionError",
    "EndReason",
    "Execution",
    "ExposedPort",
    "FlowError",
    "FlowState",
    "FlowStatus",
    "Global",
    "Halt",
    "HealthCheck",
    "HttpHealthCheck",
    "HuggingFaceResource",
    "Limit",
    "LiteralError",
    "Loaded",
    "LogEntry",
    "LogTail",
    "LogType",
    "OllamaResource",
    "OnFailureRestart",
    "OpFacts",
    "OpProgress",
    "OpState",
    "OpStatus",
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
    "schema",
    "service_id",
    "services",
    "validate",
]
