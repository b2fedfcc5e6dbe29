"""Keeps a network's accounts in view: subscriptions for speed, polling for truth.

Subscriptions lose notifications without a sign, and never tell of a closed run. So everything watched is read
again every few seconds, whatever the WebSocket says: with it dead, a new run or an owner's `end` is seen one
poll later at the latest (`onchain.md` §7, §9).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from solana.rpc.commitment import Confirmed

from nosana_operator.chain.accounts import (
    RUN_DISCRIMINATOR_BASE58,
    RUN_NODE_OFFSET,
    Job,
    Market,
    Run,
    decode_clock,
)
from nosana_operator.chain.addresses import CLOCK_SYSVAR
from nosana_operator.chain.clock import ChainClock
from nosana_operator.chain.errors import ChainError
from nosana_operator.chain.rpc import Rpc
from nosana_operator.chain.snapshot import Kind, Seen, SnapshotStore
from nosana_operator.chain.subscriptions import AccountTarget, RunsTarget, SlotTarget, Subscriptions, Target
from nosana_operator.chain.wire import AccountInfo, Memcmp

log = logging.getLogger(__name__)

OnChange = Callable[[Kind, str], None]
"""Called with what changed (`run`, `job` or `market`) and its address, in the event loop."""

_AT_ONCE: Final = 8
"""Requests of one poll that may be under way together."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Seconds between two polls of everything. The bound for what a dead WebSocket hides is this plus the
    time that the node takes to answer."""

    poll: float = 5.0


class ChainWatcher:
    """One network's watcher: `run` it as a task, `watch` what matters, read the snapshots.

    Args:
        rpc: the node to poll. Give it one or two attempts: the next poll is the retry.
        ws_url: the WebSocket address, None to poll only.
        session: the caller's HTTP session.
        program: the Jobs program.
        chain_clock: gets a reading with every poll.
        settings: how often.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpc: Rpc,
        ws_url: str | None,
        session: aiohttp.ClientSession,
        program: str,
        chain_clock: ChainClock,
        *,
        settings: WatchSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rpc = rpc
        self._program = program
        self._chain_clock = chain_clock
        self._settings = settings or WatchSettings()
        self._clock = clock
        self._store = SnapshotStore(program, clock)
        self._subscriptions = (
            Subscriptions(ws_url, session, program, self._notified, self._subscribed) if ws_url else None
        )
        self._callbacks: list[OnChange] = []
        self._dirty: set[Target] = set()
        self._wake = asyncio.Event()
        self._polled_at: float | None = None
        self._said: str | None = None

    # what the others read

    @property
    def runs(self) -> Mapping[str, Seen[Run]]:
        """Runs of the watched hosts by address; closed ones (value None) for a while."""
        return self._store.runs

    @property
    def jobs(self) -> Mapping[str, Seen[Job]]:
        """Watched jobs; missing: not read yet, value None: the chain says there is none."""
        return self._store.jobs

    @property
    def markets(self) -> Mapping[str, Seen[Market]]:
        """Watched markets, as `jobs`."""
        return self._store.markets

    def runs_of(self, key: str) -> tuple[Run, ...] | None:
        """The live runs of a watched host; None until the first answer."""
        return self._store.runs_of(key)

    @property
    def connected(self) -> bool:
        """Whether the WebSocket is up and has said something."""
        return self._subscriptions is not None and self._subscriptions.connected

    @property
    def staleness(self) -> float | None:
        """Seconds since everything was last read; None: never."""
        return None if self._polled_at is None else self._clock() - self._polled_at

    # what the others do

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the set of accounts that are watched; new ones are read at once."""
        before = self._targets()
        self._store.watch(keys, jobs, markets)
        self._follow(self._targets() - before)

    def on_change(self, callback: OnChange) -> None:
        """Call back on every change of a snapshot, the first reading included."""
        self._callbacks.append(callback)

    async def refresh_runs(self, key: str) -> tuple[Run, ...]:
        """Read a watched host's runs now.

        Raises:
            ChainUnavailable, RpcError: nothing is known.
        """
        await self._read_runs(key)
        return self._store.runs_of(key) or ()

    async def refresh(self, addresses: Collection[str]) -> None:
        """Read these watched accounts now. Raises as `refresh_runs`."""
        await self._read_accounts(addresses)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            if self._subscriptions is not None:
                tasks.create_task(self._subscriptions.run())

    # polling

    async def _poll(self) -> None:
        due = self._clock()
        while True:
            try:
                async with asyncio.timeout(max(0.0, due - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            everything = self._clock() >= due
            keys = [target.node for target in self._dirty if isinstance(target, RunsTarget)]
            single = [target.address for target in self._dirty if isinstance(target, AccountTarget)]
            self._dirty.clear()
            if everything:
                due = self._clock() + self._settings.poll
                keys = [*self._store.keys]
                # A listing covers the hosts' known runs: they are not read one by one.
                single = [address for address, kind in self._store.wanted.items() if kind != "run"]
            if await self._read(keys, single, clock=everything) and everything:
                self._polled_at = self._clock()

    async def _read(self, keys: Collection[str], single: Collection[str], *, clock: bool) -> bool:
        """Read these hosts' runs and these accounts; True when all could be read."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def attempt(reading: Coroutine[Any, Any, None]) -> str | None:
            async with limit:
                try:
                    await reading
                except ChainError as error:
                    return str(error)
            return None

        readings = [self._read_runs(key) for key in keys]
        if single or clock:
            readings.append(self._read_accounts(single))
        problems = await asyncio.gather(*(attempt(reading) for reading in readings))
        problem = next((said for said in problems if said is not None), None)
        if problem != self._said:
            # Said once, not every five seconds.
            self._said = problem
            if problem is None:
                log.info("the chain is read again")
            else:
                log.warning("the chain cannot be read: %s", problem)
        return problem is None

    async def _read_runs(self, key: str) -> None:
        filters = (Memcmp(0, RUN_DISCRIMINATOR_BASE58), Memcmp(RUN_NODE_OFFSET, key))
        found = await self._rpc.program_accounts(self._program, filters, Confirmed)
        changed = self._store.report_runs(key, found.slot, found.value)
        if changed:
            self._follow(frozenset())
        for address in changed:
            self._tell("run", address)

    async def _read_accounts(self, addresses: Collection[str]) -> None:
        """These accounts, and with them the chain's clock."""
        found = await self._rpc.accounts([CLOCK_SYSVAR, *addresses], Confirmed)
        sysvar = found.value.pop(CLOCK_SYSVAR, None)
        if sysvar is not None:
            self._chain_clock.observe(decode_clock(sysvar.data)[1])
        for address, info in found.value.items():
            self._reported(self._store.kind_of(address), address, found.slot, info)

    # subscriptions

    def _targets(self) -> frozenset[AccountTarget | RunsTarget]:
        single = {AccountTarget(address) for address in self._store.wanted}
        return frozenset(single | {RunsTarget(key) for key in self._store.keys})

    def _follow(self, read: frozenset[AccountTarget | RunsTarget]) -> None:
        """Subscribe to what is wanted now, and read some of it at once."""
        if self._subscriptions is not None:
            self._subscriptions.want(self._targets())
        if read:
            self._dirty |= read
            self._wake.set()

    def _subscribed(self, target: Target) -> None:
        """What happened before the subscription began was not notified."""
        if not isinstance(target, SlotTarget):
            self._dirty.add(target)
            self._wake.set()

    def _notified(self, target: Target, address: str, slot: int, info: AccountInfo | None) -> None:
        # A host's subscription tells of runs that nobody knew.
        found: Kind | None = "run" if isinstance(target, RunsTarget) else self._store.kind_of(address)
        self._reported(found, address, slot, info)

    def _reported(self, kind: Kind | None, address: str, slot: int, info: AccountInfo | None) -> None:
        if kind is None or not self._store.report(kind, address, slot, info):
            return
        if kind == "run":
            self._follow(frozenset())
        self._tell(kind, address)

    def _tell(self, kind: Kind, address: str) -> None:
        for callback in self._callbacks:
            try:
                callback(kind, address)
            except Exception:  # one listener's fault must not blind the others
                log.exception("a listener to %s %s failed", kind, address)
