"""Confidential jobs: IPFS has only a stub, and the poster gives the definition to the run's key alone. Pure.

The market host has that key and asks the poster. It and the job controller communicate through the NosanaJob's
status: `logistics` says where to ask, `delivery` how that went; a Secret holds the definition itself
(docs/protocol/node.md#confidential-jobs).
"""

from __future__ import annotations

from typing import Final

from nosana_operator.api import (
    DEFINITION_KEY,
    DefinitionFrom,
    Delivery,
    JobReason,
    KeyRef,
    Logistics,
    Run,
    definition_secret_name,
)
from nosana_operator.definition import Definition, DefinitionError, Problem
from nosana_operator.definition.flowstate import FlowStatus
from nosana_operator.jobs.decision.view import Loading, Unusable
from nosana_operator.ports import Body
from nosana_operator.workload import unsupported_logistics

_LITERAL: Final = "%%global.job%%"
"""The only literal that is replaced in endpoints."""


def stub_of(definition: Definition, run: Run) -> Logistics | Unusable:
    """The endpoints that the stub of a market's job names for the definition and the result."""
    problems = unsupported_logistics(definition)
    if problems or definition.logistics is None:
        message = str(DefinitionError(problems))[:4096]
        return Unusable(JobReason.DEFINITION_INVALID, message, tuple(problems), FlowStatus.LOGISTICS_ERROR)
    send, receive = (
        str(way.args.endpoint).replace(_LITERAL, run.job)
        for way in (definition.logistics.send, definition.logistics.receive)
    )
    return Logistics(send=send, receive=receive)


def stub_in(body: Body) -> Logistics | None:
    """The stub as the status stores it."""
    kept = (body.get("status") or {}).get("logistics")
    return None if kept is None else Logistics.model_validate(kept)


def progress(body: Body, stub: Logistics) -> DefinitionFrom | Loading | Unusable:
    """How far the market host is: the Secret that holds the definition, or why there is none yet."""
    delivery = Delivery.model_validate((body.get("status") or {}).get("delivery") or {})
    if delivery.definition == "Stored":
        name = definition_secret_name(body["metadata"]["name"])
        return DefinitionFrom(secret=KeyRef(name=name, key=DEFINITION_KEY))
    if delivery.definition == "Refused":
        message = f"the poster did not deliver the definition: {delivery.definition_problem}"
        problem = Problem("logistics.send.args.endpoint", str(delivery.definition_problem))
        return Unusable(JobReason.DEFINITION_UNREACHABLE, message, (problem,), FlowStatus.LOGISTICS_ERROR)
    problem_so_far = delivery.definition_problem or "waiting for the definition from the poster's endpoint"
    return Loading(problem_so_far, JobReason.WAITING_FOR_POSTER, stub)
