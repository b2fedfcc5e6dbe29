"""Finds runs where no node offers getProgramAccounts, by reading the transactions of the markets.

`list`, `assign` and `work` create runs, and each of them names both the market and the run account
(docs/protocol/jobs-program.md#instructions). So the markets' histories name every address at which a run of ours can
be; the accounts there are then read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from solana.rpc.commitment import Confirmed
from solders.transaction import VersionedTransaction

from nosana_operator.chain.concurrency import gather_limited
from nosana_operator.chain.errors import ChainError, ChainUnavailable, RpcError
from nosana_operator.chain.program import run_positions
from nosana_operator.chain.rpc.methods import MAX_HISTORY, MAX_SIGNATURES, Rpc

log = logging.getLogger(__name__)

_MOST_PAGES: Final = 5
"""Pages of a market's history that one call reads."""
_FINALIZED_SLOTS: Final = 64
"""After this many slots a confirmed transaction is finalized, or a fork has dropped it. A history that is listed
again (because the node does not know `until`) is not followed further back."""
_GIVE_UP_SLOTS: Final = 1500
"""Ten minutes of slots: a transaction that no node returns for so long, while later ones are returned, is skipped."""
_UNKNOWN_VERSION: Final = -32015
"""JSON-RPC code: the transaction has a version that we did not request."""


def runs_named_by(raw: bytes, program: str) -> set[str]:
    """The run accounts that a transaction's `list`, `assign` and `work` instructions name."""
    try:
        message = VersionedTransaction.from_bytes(raw).message
    except ValueError:
        # A transaction version that we do not know: Nosana's clients send none.
        return set()
    keys = [str(key) for key in message.account_keys]
    named: set[str] = set()
    for instruction in message.instructions:
        position = run_positions().get(bytes(instruction.data[:8]))
        accounts = instruction.accounts
        if position is None or position >= len(accounts):
            continue
        # An index beyond the keys refers to a lookup table, which cannot contain a new account.
        index = accounts[position]
        if index < len(keys) and keys[instruction.program_id_index : instruction.program_id_index + 1] == [
            program
        ]:
            named.add(keys[index])
    return named


@dataclass(frozen=True, slots=True)
class Discovered:
    """The result of reading the markets' transactions.

    `runs`: addresses at which a run may have been created since the last call. `problem`: why there may be more;
    None when everything was read.
    """

    runs: frozenset[str]
    problem: ChainError | None


@dataclass(slots=True)
class _History:
    """How far a market's transactions have been read."""

    newest: int = 0
    """The newest slot that any node listed; a node that lags never moves it back."""
    until: str | None = None
    """The newest finalized signature: no fork moves it."""
    listed: dict[str, int] = field(default_factory=dict)
    """Signature → slot of transactions after `until`, which every call lists again."""
    unread: dict[str, int] = field(default_factory=dict)
    """Signature → slot of transactions that were listed, but that no node has returned yet."""
    read: int = 0
    """The newest slot with a transaction that was read."""


class RunFinder:
    """Reads the markets' histories, each call from where the last one ended; one call at a time.

    Args:
        rpc: the network's RPC.
        program: the Jobs program.
    """

    def __init__(self, rpc: Rpc, program: str) -> None:
        self._rpc = rpc
        self._program = program
        self._histories: dict[str, _History] = {}

    async def find(self, markets: Collection[str]) -> Discovered:
        """Read these markets' histories further. The next call reads what this one could not."""
        for gone in self._histories.keys() - set(markets):
            del self._histories[gone]
        runs: set[str] = set()
        problems: list[ChainError] = []
        for market in markets:
            history = self._histories.setdefault(market, _History())
            try:
                await self._read_on(market, history, runs)
            except ChainError as error:
                problems.append(error)
        return Discovered(frozenset(runs), problems[0] if problems else None)

    def correct_slots(self, beyond: int) -> None:
        """Forget what was listed at slots after `beyond`: the chain has not reached them."""
        for history in self._histories.values():
            if history.newest > beyond:
                history.newest = 0
            history.unread = {signature: min(slot, beyond) for signature, slot in history.unread.items()}

    async def _read_on(self, market: str, history: _History, runs: set[str]) -> None:
        """Add to `runs` those that the market's new transactions name. Raises ChainError when some were not read."""
        history.unread |= await self._new_transactions(market, history)
        problems: dict[str, ChainError] = {}

        async def one(signature: str, slot: int) -> None:
            try:
                raw = await self._rpc.transaction(signature, Confirmed)
            except ChainError as error:
                if not isinstance(error, RpcError) or error.code != _UNKNOWN_VERSION:
                    problems[signature] = error
                    return
                raw = b""
            if raw is not None:
                runs.update(runs_named_by(raw, self._program))
                history.read = max(history.read, slot)
                del history.unread[signature]

        await gather_limited(one(*entry) for entry in [*history.unread.items()])
        await self._give_up(market, history)
        if history.unread:
            errors = (problems[signature] for signature in history.unread if signature in problems)
            raise next(
                errors, ChainUnavailable("The RPC node does not have a market's newest transaction yet.")
            )

    async def _give_up(self, market: str, history: _History) -> None:
        """Skip transactions that are not on chain, or that no node has any longer."""
        missing = [*history.unread][:MAX_SIGNATURES]
        if not missing:
            return
        statuses = await self._rpc.signature_statuses(missing)
        for signature, status in zip(missing, statuses.value, strict=True):
            slot = history.unread[signature]
            # The age is by the slot of the node that answered: a node that lags proves nothing.
            age = statuses.slot - slot
            if status is None and age > _FINALIZED_SLOTS:
                del history.unread[signature]
            elif age > _GIVE_UP_SLOTS and history.read > slot:
                log.warning("no RPC node returns transaction %s of market %s: skipped", signature, market)
                del history.unread[signature]

    async def _new_transactions(self, market: str, history: _History) -> dict[str, int]:
        """Slots of the successful transactions of a market that were not listed before, by signature.

        The first call takes the newest page only.
        """
        oldest = history.newest - _FINALIZED_SLOTS
        new: dict[str, int] = {}
        newest, before = history.newest, None
        for _page in range(_MOST_PAGES if history.newest else 1):
            entries = await self._rpc.signatures_of(market, Confirmed, until=history.until, before=before)
            if not entries:
                break
            newest = max(newest, entries[0].slot)
            before = entries[-1].signature
            for entry in entries:
                # A transaction that a fork dropped may land again in another slot.
                listed = history.listed.get(entry.signature) == entry.slot or entry.slot < oldest
                if entry.err is None and not listed:
                    new[entry.signature] = entry.slot
            if len(entries) < MAX_HISTORY or entries[-1].slot < oldest:
                break
        history.newest = newest
        history.listed |= new
        final = [
            (slot, signature)
            for signature, slot in history.listed.items()
            if slot < newest - _FINALIZED_SLOTS
        ]
        if final:
            history.until = max(final)[1]
        for _slot, signature in final:
            del history.listed[signature]
        return new
