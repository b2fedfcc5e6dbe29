"""Health checks of an exposed port: which check runs when, and what its answer means for the op. Pure.

From the container's start all checks run every 5 s until they pass in one round; after that the `continuous`
ones run every 30 s (docs/protocol/node.md#health-checks). Rounds of a port do not overlap. When an op cannot be
reached, its health is Unknown, and Unknown has no consequences for the op.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nosana_operator.api import Endpoint, OpStatus, micro_timestamp
from nosana_operator.definition import HealthCheck, HttpHealthCheck, Port, WebSocketHealthCheck
from nosana_operator.jobs.decision.ops import OpReason, Ops, stopping
from nosana_operator.jobs.decision.view import EndpointState, JobView, Loaded, OpHealth, PortHealth

START_EVERY: Final = 5.0
CONTINUOUS_EVERY: Final = 30.0
START_SECONDS: Final = 60.0
"""The timeout of one check before the port is healthy."""
CONTINUOUS_SECONDS: Final = 20.0
"""The timeout of one check later."""
_WITH_BODY: Final = frozenset({"POST", "PUT"})
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Round:
    """Checks that run one after the other until one fails; the next round begins `every` seconds later."""

    checks: tuple[HealthCheck, ...]
    seconds: float
    """The timeout of each check."""
    every: float


@dataclass(frozen=True, slots=True)
class Answer:
    """How a round ended; `passed` is None when that is unknown. `check` is the one that failed."""

    passed: bool | None
    problem: str | None = None
    check: HealthCheck | None = None


def next_round(health: PortHealth, checks: tuple[HealthCheck, ...]) -> Round | None:
    """The next round; None: there is none, because no check is continuous."""
    if not health.passed:
        return Round(checks, START_SECONDS, START_EVERY)
    continuous = tuple(check for check in checks if check.continuous)
    return Round(continuous, CONTINUOUS_SECONDS, CONTINUOUS_EVERY) if continuous else None


def after_round(health: PortHealth, answer: Answer) -> PortHealth:
    """The health of the port after a round."""
    if answer.passed is None:
        return PortHealth(health.passed, "Unknown", answer.problem)
    if answer.passed:
        return PortHealth(True, "Online")
    check, restarts = answer.check, 0.0
    if health.passed and check is not None and check.continuous and check.restart_on_failure:
        restarts = math.inf if check.max_restarts is None else float(check.max_restarts)
    return PortHealth(health.passed, "Offline", answer.problem, restarts)


def judge_http(check: HttpHealthCheck, port: int, status: int) -> Answer:
    """Judge an HTTP answer: its status has to equal the expected one."""
    if status == check.expected_status:
        return Answer(True)
    # A query may hold a secret.
    path = check.path.partition("?")[0]
    problem = f"{check.method} {path} on port {port} returned {status}; expected {check.expected_status:g}"
    return Answer(False, problem, check)


def listens(check: WebSocketHealthCheck) -> bool:
    """Whether the check waits for a message; Nosana's node compares 101 with the status of the handshake."""
    return check.expected_response.strip() not in ("", "101")


def judge_websocket(check: WebSocketHealthCheck, port: int, message: str) -> Answer:
    """Judge the first message of a WebSocket whose handshake succeeded."""
    if not listens(check) or message.strip() == check.expected_response.strip():
        return Answer(True)
    return Answer(False, f"the first message of port {port} differs from expected_response", check)


def request_body(check: HttpHealthCheck) -> tuple[Mapping[str, str], bytes | None]:
    """The headers and body of a request; only POST and PUT have a body. A body that is not text is sent as JSON."""
    headers = dict(check.headers or {})
    if check.method not in _WITH_BODY or check.body is None:
        return headers, None
    text = check.body if isinstance(check.body, str) else json.dumps(check.body)
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = _FORM if isinstance(check.body, str) else "application/json"
    return headers, text.encode("utf-8", "replace")


# -- consequences for ops -----------------------------------------------------------------------------------


def checked_ops(view: JobView) -> Mapping[int, tuple[Port, ...]]:
    """The ports that have checks, by op index."""
    return view.definition.checks if isinstance(view.definition, Loaded) else {}


def with_health(view: JobView, ops: Ops) -> Ops:
    """The ops updated by their health: marked ready for the first time, or told to stop for a restart."""
    checked = checked_ops(view)
    return tuple(_with_health(view, op) if op.index in checked else op for op in ops)


def _with_health(view: JobView, op: OpStatus) -> OpStatus:
    health = view.health.get(op.index)
    if op.state != "Running" or health is None:
        return op
    if health.ready and op.ready_at is None:
        op = op.model_copy(update={"ready_at": micro_timestamp(view.now)})
    if health.restarts > (op.health_restarts or 0):
        return stopping(op, OpReason.UNHEALTHY, f"its health check failed: {health.problem}")
    return op


def unhealthy(view: JobView, ops: Ops) -> tuple[OpStatus, str] | None:
    """A running op that is not ready yet or no longer healthy, and why. Unknown counts only before it is ready."""
    checked = checked_ops(view)
    for op in ops:
        if op.state != "Running" or op.index not in checked:
            continue
        health = view.health.get(op.index, OpHealth())
        if op.ready_at is None:
            return op, health.problem or "its health checks have not passed yet"
        if any(port.state == "Offline" for port in health.ports.values()):
            return op, health.problem or "its health check failed"
    return None


def endpoint_state(view: JobView, op_index: int, endpoint: Endpoint) -> EndpointState:
    """The state of a running op's endpoint; the written state stays until there is an answer."""
    if endpoint.port not in {port.number for port in checked_ops(view).get(op_index, ())}:
        return "Online"
    health = view.health.get(op_index, OpHealth()).ports.get(endpoint.port)
    if health is not None and health.state is not None:
        return health.state
    written = next((each.state for each in view.status.endpoints if each.id == endpoint.id), "Unknown")
    # An endpoint is Offline until its container runs, so a written Offline says nothing about its health.
    return "Online" if written == "Online" else "Unknown"
