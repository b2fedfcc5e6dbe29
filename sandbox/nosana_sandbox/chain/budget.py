"""Compute budget and fees of a transaction: what it asks for and what it pays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from nosana_sandbox.chain.errors import TransactionRejected
from nosana_sandbox.program import Instruction

COMPUTE_BUDGET_PROGRAM: Final = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
LAMPORTS_PER_SIGNATURE: Final = 5_000
COMPUTE_BUDGET_UNITS: Final = 150
"""Compute units one compute-budget instruction uses."""

_MAX_UNITS: Final = 1_400_000
_DEFAULT_UNITS: Final = 200_000
_DEFAULT_BUILTIN_UNITS: Final = 3_000
_BUILTINS: Final = frozenset(
    Pubkey.from_string(text)
    for text in (
        "11111111111111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "Vote111111111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "AddressLookupTab1e1111111111111111111111111",
    )
)


@dataclass(frozen=True, slots=True)
class Budget:
    """Compute units the transaction may use and its price in micro-lamports per unit."""

    units: int
    price: int

    @property
    def priority_fee(self) -> int:
        """Lamports, on the *limit* and not on what is used, rounded up."""
        return -(-self.units * self.price // 1_000_000)

    def fee(self, signatures: int) -> int:
        """Lamports the fee payer pays, whatever becomes of the transaction."""
        return LAMPORTS_PER_SIGNATURE * signatures + self.priority_fee


def budget_of(instructions: Sequence[Instruction]) -> Budget:
    """Read the compute-budget instructions; TransactionRejected when one is doubled or unreadable."""
    units: int | None = None
    price = 0
    seen: set[int] = set()
    for index, instruction in enumerate(instructions):
        if instruction.program_id != COMPUTE_BUDGET_PROGRAM:
            continue
        kind, value = _parse(index, instruction.data)
        if kind in seen:
            raise TransactionRejected({"DuplicateInstruction": index})
        seen.add(kind)
        if kind == 2:
            units = min(value, _MAX_UNITS)
        elif kind == 3:
            price = value
    if units is None:
        units = min(sum(_default_units(ix.program_id) for ix in instructions), _MAX_UNITS)
    return Budget(units, price)


def _default_units(program: Pubkey) -> int:
    return _DEFAULT_BUILTIN_UNITS if program in _BUILTINS else _DEFAULT_UNITS


def _parse(index: int, data: bytes) -> tuple[int, int]:
    # 1 heap frame u32, 2 unit limit u32, 3 unit price u64, 4 loaded accounts' data size u32
    layout = {1: "<I", 2: "<I", 3: "<Q", 4: "<I"}.get(data[0] if data else 0)
    if layout is None or len(data) < 1 + struct.calcsize(layout):
        raise TransactionRejected({"InstructionError": [index, "InvalidInstructionData"]})
    return data[0], struct.unpack_from(layout, data, 1)[0]
