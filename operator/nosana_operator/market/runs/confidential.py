"""What passes between a run's key and its poster: the definition of a confidential job, and its result.

The job controller says in `status.logistics` where; every request is signed with the run's key, which proves
to the poster who asks (docs/protocol/node.md#confidential-jobs). A poster who does not answer is asked again;
after four tries, ten seconds apart, or 40 s the result is published without him: blank, with the reason.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

from nosana_operator.api import (
    JOB_KIND,
    MANAGER_MARKET,
    Delivery,
    JobReason,
    Logistics,
    NosanaJobStatus,
    NosanaMarketSpec,
    definition_secret,
    parse_part,
)
from nosana_operator.definition.flowstate import FlowError, FlowState, FlowStatus
from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.market.ports import Posters
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.result import ended_at

log = logging.getLogger(__name__)

BETWEEN_TRIES = timedelta(seconds=10)
RESULT_TRIES = 4
DELIVERY = timedelta(seconds=40)
"""After the job's end, for all tries together: the run is settled after that, and beyond its time-out nobody pays."""
_TURN = 1.0
"""Seconds until it is looked again whether it is this run's turn."""
MAX_DEFINITION = 900 * 1024
"""Bytes of a definition: a Secret takes 1 MiB."""
_LOGISTICS_ERROR = "logistics-error"
_PUBLIC_ERRORS = frozenset({_LOGISTICS_ERROR, "result-lost"})
"""Kinds of errors whose words are ours and tell nothing of the definition."""


def logistics_of(ctx: RunContext) -> Logistics | None:
    """Where the job's definition comes from and its result goes; None: it is no confidential job.

    Raises ApiError where that cannot be read: then nothing may be published.
    """
    return parse_part(NosanaJobStatus, JOB_KIND, "status", ctx.body.get("status")).logistics


async def ask_for_definition(ctx: RunContext, market: NosanaMarketSpec, posters: Posters) -> float | None:
    """Get the definition from the poster into its Secret; seconds until the next try, None: nothing to do.

    The job controller gives up, not we: it knows since when the job waits.
    """
    logistics, delivery = logistics_of(ctx), ctx.record.delivery or Delivery()
    if logistics is None or delivery.definition != "Waiting":
        return None
    wait = _wait(ctx)
    if wait > 0:
        return wait
    said: Delivery
    try:
        wallet = await ctx.wallet(market)
        if wallet is None:
            raise NotFound(_no_key(ctx))
        authorization = wallet.authorization(ctx.run.job, ctx.now)
        async with ctx.turns.posters:
            data = await posters.get(logistics.send, authorization=authorization)
        if len(data) > MAX_DEFINITION:
            raise Refused(f"it has {len(data)} bytes, at most {MAX_DEFINITION} can be kept; make it smaller")
    except (NotFound, Unavailable) as exc:
        said = delivery.model_copy(update={"definition_problem": _words(exc)})
    except Refused as exc:
        said = delivery.model_copy(update={"definition": "Refused", "definition_problem": _words(exc)})
    else:
        await ctx.edges.kube.apply(definition_secret(ctx.body, data), manager=MANAGER_MARKET)
        ctx.memory.asked_at = None
        said = delivery.model_copy(update={"definition": "Stored", "definition_problem": None})
        ctx.event("Normal", "DefinitionReceived", "the poster gave the definition")
    ctx.record = replace(ctx.record, delivery=said)
    await ctx.write()
    return BETWEEN_TRIES.total_seconds() if said.definition == "Waiting" else None


async def deliver_result(ctx: RunContext, market: NosanaMarketSpec, posters: Posters, result: bytes) -> bool:
    """Give the poster the result; True once that is decided, either way, and stands in the status.

    What is published depends on it, so it is decided once. It is tried at least once, also when this process
    begins after `DELIVERY`.
    """
    logistics, delivery = logistics_of(ctx), ctx.record.delivery or Delivery()
    if logistics is None or delivery.result in ("Delivered", "Undelivered"):
        return True
    wallet = await ctx.wallet(market)
    if wallet is None:
        ctx.complain(JobReason.WALLET_MISSING, _no_key(ctx))
        await ctx.write()
        return False
    if _wait(ctx) > 0:
        return False
    memory, again = ctx.memory, delivery.result == "Posting"
    if not again:
        # Should the process die in between, the next one knows that the poster may have it.
        ctx.record = replace(ctx.record, delivery=delivery.model_copy(update={"result": "Posting"}))
        await ctx.write()
        delivery = ctx.record.delivery or delivery
    deadline = ended_at(ctx.body) + DELIVERY
    least = timedelta(0) if memory.posts else BETWEEN_TRIES
    memory.posts += 1
    problem: str | None = None
    final = False
    try:
        authorization = wallet.authorization(ctx.run.job, ctx.now)
        async with asyncio.timeout(max(deadline - ctx.now, least).total_seconds()), ctx.turns.posters:
            await posters.post(logistics.receive, result, authorization=authorization)
    except TimeoutError:
        problem = f"the endpoint has not taken it within {DELIVERY.seconds} s of the job's end."
    except (NotFound, Unavailable) as exc:
        problem = _words(exc)
        if again and isinstance(exc, NotFound):
            problem += " An earlier try may have delivered it."
    except Refused as exc:
        problem, final = _words(exc), True
    next_try = max(ctx.now + BETWEEN_TRIES, ctx.edges.clock.now())
    if problem is not None and not final and memory.posts < RESULT_TRIES and next_try < deadline:
        log.info("result not delivered yet: %s", problem, extra=ctx.fields())
        return False
    said = "Delivered" if problem is None else "Undelivered"
    ctx.record = replace(
        ctx.record, delivery=delivery.model_copy(update={"result": said, "result_problem": problem})
    )
    if problem is None:
        ctx.event("Normal", "ResultDelivered", "the poster has the result; a blank one is published")
    else:
        ctx.event("Warning", "ResultUndelivered", f"a blank result is published: {problem}")
    await ctx.write()
    return True


def blank_result(result: bytes, delivery: Delivery | None) -> bytes:
    """What is published in place of a confidential job's result: the same bytes for the same delivery."""
    document: dict[str, Any] = json.loads(result)
    errors = tuple(_public(error) for error in document.get("errors") or ())
    if delivery is not None and delivery.result_problem is not None:
        said = f"the result could not be delivered: {delivery.result_problem}"
        errors = (*errors, FlowError(_LOGISTICS_ERROR, said))
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


def _wait(ctx: RunContext) -> float:
    """Seconds until the poster may be asked again; asking begins now when it is none."""
    memory = ctx.memory
    if memory.asked_at is not None and ctx.now - memory.asked_at < BETWEEN_TRIES:
        return (memory.asked_at + BETWEEN_TRIES - ctx.now).total_seconds()
    if ctx.turns.posters.locked():
        return _TURN
    memory.asked_at = ctx.now
    return 0.0


def _no_key(ctx: RunContext) -> str:
    return f"the key {ctx.run.node} is in no Secret of the NosanaMarket, so nothing is signed; put it back"


def _words(exc: Exception) -> str:
    return str(exc)[:1024]
