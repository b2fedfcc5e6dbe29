"""Confidential jobs: what is on IPFS is a stub, and the poster gives the definition to the run's key alone.

The market host, which has the key, asks him; it and the job controller talk through the NosanaJob's status:
`logistics` says where to ask, `delivery` what came of it, and the definition itself is in a Secret
(docs/protocol/node.md#confidential-jobs). Pure.
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
"""The one literal that endpoints know."""


def stub_of(definition: Definition, run: Run) -> Logistics | Unusable:
    """Where the stub of a market's job says that its definition comes from and its result goes."""
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
    """The stub as the status has kept it."""
    kept = (body.get("status") or {}).get("logistics")
    return None if kept is None else Logistics.model_validate(kept)


def progress(body: Body, stub: Logistics) -> DefinitionFrom | Loading | Unusable:
    """What the market host has got so far: the Secret that holds the definition, or why there is none."""
    delivery = Delivery.model_validate((body.get("status") or {}).get("delivery") or {})
    if delivery.definition == "Stored":
        name = definition_secret_name(body["metadata"]["name"])
        return DefinitionFrom(secret=KeyRef(name=name, key=DEFINITION_KEY))
    if delivery.definition == "Refused":
        message = f"the poster's definition cannot be had: {delivery.definition_problem}"
        problem = Problem("logistics.send.args.endpoint", str(delivery.definition_problem))
        return Unusable(JobReason.DEFINITION_UNREACHABLE, message, (problem,), FlowStatus.LOGISTICS_ERROR)
    asked = delivery.definition_problem or "the poster's endpoint is being asked for the definition"
    return Loading(asked, JobReason.WAITING_FOR_POSTER, stub)
