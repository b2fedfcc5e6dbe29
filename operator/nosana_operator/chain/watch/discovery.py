"""Finding runs where the nodes refuse getProgramAccounts: in the transactions of the markets.

A run is made by `list`, `assign` or `work`, and each of them names both the market and the run account
(docs/protocol/jobs-program.md#instructions). So the markets' histories name every address at which a run of ours
can be; what stands there is read from the accounts.
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
"""Pages of a market's history between two looks."""
_FINALIZED_SLOTS: Final = 64
"""So many slots later, what was confirmed is finalized, or was taken back by a fork. A history that is told again
(its node does not know the transaction that was told last) is not followed further back."""
_PATIENCE_SLOTS: Final = 1500
"""Ten minutes of slots: a transaction that no node has given by then, while it gave later ones, is given up."""
_UNKNOWN_VERSION: Final = -32015
"""JSON-RPC code: the transaction is of a version that we did not ask for."""


def runs_named_by(raw: bytes, program: str) -> set[str]:
    """The run accounts that a transaction's `list`, `assign` and `work` instructions name."""
    try:
        message = VersionedTransaction.from_bytes(raw).message
    except ValueError:
        # Of a version that is not known here: nothing of Nosana's clients.
        return set()
    keys = [str(key) for key in message.account_keys]
    named: set[str] = set()
    for instruction in message.instructions:
        position = run_positions().get(bytes(instruction.data[:8]))
        accounts = instruction.accounts
        if position is None or position >= len(accounts):
            continue
        # An index beyond the keys names an address of a lookup table: new accounts cannot be in one.
        index = accounts[position]
        if index < len(keys) and keys[instruction.program_id_index : instruction.program_id_index + 1] == [
            program
        ]:
            named.add(keys[index])
    return named


@dataclass(frozen=True, slots=True)
class Found:
    """What the markets' transactions tell.

    `runs`: addresses at which a run may have been made since the last call. `problem`: why there may be more;
    None when everything was read.
    """

    runs: frozenset[str]
    problem: ChainError | None


@dataclass(slots=True)
class _History:
    """How far a market's transactions were read."""

    newest: int = 0
    """The newest slot that was told by any node; one that lags never moves it back."""
    until: str | None = None
    """The newest signature that is finalized: no fork moves it."""
    told: dict[str, int] = field(default_factory=dict)
    """Signature → slot of what was told after it, and is told again by every look."""
    unread: dict[str, int] = field(default_factory=dict)
    """Signature → slot of transactions that were told, but that no node has given yet."""
    read: int = 0
    """The newest slot of which a transaction was read."""


class RunFinder:
    """Reads on in the markets' histories from call to call; one call at a time.

    Args:
        rpc: the network's RPC.
        program: the Jobs program.
    """

    def __init__(self, rpc: Rpc, program: str) -> None:
        self._rpc = rpc
        self._program = program
        self._histories: dict[str, _History] = {}

    async def find(self, markets: Collection[str]) -> Found:
        """Read on in these markets' histories. What could not be read now is read by the next call."""
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
        return Found(frozenset(runs), problems[0] if problems else None)

    def correct_slots(self, beyond: int) -> None:
        """Take it that nothing was told at slots after `beyond`: the chain has not reached them."""
        for history in self._histories.values():
            if history.newest > beyond:
                history.newest = 0
            history.unread = {signature: min(slot, beyond) for signature, slot in history.unread.items()}

    async def _read_on(self, market: str, history: _History, runs: set[str]) -> None:
        """Add to `runs` what the market's new transactions name. Raises ChainError when not all could be read."""
        history.unread |= await self._told_since(market, history)
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
            said = (problems[signature] for signature in history.unread if signature in problems)
            raise next(
                said, ChainUnavailable("The RPC node does not have a market's newest transaction yet.")
            )

    async def _give_up(self, market: str, history: _History) -> None:
        """Drop what was not given because it is not on the chain, or because no node has it any more."""
        missing = [*history.unread][:MAX_SIGNATURES]
        if not missing:
            return
        statuses = await self._rpc.signature_statuses(missing)
        for signature, status in zip(missing, statuses.value, strict=True):
            slot = history.unread[signature]
            # The slot is of the node that says so: one that lags proves nothing.
            age = statuses.slot - slot
            if status is None and age > _FINALIZED_SLOTS:
                del history.unread[signature]
            elif age > _PATIENCE_SLOTS and history.read > slot:
                log.warning("no RPC node gives transaction %s of market %s: not read", signature, market)
                del history.unread[signature]

    async def _told_since(self, market: str, history: _History) -> dict[str, int]:
        """Slots of the successful transactions of a market that were not told yet, by signature.

        The first time, of the newest ones.
        """
        oldest = history.newest - _FINALIZED_SLOTS
        told: dict[str, int] = {}
        newest, before = history.newest, None
        for _page in range(_MOST_PAGES if history.newest else 1):
            entries = await self._rpc.signatures_of(market, Confirmed, until=history.until, before=before)
            if not entries:
                break
            newest = max(newest, entries[0].slot)
            before = entries[-1].signature
            for entry in entries:
                # Taken back by a fork, it may land again in another slot.
                known = history.told.get(entry.signature) == entry.slot or entry.slot < oldest
                if entry.err is None and not known:
                    told[entry.signature] = entry.slot
            if len(entries) < MAX_HISTORY or entries[-1].slot < oldest:
                break
        history.newest = newest
        history.told |= told
        final = [
            (slot, signature) for signature, slot in history.told.items() if slot < newest - _FINALIZED_SLOTS
        ]
        if final:
            history.until = max(final)[1]
        for _slot, signature in final:
            del history.told[signature]
        return told
