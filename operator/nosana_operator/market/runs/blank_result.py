"""What is published in place of a confidential job's result. Pure."""

from __future__ import annotations

import json
from typing import Any

from nosana_operator.api import Delivery
from nosana_operator.definition.flowstate import FlowError, FlowState, FlowStatus

_LOGISTICS_ERROR = "logistics-error"
_PUBLIC_ERRORS = frozenset({_LOGISTICS_ERROR, "result-lost"})
"""Kinds of errors whose words are ours and reveal nothing of the definition."""


def blank_result(result: bytes, delivery: Delivery | None) -> bytes:
    """The public bytes, without anything confidential: the same bytes for the same result and delivery."""
    document: dict[str, Any] = json.loads(result)
    errors = tuple(_public(error) for error in document.get("errors") or ())
    if delivery is not None and delivery.result_problem is not None:
        message = f"the result could not be delivered: {delivery.result_problem}"
        errors = (*errors, FlowError(_LOGISTICS_ERROR, message))
    state = FlowState(
        FlowStatus(document["status"]), document["startTime"], document["endTime"], errors=errors
    )
    return state.to_bytes()


def _public(error: dict[str, Any]) -> FlowError:
    event = str(error.get("event"))
    if event in _PUBLIC_ERRORS:
        return FlowError(event, str(error.get("message")), error.get("code"))
    # It may quote what is confidential.
    return FlowError(event, "told to the poster alone")
