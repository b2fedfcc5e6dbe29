"""Stand-ins for the Nosana Jobs program, the sandbox chain's oracle, written from its recorded behaviour, and
for the staking program.

`execute` is pure: one instruction, the accounts it names, and the chain's clock go in; what changed comes
out. Nothing here knows of transactions, fees, signatures or blocks.
"""

from nosana_sandbox.program.machine import PROGRAM_ID, execute, execute_staking
from nosana_sandbox.program.types import (
    Account,
    AccountMeta,
    Custom,
    Instruction,
    InstructionError,
    Result,
)

__all__ = [
    "PROGRAM_ID",
    "Account",
    "AccountMeta",
    "Custom",
    "Instruction",
    "InstructionError",
    "Result",
    "execute",
    "execute_staking",
]
