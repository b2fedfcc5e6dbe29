"""What was last seen of the watched accounts: state, never events.

Reports come from polls and notifications, late, doubled and out of order; a report counts only when its slot
is not older than what is known. So whoever reads the store sees each account's newest known state, whichever
way it came.
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
"""What an address that changed is."""

_TOMBSTONE_SECONDS: Final = 600.0
"""How long a closed run is remembered, so that no late report brings it back."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An account at a slot. `value` None: the chain says there is none. `at`: monotonic seconds."""

    value: T | None
    slot: int
    at: float


class SnapshotStore:
    """Runs of the watched keys, and the watched jobs and markets.

    Args:
        program: the Jobs program; an account of another owner is no job, run or market.
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
        self._wanted_jobs: frozenset[str] = frozenset()
        self._wanted_markets: frozenset[str] = frozenset()

    @property
    def keys(self) -> frozenset[str]:
        """Hosts whose runs are watched."""
        return self._keys

    @property
    def runs(self) -> Mapping[str, Seen[Run]]:
        """Runs by address, closed ones for a while."""
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
    def wanted(self) -> Mapping[str, Kind]:
        """The single accounts to keep up with: watched jobs and markets, and the live runs."""
        wanted: dict[str, Kind] = dict.fromkeys(self._wanted_jobs, "job")
        wanted.update(dict.fromkeys(self._wanted_markets, "market"))
        wanted.update({address: "run" for address, seen in self._runs.items() if seen.value is not None})
        return wanted

    @property
    def wanted_markets(self) -> frozenset[str]:
        """Markets to keep up with."""
        return self._wanted_markets

    def standing(self, market: str) -> frozenset[str]:
        """The watched hosts in a market's queue, as last seen."""
        seen = self._markets.get(market)
        if seen is None or seen.value is None or seen.value.queue_type != "Node":
            return frozenset()
        return self._keys.intersection(seen.value.queue)

    def stands(self, key: str) -> bool:
        """Whether a host stands in any watched market's queue, as last seen."""
        return any(key in self.standing(market) for market in self._markets)

    def kind_of(self, address: str) -> Kind | None:
        """What a watched address is; None: not watched singly."""
        if address in self._wanted_jobs:
            return "job"
        if address in self._wanted_markets:
            return "market"
        return "run" if address in self._runs else None

    def runs_of(self, key: str) -> tuple[Run, ...] | None:
        """The live runs of a host; None until the first answer."""
        if key not in self._listed:
            return None
        live = (seen.value for seen in self._runs.values())
        return tuple(run for run in live if run is not None and run.node == key)

    def watch(self, keys: Collection[str], jobs: Collection[str], markets: Collection[str]) -> None:
        """Replace what is watched; what is no longer watched is forgotten."""
        self._keys = frozenset(keys)
        self._wanted_jobs = frozenset(jobs)
        self._wanted_markets = frozenset(markets)
        self._listed &= self._keys
        self._jobs = {address: seen for address, seen in self._jobs.items() if address in self._wanted_jobs}
        self._markets = {
            address: seen for address, seen in self._markets.items() if address in self._wanted_markets
        }
        self._runs = {
            address: seen
            for address, seen in self._runs.items()
            if seen.value is None or seen.value.node in self._keys
        }

    def report(self, kind: Kind, address: str, slot: int, info: AccountInfo | None) -> bool:
        """Take a report on one account; True when it changed what is known."""
        if kind == "job":
            return address in self._wanted_jobs and self._take(self._jobs, Job.decode, address, slot, info)
        if kind == "market":
            return address in self._wanted_markets and self._take(
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
            # Somebody else's, or of a key that is watched no longer.
            del self._runs[address]
            return False
        return changed

    def report_runs(self, key: str, slot: int, found: Mapping[str, AccountInfo]) -> set[str]:
        """Take a whole listing of a host's runs; returns the addresses that changed.

        A run that was known before that slot and is not listed is closed: the only sign of it that
        subscriptions never give (docs/protocol/solana-rpc.md#closed-accounts).
        """
        if key not in self._keys:
            return set()
        changed = {address for address, info in found.items() if self.report("run", address, slot, info)}
        for address, seen in list(self._runs.items()):
            live_here = seen.value is not None and seen.value.node == key
            if live_here and address not in found and seen.slot < slot:
                self._runs[address] = Seen(None, slot, self._clock())
                changed.add(address)
        self._listed.add(key)
        self._bury()
        return changed

    def list_found(self, keys: Collection[str]) -> None:
        """All runs of these hosts have been reported one by one, as far as they can be found."""
        self._listed |= self._keys.intersection(keys)
        self._bury()

    def correct_slots(self, beyond: int, slot: int) -> None:
        """What was reported at slots that the chain has not reached counts as of `slot`."""
        _correct_slots(self._runs, beyond, slot)
        _correct_slots(self._jobs, beyond, slot)
        _correct_slots(self._markets, beyond, slot)

    def _bury(self) -> None:
        """Forget the runs that closed long ago."""
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
        known = store.get(address)
        if known is not None and slot < known.slot:
            return False
        # A closed account that got lamports again belongs to the System program.
        exists = info is not None and info.owner == self._program
        try:
            value = decode(address, info.data) if info is not None and exists else None
        except AccountMalformed as error:
            log.warning("account ignored: %s", error)
            return False
        store[address] = Seen(value, slot, self._clock())
        return known is None or known.value != value


def _correct_slots(store: dict[str, Seen[T]], beyond: int, slot: int) -> None:
    for address, seen in store.items():
        if seen.slot > beyond:
            store[address] = replace(seen, slot=slot)
