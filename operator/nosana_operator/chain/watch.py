"""Keeps a network's accounts in view: subscriptions for speed, polling for truth.

Subscriptions lose notifications without a sign, and a program subscription never tells of a closed run. So
everything watched is read again, each kind in its own time, which is chosen so that the bounds hold with the
WebSocket dead and the cost stays below one request a second for 500 running jobs:

- Markets and the chain's clock, every 5 s, in one request. A run of ours begins while we stand in a queue, so
  when a host is no longer in a queue (or has just sent `work`), its runs are listed at once.
- Jobs, a hundred a request: every 8 s while nothing is heard on the WebSocket, else every 25 s.
- Runs of each host, listed every minute in any case, and after each (re)connection. Where the nodes refuse
  listings, they are found in the markets' transactions instead (`discovery`).

(`onchain.md` §7, §9)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

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
from nosana_operator.chain.discovery import RunFinder
from nosana_operator.chain.errors import ChainError, ChainUnavailable, MethodRefused
from nosana_operator.chain.rpc import Rpc
from nosana_operator.chain.snapshot import Kind, Seen, SnapshotStore
from nosana_operator.chain.subscriptions import AccountTarget, RunsTarget, SlotTarget, Subscriptions, Target
from nosana_operator.chain.together import all_of
from nosana_operator.chain.wire import AccountInfo, Memcmp

log = logging.getLogger(__name__)

OnChange = Callable[[Kind, str], None]
"""Called with what changed (`run`, `job` or `market`) and its address, in the event loop."""


_EXPECT_SECONDS: Final = 90.0
"""As long as a transaction can land after it was signed."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Seconds between two readings of each kind; what a dead WebSocket hides is seen that late at most."""

    markets: float = 5.0
    jobs: float = 8.0
    jobs_followed: float = 25.0
    """Of jobs while the WebSocket tells of them."""
    runs: float = 60.0


@dataclass(slots=True)
class _Chore:
    """When one kind of account was last read."""

    began: float
    tried_at: float | None = None
    failed: bool = False

    def due(self, interval: float, again: float) -> float:
        """When it is to be read next: after the interval, sooner when it failed."""
        if self.tried_at is None:
            return self.began
        return self.tried_at + (min(interval, again) if self.failed else interval)

    def tried(self, at: float, success: bool) -> None:
        """It was read, or was to be read, at that time."""
        self.tried_at, self.failed = at, not success


