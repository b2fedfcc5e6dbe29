"""Whether the API server answers, and whether the event loop keeps up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from nosana_operator.errors import NosanaError

log = logging.getLogger(__name__)

_QUIET_SECONDS = 10.0
_AWAY_SECONDS = 30.0
_PROBE_SECONDS = 5.0
_LAG_SECONDS = 1.0


class ApiHealth:
    """Whether the API server answers, learned from every request; it is probed only when there was none."""

    def __init__(self) -> None:
        self._answered_at: float | None = None
        self._away = False

    def observe(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """See `kube.client.Observer`. Any status below 500 counts as an answer, a refusal too."""
        if code.isdigit() and int(code) < 500:
            self._answered_at = asyncio.get_running_loop().time()
            if self._away:
                self._away = False
                log.info("The Kubernetes API answers again")

    def problem(self) -> str | None:
        """What is wrong, or None."""
        if self._answered_at is None:
            return "the Kubernetes API has not answered yet"
        silence = asyncio.get_running_loop().time() - self._answered_at
        if silence > _AWAY_SECONDS:
            return f"the Kubernetes API has not answered for {silence:.0f} s"
        return None

    async def probe(self, read_path: Callable[[str], Awaitable[bytes]]) -> None:
        """Request the version whenever no other request was made for a while; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if self._answered_at is not None and loop.time() - self._answered_at < _QUIET_SECONDS:
                continue
            try:
                await read_path("/version")
            except NosanaError as error:
                if not self._away:
                    self._away = True
                    log.warning("The Kubernetes API does not answer; running jobs are left alone: %s", error)


async def measure_loop_lag(observe: Callable[[float], None]) -> None:
    """Report to `observe`, about once a second, how late the event loop ran a timer, in seconds; until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        observe(max(0.0, loop.time() - due))
