"""The result of a run on its way out: to the poster who wants it alone, then to IPFS, until gateways give it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    JOB_KIND,
    JobReason,
    NosanaJobStatus,
    NosanaMarketSpec,
    parse_part,
)
from nosana_operator.errors import Refused
from nosana_operator.market.ports import Pinner
from nosana_operator.market.runs.confidential import blank_result, deliver_result, logistics_of
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.result import ended_at, pin, result_bytes

log = logging.getLogger(__name__)

PIN_GRACE = timedelta(seconds=30)
"""A pin outage delays the settlement at most so long; the pin then goes on afterwards."""
_NOT_PINNED = (
    f"no pin service has taken the result yet; {PIN_GRACE.seconds} s after the job's end the run is settled without, "
    "and the pin is tried until it is done"
)
_PIN_PATIENCE = timedelta(seconds=10)
"""A pin that takes longer is told."""
_PIN_AWAITED = 1.0
"""Seconds that a look at the run waits for a pin that it has begun: most are done by then, and pay waits for it."""
LATER_PIN = 60.0
"""Seconds that one attempt at such a later pin, or a look at the gateways, may take."""
_FIRST_LOOK = 3.0
"""Seconds for the look at the gateways that comes with the end of the settlement."""
_MAX_PAUSE = 1800.0
_TURN = 5.0
"""Seconds until it is looked again whether it is this run's turn."""


class Publisher:
    """Publishes the result of the run that is looked at."""

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx

    async def announced(self, pinner: Pinner, market: NosanaMarketSpec) -> str | None:
        """The CID to go on chain, its content pinned or the grace for that over; None: not yet."""
        ctx = self.ctx
        if ctx.record.settlement is not None and ctx.record.result_cid is not None:
            return ctx.record.result_cid
        try:
            result = await self._result()
        except Refused as exc:
            message = f"the result cannot be read: {exc}; give the operator `get` on Secrets"
            ctx.complain(JobReason.RESULT_LOST, message)
            await ctx.write()
            return None
        posters = ctx.edges.networks.posters(market.network)
        if posters is not None and not await deliver_result(ctx, market, posters, result):
            return None
        data = await self._public()
        cid = pinner.cid_of(data)
        waited = ctx.now - ended_at(ctx.body)
        pinned = await self._begun_pin(pinner, data, cid, PIN_GRACE - waited)
        if not pinned and waited < PIN_GRACE:
            if pinned is False or waited >= _PIN_PATIENCE:
                ctx.complain(JobReason.PIN_UNAVAILABLE, _NOT_PINNED)
                await ctx.write()
            return None
        if (task := ctx.memory.result.pinning) is not None:
            task.cancel()
            ctx.memory.result.pinning = None
        ctx.record = replace(ctx.record, result_cid=cid)
        return cid

    def digest(self, pinner: Pinner, cid: str) -> bytes:
        """Kept, because the looks while a transaction is under way are many and reading a CID is slow."""
        memory = self.ctx.memory
        if memory.digest is None or memory.digest[0] != cid:
            memory.digest = (cid, pinner.digest_of(cid))
        return memory.digest[1]

    def is_pinned(self) -> bool:
        """Whether a pin service has taken the result."""
        before = self.ctx.record.settlement
        return self.ctx.memory.result.pinned or bool(before and before.pinned)

    async def is_published(self) -> bool:
        """Whether the gateways give the result, at the first look."""
        settlement, cid = self.ctx.record.settlement, self.ctx.record.result_cid
        market = self.ctx.market()
        pinner = self.ctx.edges.networks.pinner(market.network) if market else None
        if settlement is None or not settlement.pinned or cid is None or pinner is None:
            return False
        return await self._given(pinner, cid, _FIRST_LOOK)

    async def go_on(self) -> float | None:
        """Pin until the gateways give the result back; seconds until the next try, None: nothing is left.

        The result goes with the object, and its CID stands on chain.
        """
        ctx, memory = self.ctx, self.ctx.memory
        settlement, cid = ctx.record.settlement, ctx.record.result_cid
        if settlement is None or settlement.kind == "quit" or settlement.published or cid is None:
            return None
        if (ctx.meta.get("annotations") or {}).get(ANNOTATION_ABANDON) == ctx.run.run:
            return None
        market = ctx.market()
        pinner = ctx.edges.networks.pinner(market.network) if market else None
        if pinner is None:
            return _MAX_PAUSE
        if memory.publish_at is not None and ctx.now < memory.publish_at:
            return (memory.publish_at - ctx.now).total_seconds()
        if ctx.turns.gateways.locked():
            return _TURN
        async with ctx.turns.gateways:
            pinned = await self._pin(pinner, await self._public(), cid, LATER_PIN)
            if not pinned and memory.result.lost is not None:
                return None
            published = pinned and await self._given(pinner, cid, LATER_PIN)
        if pinned != settlement.pinned or published:
            said = {"pinned": pinned or settlement.pinned, "published": published or None}
            ctx.record = replace(ctx.record, settlement=settlement.model_copy(update=said))
            await ctx.write()
        if published:
            return None
        memory.result.pinned = False
        memory.publish_tries += 1
        pause = min(2.0 ** min(memory.publish_tries, 20), _MAX_PAUSE)
        memory.publish_at = ctx.now + timedelta(seconds=pause)
        return pause

    async def _result(self) -> bytes:
        """What the job has brought about."""
        ctx, kept = self.ctx, self.ctx.memory.result
        status = parse_part(NosanaJobStatus, JOB_KIND, "status", ctx.body.get("status"))
        known = kept.lost
        started = datetime.fromtimestamp(ctx.run_time, UTC)
        data = await result_bytes(ctx.edges.kube, ctx.body, status, started, kept)
        if kept.lost != known:
            ctx.event("Warning", JobReason.RESULT_LOST, f"published without it: {kept.lost}")
        return data

    async def _public(self) -> bytes:
        """What of it everybody may read."""
        result, kept = await self._result(), self.ctx.memory.result
        if logistics_of(self.ctx) is None:
            return result
        if kept.blank is None:
            kept.blank = await asyncio.to_thread(blank_result, result, self.ctx.record.delivery)
        return kept.blank

    async def _begun_pin(self, pinner: Pinner, data: bytes, cid: str, left: timedelta) -> bool | None:
        """Whether a service has taken the result; None: none has said so yet, or it is others' turn.

        The pin goes on beside the looks at the run: a service may be silent as long as it likes.
        """
        kept, turns = self.ctx.memory.result, self.ctx.turns.pins
        if kept.pinned:
            return True
        if kept.pinning is None:
            if turns.locked():
                return None
            seconds = max(left.total_seconds(), _PIN_AWAITED)
            name = f"result of {self.ctx.run.run}"
            kept.pinning = asyncio.create_task(self._pin_in_turn(pinner, data, cid, seconds), name=name)
            await asyncio.wait([kept.pinning], timeout=_PIN_AWAITED)
        if not kept.pinning.done():
            return None
        task, kept.pinning = kept.pinning, None
        return task.result()

    async def _pin_in_turn(self, pinner: Pinner, data: bytes, cid: str, seconds: float) -> bool:
        async with self.ctx.turns.pins:
            return await self._pin(pinner, data, cid, seconds)

    async def _pin(self, pinner: Pinner, data: bytes, cid: str, seconds: float) -> bool:
        name = f"{self.ctx.meta['namespace']}-{self.ctx.meta['name']}"
        return await pin(pinner, data, cid, name=name, seconds=seconds, kept=self.ctx.memory.result)

    async def _given(self, pinner: Pinner, cid: str, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await pinner.gives(cid)
        except TimeoutError:
            return False
