"""What goes into one instruction of the stand-in and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solders.pubkey import Pubkey


@dataclass(frozen=True, slots=True)
class AccountMeta:
    """One account reference of an instruction, with the privileges the transaction grants it."""

    pubkey: Pubkey
    is_signer: bool
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One top-level instruction; `data` starts with the program's 8-byte discriminator."""

    program_id: Pubkey
    accounts: tuple[AccountMeta, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """An account's state. One that does not exist is absent from the mapping, not an empty `Account`."""

    lamports: int
    owner: Pubkey
    data: bytes = b""
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Custom:
    """A program's own error number, as in `{"Custom": 6000}` of an RPC answer."""

    code: int


InstructionError = Custom | str
"""`Custom(n)`, or the name of the runtime's error as an RPC answer spells it (`"PrivilegeEscalation"`)."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an instruction did: all of it, or nothing.

    `changed` holds every account whose lamports, owner or data differ afterwards; `None` is a closed one.
    It is empty when `ok` is false. `log_error` is `Error Code: X. Error Number: N` of the AnchorError line,
    None where there is none (errors of the System and Token programs, privilege checks, panics): two error
    enums share the same numbers, and only this text tells them apart
    (docs/protocol/jobs-program.md#error-names).
    """

    ok: bool
    error: InstructionError | None
    log_error: str | None
    logs: tuple[str, ...]
    changed: dict[Pubkey, Account | None] = field(default_factory=dict)
    calls: tuple[Instruction, ...] = ()
    """What it called in other programs."""
