"""Compute units of the Jobs program, which the stand-in does not measure.

(docs/protocol/jobs-program.md#compute-units)

The table is what clients budget by: measured on the real program, plus a fifth. Its figures are for short
queues; walking a queue costs more per entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from solders.pubkey import Pubkey

from nosana_sandbox.program import Account, Instruction

_MEASURED: Final = {
    "open": 37_000,
    "list": 23_000,
    "assign": 30_000,
    "work": 17_000,
    "complete": 5_000,
    "finish": 17_000,
    "quit": 7_000,
    "stop": 5_000,
    "extend": 17_000,
    "delist": 13_000,
    "close": 26_000,
    "end": 16_000,
}
_OTHERS: Final = 17_000
_PER_QUEUE_ENTRY: Final = 131
_MARKET: Final = bytes.fromhex("c94ebbe1f0c6c9fb")
_QUEUE_LENGTH: Final = slice(147, 151)
_BY_DISCRIMINATOR: Final = {
    hashlib.sha256(f"global:{name}".encode()).digest()[:8]: units for name, units in _MEASURED.items()
}


def units_of(instruction: Instruction, accounts: Mapping[Pubkey, Account]) -> int:
    """Compute units this instruction takes, given the accounts before it."""
    units = _BY_DISCRIMINATOR.get(instruction.data[:8], _OTHERS)
    for meta in instruction.accounts:
        account = accounts.get(meta.pubkey)
        if account is not None and account.data[:8] == _MARKET:
            units += _PER_QUEUE_ENTRY * int.from_bytes(account.data[_QUEUE_LENGTH], "little")
            break
    return units
