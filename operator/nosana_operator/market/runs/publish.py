"""Gets the result of a run onto IPFS: reads it, makes what is public of it, pins it, asks the gateways for it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from nosana_operator.api import JOB_KIND, JobReason, NosanaJobStatus, parse_part
from nosana_operator.errors import Refused
from nosana_operator.market.ports import Pinner
from nosana_operator.market.runs.blank_result import blank_result
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.decide import PIN_WAIT
from nosana_operator.market.runs.poster import Poster
from nosana_operator.market.runs.result import pin, result_bytes
from nosana_operator.market.runs.view import (
    PinState,
    Publication,
    PublishedResult,
    StoredResult,
    UnreadableResult,
)

log = logging.getLogger(__name__)

_ATTEMPT = 60.0
"""Seconds that one attempt at a later pin, or one question to the gateways, may take."""
_FIRST_QUESTION = 3.0
"""Seconds for the question to the gateways that comes with the end of the settlement."""


class Publisher:
    """Publishes the result of one run. `pinner`: None where the run is settled already."""

    def __init__(self, ctx: RunContext, pinner: Pinner | None) -> None:
        self.ctx = ctx
        self._pinner = pinner
        self._cache = ctx.memory.result

    def _pin_service(self) -> Pinner | None:
        market = self.ctx.known_market()
        return self._pinner or (self.ctx.edges.networks.pinner(market.network) if market else None)

    async def read(self, poster: Poster) -> StoredResult | UnreadableResult:
        """Read the stored result into the cache."""
        try:
            await self.result()
        except Refused as exc:
            return UnreadableResult(f"the result cannot be read: {exc}; give the operator `get` on Secrets")
        delivery = self.ctx.record.delivery
        delivered = delivery is not None and delivery.result in ("Delivered", "Undelivered")
        if delivered or self.ctx.posters(poster.market) is None or self.ctx.logistics is None:
            return StoredResult()
        return StoredResult(key_held=await poster.wallet() is not None)

    async def result(self) -> bytes:
        """The job's own result, or the substitute for a lost one."""
        ctx, cache = self.ctx, self._cache
        status = parse_part(NosanaJobStatus, JOB_KIND, "status", ctx.body.get("status"))
        before = cache.lost
        started = datetime.fromtimestamp(ctx.run_time, UTC)
        data = await result_bytes(ctx.edges.kube, ctx.body, status, started, cache)
        if cache.lost != before:
            ctx.event("Warning", JobReason.RESULT_LOST, f"published without it: {cache.lost}")
        return data

    async def _public(self) -> bytes:
        """The part of the result that everybody may read."""
        result, cache = await self.result(), self._cache
        if self.ctx.logistics is None:
            return result
        if cache.blank is None:
            cache.blank = await asyncio.to_thread(blank_result, result, self.ctx.record.delivery)
        return cache.blank

    async def prepare(self) -> PublishedResult:
        """The CID of the public bytes."""
        data, pinner = await self._public(), self._pin_service()
        published = None if pinner is None else self.announced(pinner.cid_of(data))
        if published is None:
            raise AssertionError("no result is prepared for a network that the settings do not have")
        return published

    def announced(self, cid: str) -> PublishedResult | None:
        """The CID with its digest, which is cached: reconciles during a transaction are many, and this is slow."""
        memory, pinner = self.ctx.memory, self._pin_service()
        if pinner is None:
            return None
        if memory.digest is None or memory.digest.cid != cid:
            memory.digest = PublishedResult(cid, pinner.digest_of(cid))
        return memory.digest

    def is_pinned(self) -> bool:
        """Whether a pin service has taken the result."""
        settlement = self.ctx.record.settlement
        return self._cache.pinned or bool(settlement and settlement.pinned)

    async def pin(self, limit: timedelta, published: PublishedResult | None) -> PinState:
        """Begin to pin, or see how that goes; it goes on beside the reconciles, however slow the service is."""
        cache, limits, pinner = self._cache, self.ctx.limits.pins, self._pin_service()
        if cache.pinned:
            return PinState(True)
        if pinner is None or published is None:
            return PinState(False)
        if cache.pinning is None:
            if limits.locked():
                return PinState(None)
            data = await self._public()
            name = f"result of {self.ctx.run.run}"
            pinning = self._pin_within_limits(pinner, data, published.cid, limit.total_seconds())
            cache.pinning = asyncio.create_task(pinning, name=name)
            await asyncio.wait([cache.pinning], timeout=PIN_WAIT.total_seconds())
        if not cache.pinning.done():
            return PinState(None)
        task, cache.pinning = cache.pinning, None
        return PinState(task.result())

    def stop_pinning(self) -> None:
        """Cancel the pin that the settlement waited for; later attempts have their own time."""
        if self._cache.pinning is not None:
            self._cache.pinning.cancel()
            self._cache.pinning = None

    async def _pin_within_limits(self, pinner: Pinner, data: bytes, cid: str, seconds: float) -> bool:
        async with self.ctx.limits.pins:
            return await self._pin(pinner, data, cid, seconds)

    async def _pin(self, pinner: Pinner, data: bytes, cid: str, seconds: float) -> bool:
        name = f"{self.ctx.meta['namespace']}-{self.ctx.meta['name']}"
        return await pin(pinner, data, cid, name=name, seconds=seconds, cache=self._cache)

    async def is_published(self) -> bool:
        """Whether the gateways return the result when they are first asked."""
        settlement, cid, pinner = self.ctx.record.settlement, self.ctx.record.result_cid, self._pin_service()
        if settlement is None or not settlement.pinned or cid is None or pinner is None:
            return False
        return await self._served(pinner, cid, _FIRST_QUESTION)

    async def publish(self) -> Publication:
        """Pin the result if necessary, then ask the gateways for it."""
        cid, pinner = self.ctx.record.result_cid, self._pin_service()
        if cid is None or pinner is None:
            return Publication(pinned=False, published=False)
        async with self.ctx.limits.gateways:
            pinned = await self._pin(pinner, await self._public(), cid, _ATTEMPT)
            if not pinned and self._cache.lost is not None:
                return Publication(pinned=False, published=False, lost=True)
            published = pinned and await self._served(pinner, cid, _ATTEMPT)
        if not published:
            # A service that took the result may have lost it since: the next attempt pins it again.
            self._cache.pinned = False
        return Publication(pinned, published)

    async def _served(self, pinner: Pinner, cid: str, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await pinner.gives(cid)
        except TimeoutError:
            return False
