"""The last state of each watched account, never events.

Reports come from polls and notifications: late, doubled and out of order. A report counts only when its slot is
not older than the last one, so readers see the newest known state of each account, wherever it came from.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, TypeVar

from nosana_operator.chain.accounts import Job, Market, Run
from nosana_operator.chain.errors import AccountMalformed
from nosana_operator.chain.rpc.wire import AccountInfo

log = logging.getLogger(__name__)

T = TypeVar("T")
Kind = Literal["run", "job", "market"]
"""The kind of account at an address."""

_TOMBSTONE_SECONDS: Final = 600.0
"""How long a closed run is remembered, so that no late report resurrects it."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An account at a slot. `value` None: it does not exist on chain. `at`: monotonic seconds."""

    value: T | None
    slot: int
    at: float


class SnapshotStore:
    """Runs of the watched keys, and the watched jobs and markets.

    Args:
        program: the Jobs program; an account of another owner is not a job, run or market.
        clock: monotonic seconds.
    """

    def __init__(self, program: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._program = program
        self._clock = clock
        self._keys: frozenset[str] = frozenset()
        self._listed: set[str] = set()
        self._runs: dict[str, Seen[Run]] = {}
        self._jobs: dict[str, Seen[Job]] = {}
        self._markets: dict[str, Seen[Market]] = {}
        self._watched_jobs: frozenset[str] = frozenset()
        self._watched_markets: frozenset[str] = frozenset()

    @property
    def keys(self) -> frozenset[str]:
        """Hosts whose runs are watched."""
        return self._keys

    @property
    def runs(self) -> Mapping[str, Seen[Run]]:
        """Runs by address; closed ones stay for a while."""
        return self._runs

    @property
    def jobs(self) -> Mapping[str, Seen[Job]]:
        """Jobs by address; missing: not read yet."""
        return self._jobs

    @property
    def markets(self) -> Mapping[str, Seen[Market]]:
        """Markets by address; missing: not read yet."""
        return self._markets

    @property
    def single_accounts(self) -> Mapping[str, Kind]:
        """The accounts that are read one by one: watched jobs and markets, and live runs."""
        accounts: dict[str, Kind] = dict.fromkeys(self._watched_jobs, "job")
        accounts.update(dict.fromkeys(self._watched_markets, "market"))
        accounts.update({address: "run" for address, seen in self._runs.items() if seen.value is not None})
        return accounts

    @property
    def watched_markets(self) -> frozenset[str]:
        """The watched markets."""
        return self._watched_markets

    def queued_keys(self, market: str) -> frozenset[str]:
        """The watched hosts in a market's queue, as last read."""
        seen = self._markets.get(market)
        if seen is None or seen.value is None or seen.value.queue_type != "Node":
            return frozenset()
        return self._keys.intersection(seen.value.queue)

    def is_queued(self, key: str) -> bool:
        """Whether a host is in any watched market's queue, as last read."""
        return any(key in self.queued_keys(market) for market in self._markets)

    def kind_of(self, address: str) -> Kind | None:
        """The kind of a watched address; None: it is not read by itself."""
        if address in self._watched_jobs:
            return "job"
        if address in self._watched_markets:
            return "market"
        return "run" if address in self._runs else None

    def runs_of(self, key: str) -> tuple[Run, ...] | None:
        """The live runs of a host; None until the first answer."""
        if key not in self._listed:
            return None
        live = (seen.value for seen in self._runs.values())
        return tuple(run for run in live if run is not None and run.node == key)

    def watch(self, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace the watched set; accounts that leave it are forgotten."""
        self._keys = frozenset(keys)
        self._watched_jobs = frozenset(jobs)
        self._watched_markets = frozenset(markets)
        self._listed &= self._keys
        self._jobs = {address: seen for address, seen in self._jobs.items() if address in self._watched_jobs}
        self._markets = {
            address: seen for address, seen in self._markets.items() if address in self._watched_markets
        }
        self._runs = {
            address: seen
            for address, seen in self._runs.items()
            if seen.value is None or seen.value.node in self._keys
        }

    def report(self, kind: Kind, address: str, slot: int, info: AccountInfo | None) -> bool:
        """Record a report on one account; True when its state changed."""
        if kind == "job":
            return address in self._watched_jobs and self._take(self._jobs, Job.decode, address, slot, info)
        if kind == "market":
            return address in self._watched_markets and self._take(
                self._markets, Market.decode, address, slot, info
            )
        known = self._runs.get(address)
        if known is None and info is None:
            return False
        changed = self._take(self._runs, Run.decode, address, slot, info)
        taken = self._runs.get(address)
        if (
            known is None
            and taken is not None
            and (taken.value is None or taken.value.node not in self._keys)
        ):
            # It is another host's, or its key is no longer watched.
            del self._runs[address]
            return False
        return changed

    def report_runs(self, key: str, slot: int, found: Mapping[str, AccountInfo]) -> set[str]:
        """Record a complete listing of a host's runs; returns the addresses that changed.

        A known run that is missing from a newer listing is closed, which subscriptions never report
        (docs/protocol/solana-rpc.md#closed-accounts).
        """
        if key not in self._keys:
            return set()
        changed = {address for address, info in found.items() if self.report("run", address, slot, info)}
        for address, seen in list(self._runs.items()):
            is_live = seen.value is not None and seen.value.node == key
            if is_live and address not in found and seen.slot < slot:
                self._runs[address] = Seen(None, slot, self._clock())
                changed.add(address)
        self._listed.add(key)
        self._forget_closed()
        return changed

    def mark_listed(self, keys: Collection[str]) -> None:
        """Record that all runs of these hosts that can be discovered have been reported one by one."""
        self._listed |= self._keys.intersection(keys)
        self._forget_closed()

    def correct_slots(self, beyond: int, slot: int) -> None:
        """Treat reports of slots after `beyond`, which the chain has not reached, as reports of `slot`."""
        _correct_slots(self._runs, beyond, slot)
        _correct_slots(self._jobs, beyond, slot)
        _correct_slots(self._markets, beyond, slot)

    def _forget_closed(self) -> None:
        """Forget runs that closed long ago."""
        before = self._clock() - _TOMBSTONE_SECONDS
        self._runs = {
            address: seen
            for address, seen in self._runs.items()
            if seen.value is not None or seen.at >= before
        }

    def _take(
        self,
        store: dict[str, Seen[T]],
        decode: Callable[[str, bytes], T],
        address: str,
        slot: int,
        info: AccountInfo | None,
    ) -> bool:
        last = store.get(address)
        if last is not None and slot < last.slot:
            return False
        # A closed account that receives lamports again belongs to the System program.
        exists = info is not None and info.owner == self._program
        try:
            value = decode(address, info.data) if info is not None and exists else None
        except AccountMalformed as error:
            log.warning("account ignored: %s", error)
            return False
        store[address] = Seen(value, slot, self._clock())
        return last is None or last.value != value


def _correct_slots(store: dict[str, Seen[T]], beyond: int, slot: int) -> None:
    for address, seen in store.items():
        if seen.slot > beyond:
            store[address] = replace(seen, slot=slot)
