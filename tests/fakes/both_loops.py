"""Job controller and market host on one API and one chain, and a kubelet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from fakes.jobs import Lab
from fakes.market import MarketLab, Posted
from nosana_operator.content import cid_from_digest


class BothRooms:
    """Both controllers, and a kubelet; `options` are the MarketLab's."""

    def __init__(self, **options: Any) -> None:
        self.jobs = Lab(settles=False)
        self.jobs.exits[0] = 0
        self.market = MarketLab(kube=self.jobs.kube, clock=self.jobs.clock, **options)
        self.slots = 0
        self.market_at_work = False
        """Whose requests are being made."""

    async def slot(self) -> None:
        """One slot of the chain, in which both controllers do what they can."""
        self.market_at_work = True
        await self.market.slot()
        self.market_at_work = False
        self.slots += 1
        now = self.jobs.clock.now()
        for key in [key for key, at in self.jobs.due.items() if at <= now]:
            del self.jobs.due[key]
            self.jobs.wake(key)
        for sleeper in [one for one in self.jobs.sleepers if one[0] <= now]:
            self.jobs.sleepers.remove(sleeper)
            sleeper[1].set()
        for _ in range(3):
            await self.jobs.work()
            await asyncio.sleep(0)
        if self.slots % 3 == 0:
            self.jobs.kubelet.step()

    async def until(self, reached: Callable[[], bool], slots: int = 400) -> None:
        """Let slots pass until the condition holds."""
        for _ in range(slots):
            if reached():
                return
            # Definitions are read in threads, for which virtual time does not wait.
            if any(entry.task and not entry.task.done() for entry in self._entries()):
                await asyncio.sleep(0.001)
            await self.slot()
        raise AssertionError(f"not reached in {slots} slots: {self.market.story()}")

    def _entries(self) -> list[Any]:
        return list(self.jobs.controller._loader._entries.values())

    async def post(self, content: bytes, **options: Any) -> Posted:
        """Put a definition on IPFS and post it, once a host stands."""
        self.jobs.ipfs.content[cid_from_digest(hashlib.sha256(content).digest())] = content
        await self.until(self.market.standing)
        return self.market.post(content=content, **options)

    async def reboot(self) -> None:
        """Another process in place of the one at work."""
        await self.jobs.crash_and_reboot()
        # The other room's boot has ended all watches of the API.
        self.jobs.kube.watch(self.market._changed)
        self.market.boot()

    async def close(self) -> None:
        """End what runs beside the reconciles."""
        await self.jobs.controller.close()
