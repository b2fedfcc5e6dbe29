"""All accounts of the chain, with the history that reading at each commitment needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from nosana_sandbox.program import Account

_Versions = list[tuple[int, "Account | None"]]


class AccountStore:
    """Accounts by slot. A version holds from its slot until the next version's slot.

    Versions older than what the finalized slot shows are dropped by `prune`, so an account that does not
    change costs one entry.
    """

    def __init__(self) -> None:
        self._versions: dict[Pubkey, _Versions] = {}
        self._by_owner: dict[Pubkey, set[Pubkey]] = defaultdict(set)
        self._changed: dict[int, dict[Pubkey, None]] = {}

    def get(self, key: Pubkey, slot: int) -> Account | None:
        """The account at the end of `slot`; None when it did not exist."""
        for since, account in reversed(self._versions.get(key, ())):
            if since <= slot:
                return account
        return None

    def put(self, key: Pubkey, account: Account | None, slot: int) -> None:
        """Write the account's state as of `slot`, which must not lie before its newest version."""
        versions = self._versions.setdefault(key, [])
        if versions and versions[-1][0] == slot:
            versions[-1] = (slot, account)
        else:
            versions.append((slot, account))
        if account is not None:
            self._by_owner[account.owner].add(key)
        self._changed.setdefault(slot, {})[key] = None

    def changed_in(self, slot: int) -> tuple[Pubkey, ...]:
        """The keys written in `slot`, in the order of their first change; empty once pruned."""
        return tuple(self._changed.get(slot, ()))

    def owned_by(self, owner: Pubkey, slot: int) -> Iterator[tuple[Pubkey, Account]]:
        """Every account that `owner` owned at the end of `slot`."""
        for key in sorted(self._by_owner.get(owner, ()), key=bytes):
            account = self.get(key, slot)
            if account is not None and account.owner == owner:
                yield key, account

    def roll_back(self, slot: int) -> None:
        """Drop everything written after `slot`."""
        for later in [s for s in self._changed if s > slot]:
            for key in self._changed.pop(later):
                versions = [each for each in self._versions.get(key, ()) if each[0] <= slot]
                if versions:
                    self._versions[key] = versions
                else:
                    self._versions.pop(key, None)

    def prune(self, finalized: int) -> None:
        """Drop versions that no reader at or after slot `finalized` can see."""
        for slot in [s for s in self._changed if s <= finalized]:
            for key in self._changed.pop(slot):
                self._prune_key(key, finalized)

    def _prune_key(self, key: Pubkey, finalized: int) -> None:
        versions = self._versions.get(key)
        if versions is None:
            return
        oldest_seen = max((i for i, (since, _) in enumerate(versions) if since <= finalized), default=0)
        dropped, kept = versions[:oldest_seen], versions[oldest_seen:]
        if len(kept) == 1 and kept[0][1] is None:
            dropped, kept = versions, []
        if kept:
            self._versions[key] = kept
        else:
            del self._versions[key]
        owners = {account.owner for _, account in kept if account is not None}
        for _, account in dropped:
            if account is not None and account.owner not in owners:
                self._by_owner[account.owner].discard(key)
