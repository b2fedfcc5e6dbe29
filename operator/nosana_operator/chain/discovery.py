"""Finding runs where the nodes refuse getProgramAccounts: in the transactions of the markets.

A run is made by `list`, `assign` or `work`, and each of them names both the market and the run account
(`onchain.md` §3). So the markets' histories name every address at which a run of ours can be; what stands
there is read from the accounts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from solana.rpc.commitment import Confirmed
from solders.transaction import VersionedTransaction

from nosana_operator.chain.errors import ChainUnavailable
from nosana_operator.chain.program import run_positions
from nosana_operator.chain.rpc import MAX_HISTORY, Rpc
from nosana_operator.chain.together import all_of

_MOST_PAGES: Final = 5
"""Pages of a market's history between two looks. The node may not know the transaction that was read last any
more, and would go on to the market's beginning."""


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


@dataclass(slots=True)
class _History:
    """How far a market's transactions were read."""

    newest: str | None = None
    unread: dict[str, None] = field(default_factory=dict)
    """Signatures that were told, but whose transaction no node has given yet."""
    named: set[str] = field(default_factory=set)
    """Run accounts of transactions that were read, not handed out yet."""


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

    async def find(self, markets: Collection[str]) -> set[str]:
        """Addresses at which a run may have been made since the last call that succeeded.

        Raises:
            ChainUnavailable, RpcError: not everything could be read; the next call reads it again.
        """
        for gone in self._histories.keys() - set(markets):
            del self._histories[gone]
        for market in markets:
            await self._read(market, self._histories.setdefault(market, _History()))
        found: set[str] = set()
        for history in self._histories.values():
            found |= history.named
            history.named = set()
        return found

    async def _read(self, market: str, history: _History) -> None:
        for signature in await self._told_since(market, history):
            history.unread[signature] = None

        async def one(signature: str) -> None:
            raw = await self._rpc.transaction(signature, Confirmed)
            if raw is None:
                raise ChainUnavailable("The RPC node does not have a market's newest transaction yet.")
            history.named |= runs_named_by(raw, self._program)
            del history.unread[signature]

        await all_of(one(signature) for signature in [*history.unread])

    async def _told_since(self, market: str, history: _History) -> list[str]:
        """Successful transactions of a market after the last one told; the first time, the newest ones."""
        told: list[str] = []
        newest = before = None
        for _page in range(1 if history.newest is None else _MOST_PAGES):
            entries = await self._rpc.signatures_of(market, Confirmed, until=history.newest, before=before)
            if not entries:
                break
            newest = newest or entries[0].signature
            before = entries[-1].signature
            told += [entry.signature for entry in entries if entry.err is None]
            if len(entries) < MAX_HISTORY:
                break
        history.newest = newest or history.newest
        return told
