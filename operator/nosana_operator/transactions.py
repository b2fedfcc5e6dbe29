"""The kinds of transactions that a host signs, each named after its instruction of the Jobs program.

(docs/protocol/jobs-program.md#instructions)
"""

from __future__ import annotations

from typing import Final, Literal, get_args

SettlementKind = Literal["finish", "complete", "quit"]
"""What closes a run: with a result, after the owner's `end`, or giving it back."""
TransactionKind = Literal["work", "stop", "finish", "complete", "quit"]
"""Everything that the operator signs."""
TRANSACTION_KINDS: Final[tuple[TransactionKind, ...]] = get_args(TransactionKind)
PAID_SETTLEMENTS: Final[tuple[SettlementKind, ...]] = ("finish", "complete")
"""After these the host has been paid for the run: by `finish` itself, or by the owner's `end` before `complete`."""
PAYING_INSTRUCTIONS: Final = ("finish", "end")
"""Those that move the pay from the vault: the host's, and the job owner's."""
HOST_INSTRUCTIONS: Final = frozenset({*TRANSACTION_KINDS, "claim"})
"""Those that a host signs as `authority`. The operator never signs `claim`; another program with the key may."""
