"""Requests to a confidential job's poster: they give the definition and take the result.

The job controller writes into `status.logistics` where to send them. Every request is signed with the run's key,
which proves to the poster who is asking (docs/protocol/node.md#confidential-jobs). `decide.py` says when.
"""

from __future__ import annotations

import asyncio
import logging

from nosana_operator.api import MANAGER_MARKET, NosanaMarketSpec, definition_secret
from nosana_operator.errors import NotFound, Refused, Unavailable
from nosana_operator.market.ports import Wallet
from nosana_operator.market.runs.context import RunContext
from nosana_operator.market.runs.decide import DELIVERY_LIMIT, key_missing
from nosana_operator.market.runs.effects import Deliver
from nosana_operator.market.runs.view import PosterReply

log = logging.getLogger(__name__)

MAX_DEFINITION = 900 * 1024
"""Bytes of a definition: a Secret takes 1 MiB."""
_MAX_PROBLEM = 1024
"""Characters that `status.delivery` takes: a longer one would be refused, and the settlement would wait for it."""


class Poster:
    """The poster of one run."""

    def __init__(self, ctx: RunContext, market: NosanaMarketSpec | None) -> None:
        self.ctx = ctx
        self.market = market

    async def wallet(self) -> Wallet | None:
        """The key that signs the requests; None: we do not hold it."""
        return await self.ctx.wallet(self.market) if self.market is not None else None

    async def request_definition(self) -> PosterReply:
        """Get the definition and store it in its Secret."""
        try:
            data = await self._definition()
        except (NotFound, Unavailable) as exc:
            return self._reply(str(exc))
        except Refused as exc:
            return self._reply(str(exc), refused=True)
        await self.ctx.edges.kube.apply(definition_secret(self.ctx.body, data), manager=MANAGER_MARKET)
        return self._reply(None)

    async def _definition(self) -> bytes:
        logistics, posters = self.ctx.logistics, self.ctx.posters(self.market)
        if logistics is None or posters is None:
            raise NotFound("the job names no endpoint that can be asked")
        wallet = await self.wallet()
        if wallet is None:
            raise NotFound(key_missing(self.ctx.run.node))
        authorization = wallet.authorization(self.ctx.run.job, self.ctx.now)
        async with self.ctx.limits.posters:
            data = await posters.get(logistics.send, authorization=authorization)
        if len(data) > MAX_DEFINITION:
            raise Refused(f"it has {len(data)} bytes, at most {MAX_DEFINITION} can be kept; make it smaller")
        return data

    async def deliver(self, effect: Deliver, result: bytes) -> PosterReply:
        """Post the result to the poster's endpoint."""
        logistics, posters, wallet = self.ctx.logistics, self.ctx.posters(self.market), await self.wallet()
        if logistics is None or posters is None or wallet is None:
            return self._reply("there is no endpoint or no key for the request.")
        authorization = wallet.authorization(self.ctx.run.job, self.ctx.now)
        try:
            async with asyncio.timeout(effect.limit.total_seconds()), self.ctx.limits.posters:
                await posters.post(logistics.receive, result, authorization=authorization)
        except TimeoutError:
            problem = f"the endpoint has not taken it within {DELIVERY_LIMIT.seconds} s of the job's end."
        except (NotFound, Unavailable) as exc:
            problem = str(exc)
            if effect.posted_before and isinstance(exc, NotFound):
                problem += " An earlier try may have delivered it."
        except Refused as exc:
            return self._reply(str(exc), refused=True)
        else:
            return self._reply(None)
        log.info("result not delivered: %s", problem, extra=self.ctx.fields())
        return self._reply(problem)

    def _reply(self, problem: str | None, *, refused: bool = False) -> PosterReply:
        return PosterReply(self.ctx.edges.clock.now(), problem and _shortened(problem), refused)


def _shortened(problem: str) -> str:
    return problem if len(problem) <= _MAX_PROBLEM else problem[: _MAX_PROBLEM - 1] + "…"
