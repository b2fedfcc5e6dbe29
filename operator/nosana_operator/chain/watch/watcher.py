"""Watches a network's accounts: subscriptions for speed, polling for truth.

Subscriptions lose notifications without a sign, and a program subscription never reports a closed run. So all
watched accounts are polled too, each kind at its own interval. The intervals keep the bounds while the WebSocket
is dead, and keep all requests of a network with 500 running jobs and 8 keys below one a second, those of the
market host included:

- Markets and the chain's clock, every 6 s, in one request. A run of ours begins while its host is in a queue, so
  when a host has left a queue (or has just sent `work`), its runs are listed at once.
- Jobs, a hundred per request: every 8.5 s, or every 25 s while the WebSocket is subscribed to all of them.
- Runs of each host: listed every 90 s, and after each (re)connection. Where no node lists them, they are found
  in the markets' transactions instead (`discovery`).

(docs/protocol/solana-rpc.md#subscriptions, docs/decisions/0007-reading-the-chain.md)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
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
from nosana_operator.chain.concurrency import gather_limited
from nosana_operator.chain.errors import ChainError, ChainUnavailable, NodeBehind, RpcError
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.chain.rpc.wire import AccountInfo, Memcmp, Slotted
from nosana_operator.chain.watch.discovery import RunFinder
from nosana_operator.chain.watch.snapshot import Kind, Seen, SnapshotStore
from nosana_operator.chain.watch.subscriptions import (
    AccountTarget,
    RunsTarget,
    SlotTarget,
    Subscriptions,
    Target,
)

log = logging.getLogger(__name__)

OnChange = Callable[[Kind, str], None]
"""Called with what changed (`run`, `job` or `market`) and its address, in the event loop."""


_EXPECT_SECONDS: Final = 90.0
"""For how long a transaction can land after it was signed."""
_STEP_SECONDS: Final = 1.0
"""How soon a poll notices that its interval changed because the WebSocket died."""
_UNLISTED_SECONDS: Final = 60.0
"""How long listings may go without an answer before discovery replaces them (it begins with a thousand reads)."""
_FALSE_SLOT_SECONDS: Final = 60.0
"""A newest slot that holds for this long, while nodes show the present at older slots, was reported in error."""
_AHEAD_SLOTS: Final = 150
"""A minute of slots: no true report is this far ahead of a reading."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """Seconds between two polls of each kind: the longest delay of a change that the WebSocket does not report."""

    markets: float = 6.0
    jobs: float = 8.5
    jobs_followed: float = 25.0
    """For jobs while the WebSocket is subscribed to all of them."""
    runs: float = 90.0


@dataclass(slots=True)
class _Poll:
    """When one kind of account was last read, and with what result."""

    began: float
    tried_at: float | None = None
    succeeded_at: float | None = None
    problem: str | None = None
    """Why the last reading failed; None: it succeeded."""

    def due(self, interval: float, again: float) -> float:
        """When the next reading is due: after the interval, or sooner after a failure."""
        if self.tried_at is None:
            return self.began
        return self.tried_at + (interval if self.problem is None else min(interval, again))

    def overdue(self, interval: float, now: float) -> float:
        """Seconds by which a successful reading is overdue; negative before it is due."""
        return now - (self.began if self.succeeded_at is None else self.succeeded_at + interval)

    def tried(self, at: float, problem: str | None) -> None:
        """Record a reading that began at that time."""
        self.tried_at, self.problem = at, problem
        if problem is None:
            self.succeeded_at = at


class ChainWatcher:
    """Watches one network. `run` it as a task, set the accounts with `watch`, and read the snapshots.

    Args:
        rpc: the network's RPC, with one or two attempts: the next poll is the retry.
        ws_urls: WebSocket addresses in the order of preference; none: polling only.
        session: the caller's HTTP session.
        program: the Jobs program.
        chain_clock: gets a reading with every poll.
        settings: the intervals.
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
        self._dirty: set[AccountTarget | RunsTarget] = set()
        self._expected: dict[str, float] = {}
        self._candidates: set[str] = set()
        self._finding = asyncio.Lock()
        self._wake = asyncio.Event()
        self._polls: dict[Kind, _Poll] = {}
        self._slot = 0
        self._advanced_at = clock()
        self._unlisted_since: float | None = None
        self._logged_problem: str | None = None

    # the snapshots

    @property
    def runs(self) -> Mapping[str, Seen[Run]]:
        """Runs of the watched hosts by address; closed ones (value None) stay for a while."""
        return self._store.runs

    @property
    def jobs(self) -> Mapping[str, Seen[Job]]:
        """Watched jobs; missing: not read yet; value None: it does not exist on chain."""
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
        """Whether the WebSocket is connected and has sent a message."""
        return self._subscriptions is not None and self._subscriptions.connected

    @property
    def alive(self) -> bool:
        """Whether a message came on the WebSocket just now."""
        return self._subscriptions is not None and self._subscriptions.alive

    @property
    def followed(self) -> bool:
        """Whether the WebSocket is alive and subscribed to every watched account."""
        return self._subscriptions is not None and self._subscriptions.follows_accounts

    @property
    def staleness(self) -> float | None:
        """Seconds by which the snapshots may be behind the chain; None: `run` has not begun.

        The larger of the time since a node last showed a newer slot, and the time by which a successful reading
        is overdue.
        """
        if not self._polls:
            return None
        now = self._clock()
        overdue = (poll.overdue(self._interval(kind), now) for kind, poll in self._polls.items())
        return max(now - self._advanced_at, *overdue)

    @property
    def slot(self) -> int:
        """The newest slot that was read; 0: none yet."""
        return self._slot

    # for the callers

    def watch(self, *, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the set of accounts that are watched; new ones are read at once."""
        before = self._targets()
        self._store.watch(keys, jobs, markets)
        self._follow(self._targets() - before)

    def expect(self, key: str) -> None:
        """A `work` of this host was signed: list its runs often until it is seen in a queue or with a run."""
        self._expected[key] = self._clock() + _EXPECT_SECONDS

    def on_change(self, callback: OnChange) -> None:
        """Call `callback` on every change of a snapshot, the first reading included."""
        self._callbacks.append(callback)

    async def refresh_runs(self, key: str, *, not_before: int = 0) -> tuple[Run, ...]:
        """Read a watched host's runs now, at slot `not_before` or later.

        Raises:
            ChainUnavailable, RpcError: unknown; the node that answered may be behind that slot.
        """
        await self._read_all_runs([key], not_before)
        return self._store.runs_of(key) or ()

    async def refresh(self, addresses: Collection[str], *, not_before: int = 0) -> None:
        """Read these watched accounts now. Raises as `refresh_runs`."""
        await self._read_accounts([*addresses], not_before)

    async def run(self) -> None:
        """Watch until cancelled."""
        self._advanced_at = began = self._clock()
        self._polls = {"market": _Poll(began), "job": _Poll(began), "run": _Poll(began)}
        async with asyncio.TaskGroup() as tasks:
            for kind in self._polls:
                tasks.create_task(self._poll_kind(kind))
            tasks.create_task(self._catch_up())
            if self._subscriptions is not None:
                tasks.create_task(self._subscriptions.run())

    # polling

    def _interval(self, kind: Kind) -> float:
        if kind == "market":
            return self._settings.markets
        if kind == "run":
            return self._settings.runs
        return self._settings.jobs_followed if self.followed else self._settings.jobs

    async def _poll_kind(self, kind: Kind) -> None:
        """Read one kind of account at its interval."""
        poll = self._polls[kind]
        while True:
            now = self._clock()
            wait = poll.due(self._interval(kind), self._settings.markets) - now
            if wait > 0:
                await asyncio.sleep(min(wait, _STEP_SECONDS))
                continue
            poll.tried(now, await _failure_of(partial(self._read_kind, kind, now)))
            self._log_problem()

    async def _read_kind(self, kind: Kind, now: float) -> None:
        if kind == "run":
            # A listing covers the known runs of the hosts, so they are not read one by one.
            await self._read_all_runs(self._store.keys)
            return
        if kind == "market" and (expected := self._still_expected(now)):
            self._read_soon(RunsTarget(key) for key in expected)
        addresses = sorted(address for address, each in self._store.single_accounts.items() if each == kind)
        if addresses or kind == "market":
            await self._read_accounts(addresses, clock=kind == "market")

    async def _catch_up(self) -> None:
        """Read new and reported accounts at once, and again until that succeeds."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.markets if self._dirty else None):
                    await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = self._dirty & self._targets(), set()
            hosts = {target for target in dirty if isinstance(target, RunsTarget)}
            single = {target for target in dirty if isinstance(target, AccountTarget)}
            problems = await asyncio.gather(
                _failure_of(partial(self._read_all_runs, [target.node for target in hosts])),
                _failure_of(partial(self._read_accounts, sorted(target.address for target in single))),
            )
            # Not logged: the next poll fails the same way and logs it.
            if problems[0] is not None:
                self._dirty |= hosts
            if problems[1] is not None:
                self._dirty |= single

    def _log_problem(self) -> None:
        """Log when the chain becomes unreadable, and when it is readable again; not on every poll."""
        problem = next((poll.problem for poll in self._polls.values() if poll.problem is not None), None)
        if (problem is None) != (self._logged_problem is None):
            if problem is None:
                log.info("the chain can be read again")
            else:
                log.warning("the chain cannot be read: %s", problem)
        self._logged_problem = problem

    def _still_expected(self, now: float) -> set[str]:
        """Hosts whose `work` may have become a run that nothing else has shown yet."""
        self._expected = {
            key: until
            for key, until in self._expected.items()
            if now < until and key in self._store.keys and not self._store.is_queued(key)
        }
        return set(self._expected)

    async def _read_all_runs(self, keys: Collection[str], not_before: int = 0) -> None:
        """Read the runs of these hosts: by a listing, or by discovery where no node lists them."""
        if not keys:
            return
        try:
            await gather_limited(self._read_runs(key, not_before) for key in keys)
        except RpcError:
            pass
        except ChainUnavailable:
            if not self._unlistable():
                raise
        else:
            return
        async with self._finding:
            await self._find_runs(keys, not_before)

    def _unlistable(self) -> bool:
        """Whether listings fail for more than a moment."""
        if self._unlisted_since is None:
            return False
        # Some nodes refuse listings, and those that offer them may be unreachable for long.
        return (
            self._rpc.refuses("getProgramAccounts")
            or self._clock() - self._unlisted_since >= _UNLISTED_SECONDS
        )

    async def _find_runs(self, keys: Collection[str], not_before: int) -> None:
        """Read known runs and those that the markets' transactions name."""
        found = await self._finder.find(self._store.watched_markets)
        # The finder reports each address once, so they are kept until a reading succeeds.
        self._candidates |= found.runs
        known = {address for address, kind in self._store.single_accounts.items() if kind == "run"}
        # With the clock, so that there is an answer with a slot even when there are no runs.
        reply = await self._fetch(sorted(known | self._candidates), not_before, clock=True)
        self._candidates.clear()
        for address, info in reply.value.items():
            self._reported("run", address, reply.slot, info)
        if found.problem is not None:
            raise found.problem
        self._store.mark_listed(keys)

    async def _read_runs(self, key: str, not_before: int = 0) -> None:
        filters = (Memcmp(0, RUN_DISCRIMINATOR_BASE58), Memcmp(RUN_NODE_OFFSET, key))
        try:
            found = await self._rpc.program_accounts(self._program, filters, Confirmed, not_before=not_before)
        except NodeBehind:
            raise
        except ChainUnavailable:
            if self._unlisted_since is None:
                self._unlisted_since = self._clock()
            raise
        self._unlisted_since = None
        self._advance(found.slot)
        changed = self._store.report_runs(key, found.slot, found.value)
        if changed:
            self._expected.pop(key, None)
            self._follow(frozenset())
        for address in changed:
            self._notify("run", address)

    async def _read_accounts(
        self, addresses: Sequence[str], not_before: int = 0, *, clock: bool = False
    ) -> None:
        """Read these accounts; with `clock` the chain's clock too."""
        if not addresses and not clock:
            return
        found = await self._fetch(addresses, not_before, clock=clock)
        for address, info in found.value.items():
            self._reported(self._store.kind_of(address), address, found.slot, info)

    async def _fetch(
        self, addresses: Sequence[str], not_before: int, *, clock: bool
    ) -> Slotted[dict[str, AccountInfo | None]]:
        """Request these accounts; with `clock` record the chain's clock too."""
        requested = [*([CLOCK_SYSVAR] if clock else []), *addresses]
        reply = await self._rpc.accounts(requested, Confirmed, not_before=not_before)
        self._advance(reply.slot)
        sysvar = reply.value.pop(CLOCK_SYSVAR, None)
        if sysvar is not None:
            self._take_clock(decode_clock(sysvar.data)[1], reply.slot)
        return reply

    def _take_clock(self, chain_seconds: int, slot: int) -> None:
        """Record the chain's clock, and check whether the slots reported before can be true."""
        waited = self._clock() - self._advanced_at
        # A node that lags shows the past, which says nothing about the newest slot.
        if slot < self._slot and waited > _FALSE_SLOT_SECONDS and self._chain_clock.shows_now(chain_seconds):
            log.warning("the chain is at slot %d: a node reported slot %d in error", slot, self._slot)
            self._slot, self._advanced_at = slot, self._clock()
            self._chain_clock.forget_slot()
        beyond = self._slot + _AHEAD_SLOTS
        self._store.correct_slots(beyond, slot)
        self._finder.correct_slots(beyond)
        self._chain_clock.observe(chain_seconds, slot)

    def _advance(self, slot: int) -> None:
        if slot > self._slot:
            self._slot, self._advanced_at = slot, self._clock()

    # subscriptions

    def _targets(self) -> frozenset[AccountTarget | RunsTarget]:
        single = {AccountTarget(address) for address in self._store.single_accounts}
        return frozenset(single | {RunsTarget(key) for key in self._store.keys})

    def _follow(self, read: frozenset[AccountTarget | RunsTarget]) -> None:
        """Subscribe to the accounts that are watched now, and read some of them at once."""
        if self._subscriptions is not None:
            self._subscriptions.set_targets(self._targets())
        if read:
            self._read_soon(read)

    def _read_soon(self, targets: Iterable[AccountTarget | RunsTarget]) -> None:
        """Have these read by `_catch_up`, at once."""
        self._dirty.update(targets)
        self._wake.set()

    def _subscribed(self, target: Target) -> None:
        """Read the target: changes from before the subscription were not reported."""
        if not isinstance(target, SlotTarget):
            self._read_soon([target])

    def _notified(self, target: Target, address: str, slot: int, info: AccountInfo | None) -> None:
        # A host's subscription reports runs that are not known yet.
        found: Kind | None = "run" if isinstance(target, RunsTarget) else self._store.kind_of(address)
        self._reported(found, address, slot, info)

    def _reported(self, kind: Kind | None, address: str, slot: int, info: AccountInfo | None) -> None:
        if kind is None:
            return
        stood = self._store.queued_keys(address) if kind == "market" else frozenset()
        if not self._store.report(kind, address, slot, info):
            return
        if kind == "run":
            self._follow(frozenset())
        elif kind == "market":
            # A host that is no longer queued was matched or has left; a listing of its runs shows which.
            left = stood - self._store.queued_keys(address)
            self._follow(frozenset(RunsTarget(key) for key in left))
        self._notify(kind, address)

    def _notify(self, kind: Kind, address: str) -> None:
        for callback in self._callbacks:
            try:
                callback(kind, address)
            except Exception:  # one listener's bug must not stop the others
                log.exception("a listener to %s %s failed", kind, address)


async def _failure_of(reading: Callable[[], Awaitable[None]]) -> str | None:
    """Why that reading failed; None: it succeeded.

    Takes a function, not a coroutine: a task that is cancelled before it starts would never await it.
    """
    try:
        await reading()
    except ChainError as error:
        return str(error)
    return None