class ChainWatcher:
    """One network's watcher: `run` it as a task, `watch` what matters, read the snapshots.

    Args:
        rpc: the network's RPC. Give it one or two attempts: the next poll is the retry.
        ws_urls: WebSocket addresses in the order of preference, none to poll only.
        session: the caller's HTTP session.
        program: the Jobs program.
        chain_clock: gets a reading with every poll.
        settings: how often.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rpc: Rpc,
        ws_urls: Sequence[str],
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
        self._finder = RunFinder(rpc, program)
        self._subscriptions = (
            Subscriptions(ws_urls, session, program, self._notified, self._subscribed, clock=clock)
            if ws_urls
            else None
        )
        self._callbacks: list[OnChange] = []
        self._dirty: set[Target] = set()
        self._expected: dict[str, float] = {}
        self._candidates: set[str] = set()
        self._finding = asyncio.Lock()
        self._wake = asyncio.Event()
        began = clock()
        self._chores: dict[Kind, _Chore] = {
            "market": _Chore(began),
            "job": _Chore(began),
            "run": _Chore(began),
        }
        self._slot = 0
        self._advanced_at: float | None = None
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
    def alive(self) -> bool:
        """Whether something was heard on the WebSocket just now."""
        return self._subscriptions is not None and self._subscriptions.alive

    @property
    def followed(self) -> bool:
        """Whether the WebSocket is alive and tells of every watched account."""
        return self._subscriptions is not None and self._subscriptions.follows_accounts

    @property
    def staleness(self) -> float | None:
        """Seconds by which what we know may be behind the chain; None: nothing was ever read.

        Since a node last showed a newer slot, or by which a reading is overdue, whichever is more.
        """
        if self._advanced_at is None:
            return None
        now = self._clock()
        return max(now - self._advanced_at, *(now - self._due(kind) for kind in self._chores))

    @property
    def slot(self) -> int:
        """The newest slot that was read; 0: none yet."""
        return self._slot

    # what the others do

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the set of accounts that are watched; new ones are read at once."""
        before = self._targets()
        self._store.watch(keys, jobs, markets)
        self._follow(self._targets() - before)

    def expect(self, key: str) -> None:
        """A `work` of this host was signed: its runs are listed often until it is seen to stand or run."""
        self._expected[key] = self._clock() + _EXPECT_SECONDS

    def on_change(self, callback: OnChange) -> None:
        """Call back on every change of a snapshot, the first reading included."""
        self._callbacks.append(callback)

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[Run, ...]:
        """Read a watched host's runs now, at slot `not_before` or later.

        Raises:
            ChainUnavailable, RpcError: nothing is known; the node that answered may be behind that slot.
        """
        await self._read_all_runs([key], not_before)
        return self._store.runs_of(key) or ()

    async def refresh(self, addresses: Collection[str], *, not_before: int = 0) -> None:
        """Read these watched accounts now. Raises as `refresh_runs`."""
        await self._read_accounts([*addresses], not_before)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll())
            if self._subscriptions is not None:
                tasks.create_task(self._subscriptions.run())

    # polling

    def _interval(self, kind: Kind) -> float:
        if kind == "market":
            return self._settings.markets
        if kind == "run":
            return self._settings.runs
        return self._settings.jobs_followed if self.followed else self._settings.jobs

    def _due(self, kind: Kind) -> float:
        return self._chores[kind].due(self._interval(kind), self._settings.markets)

    async def _poll(self) -> None:
        while True:
            try:
                async with asyncio.timeout(max(0.0, min(map(self._due, self._chores)) - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = self._clock()
            due = {kind for kind in self._chores if self._due(kind) <= now}
            dirty, self._dirty = self._dirty, set()
            keys = {target.node for target in dirty if isinstance(target, RunsTarget)}
            single = {target.address for target in dirty if isinstance(target, AccountTarget)}
            if "run" in due:
                keys |= self._store.keys
            if "market" in due:
                keys |= self._still_expected(now)
            # A listing covers the hosts' known runs: they are not read one by one.
            single |= {a for a, kind in self._store.wanted.items() if kind in due and kind != "run"}
            read = await self._read(keys, single, clock="market" in due)
            for kind in due:
                self._chores[kind].tried(now, read)
            if not read:
                self._dirty |= dirty

    def _still_expected(self, now: float) -> set[str]:
        """Hosts whose `work` may have become a run, not seen by anything else."""
        self._expected = {
            key: until
            for key, until in self._expected.items()
            if now < until and key in self._store.keys and not self._store.stands(key)
        }
        return set(self._expected)

    async def _read(self, keys: Collection[str], single: Collection[str], *, clock: bool) -> bool:
        """Read these hosts' runs and these accounts; True when all could be read."""

        # Functions, not coroutines: a task that is cancelled before it began would leave one never awaited.
        async def attempt(reading: Callable[[], Awaitable[None]]) -> str | None:
            try:
                await reading()
            except ChainError as error:
                return str(error)
            return None

        readings: list[Callable[[], Awaitable[None]]] = []
        if single or clock:
            readings.append(partial(self._read_accounts, sorted(single), clock=clock))
        if keys:
            readings.append(partial(self._read_all_runs, keys))
        if not readings:
            return True
        problems = await asyncio.gather(*(attempt(reading) for reading in readings))
        problem = next((said for said in problems if said is not None), None)
        if (problem is None) != (self._said is None):
            # Said once, not every five seconds.
            if problem is None:
                log.info("the chain is read again")
            else:
                log.warning("the chain cannot be read: %s", problem)
        self._said = problem
        return problem is None

    async def _read_all_runs(self, keys: Collection[str], not_before: int = 0) -> None:
        """The runs of these hosts: listed, or found where listings are refused."""
        try:
            await all_of(self._read_runs(key, not_before) for key in keys)
        except MethodRefused:
            async with self._finding:
                await self._find_runs(keys, not_before)

    async def _find_runs(self, keys: Collection[str], not_before: int) -> None:
        """Known runs and those that the markets' transactions name."""
        # Told once: whatever becomes of this reading, they are looked at again.
        self._candidates |= await self._finder.find(self._store.wanted_markets)
        known = {address for address, kind in self._store.wanted.items() if kind == "run"}
        reply = await self._rpc.accounts(sorted(known | self._candidates), Confirmed)
        self._advance(reply.slot)
        _check_slot(reply.slot, not_before)
        self._candidates.clear()
        for address, info in reply.value.items():
            self._reported("run", address, reply.slot, info)
        self._store.list_found(keys)

    async def _read_runs(self, key: str, not_before: int = 0) -> None:
        filters = (Memcmp(0, RUN_DISCRIMINATOR_BASE58), Memcmp(RUN_NODE_OFFSET, key))
        found = await self._rpc.program_accounts(self._program, filters, Confirmed)
        self._advance(found.slot)
        _check_slot(found.slot, not_before)
        changed = self._store.report_runs(key, found.slot, found.value)
        if changed:
            self._expected.pop(key, None)
            self._follow(frozenset())
        for address in changed:
            self._tell("run", address)

    async def _read_accounts(
        self, addresses: Sequence[str], not_before: int = 0, *, clock: bool = False
    ) -> None:
        """These accounts, with `clock` the chain's too."""
        found = await self._rpc.accounts([*([CLOCK_SYSVAR] if clock else []), *addresses], Confirmed)
        self._advance(found.slot)
        _check_slot(found.slot, not_before)
        sysvar = found.value.pop(CLOCK_SYSVAR, None)
        if sysvar is not None:
            self._chain_clock.observe(decode_clock(sysvar.data)[1])
        for address, info in found.value.items():
            self._reported(self._store.kind_of(address), address, found.slot, info)

    def _advance(self, slot: int) -> None:
        if slot > self._slot:
            self._slot, self._advanced_at = slot, self._clock()

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
        if kind is None:
            return
        stood = self._store.standing(address) if kind == "market" else frozenset()
        if not self._store.report(kind, address, slot, info):
            return
        if kind == "run":
            self._follow(frozenset())
        elif kind == "market":
            # Who stands no more has been matched, or left: the listing tells.
            left = stood - self._store.standing(address)
            self._follow(frozenset(RunsTarget(key) for key in left))
        self._tell(kind, address)

    def _tell(self, kind: Kind, address: str) -> None:
        for callback in self._callbacks:
            try:
                callback(kind, address)
            except Exception:  # one listener's fault must not blind the others
                log.exception("a listener to %s %s failed", kind, address)


def _check_slot(slot: int, not_before: int) -> None:
    if slot < not_before:
        raise ChainUnavailable(
            f"The RPC node that answered is {not_before - slot} slots behind; asked again."
        )
