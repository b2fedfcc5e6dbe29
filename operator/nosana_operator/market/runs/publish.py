"""Gets the result of a run onto IPFS: reads it, makes what is public of it, pins it, asks the gateways for it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from nosana_operator.api import JobReason
from nosana_operator.errors import Refused
from nosana_operator.market.ports import Pinner
from nosana_operator.market.runs.blank_result import blank_result
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.decide import PIN_WAIT
from nosana_operator.market.runs.poster import Poster
from nosana_operator.market.runs.result import (
    LOST,
    overdue_substitute,
    pin,
    result_bytes,
    substitute,
)
from nosana_operator.market.runs.status import read_status
from nosana_operator.market.runs.view import (
    PinState,
    Publication,
    PublishedResult,
    StoredResult,
    UnreadableResult,
    has_ended,
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

    def substitute(self) -> None:
        """Put the substitute in the place of a result that the API server refuses to show."""
        self._lost("the API server refuses to show it")
        self._cache.data = substitute(self.ctx.body, self._started(), LOST)

    async def result(self) -> bytes:
        """The job's own result, or the substitute for one that is lost or never came."""
        ctx, cache = self.ctx, self._cache
        if cache.overdue and has_ended(self.ctx.conditions) and self._announced_cid() is None:
            # The job has ended after all, before anything was signed.
            cache.drop()
        if cache.data is None and not has_ended(self.ctx.conditions):
            cache.data, cache.overdue = self._overdue_substitute(), True
        if cache.data is None:
            before, secrets = cache.lost, read_status(ctx.body).result_secrets
            await result_bytes(ctx.edges.kube, ctx.body, secrets, self._started(), cache)
            if cache.lost != before and cache.lost is not None:
                self._lost(cache.lost)
        return cache.data or b""

    def _lost(self, message: str) -> None:
        self._cache.lost = message
        self.ctx.event("Warning", JobReason.RESULT_LOST, f"published without it: {message}")

    def _overdue_substitute(self) -> bytes:
        status = self.ctx.record.run
        limits = [one for one in (status.timeout, status.max_timeout) if one is not None] if status else []
        closed = status is None or status.ended is not None
        return overdue_substitute(self._started(), 0 if closed else max(min(limits, default=0), 0))

    def _started(self) -> datetime:
        return datetime.fromtimestamp(self.ctx.run_time, UTC)

    def _announced_cid(self) -> str | None:
        """The CID that an intent names."""
        return self.ctx.record.result_cid if self.ctx.record.settlement is not None else None

    async def _public(self) -> bytes:
        """The bytes that everybody may read: after an intent those that it names, if they can still be made."""
        cid, pinner = self._announced_cid(), self._pin_service()
        if cid is None or pinner is None:
            return await self._public_part(await self.result())
        refusal: Refused | None = None
        data: bytes | None = None
        try:
            data = await self._public_part(await self.result())
        except Refused as exc:
            refusal = exc
        if data is not None and pinner.cid_of(data) == cid:
            return data
        # What could not be read then is readable now, or the job has ended after all.
        for other in (self._overdue_substitute(), substitute(self.ctx.body, self._started(), LOST)):
            public = await self._public_part(other, cached=False)
            if pinner.cid_of(public) == cid:
                return public
        if data is None:
            raise refusal or Refused("the result cannot be read")
        return data

    async def _public_part(self, result: bytes, *, cached: bool = True) -> bytes:
        cache = self._cache
        if self.ctx.logistics is None:
            return result
        if cached and cache.blank is not None:
            return cache.blank
        delivery = self.ctx.record.delivery
        try:
            blank = await asyncio.to_thread(blank_result, result, delivery)
        except (ValueError, KeyError, TypeError) as exc:
            # Somebody changed the Secret: a settlement must not wait for what will never be readable.
            self._lost(f"it is no result document ({type(exc).__name__})")
            lost = substitute(self.ctx.body, self._started(), LOST)
            blank = await asyncio.to_thread(blank_result, lost, delivery)
        if cached:
            cache.blank = blank
        return blank

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
            if self._cache.changed:
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
