"""Runs one instruction of the Jobs program on a set of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from solders.pubkey import Pubkey

from nosana_sandbox.program.types import Account, Custom, Instruction, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

PROGRAM_ID: Final = Pubkey.from_string("nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR")


def execute(instruction: Instruction, accounts: Mapping[Pubkey, Account], clock: int) -> Result:
    """Execute one top-level instruction of the Jobs program, all of it or nothing.

    `accounts` holds the accounts that exist among those the instruction names (others may be there and are
    not looked at); `clock` is the chain's unix time in seconds. Never raises for anything the instruction
    does wrong: that is a `Result` with `ok=False`.
    """
    _ = (accounts, clock)
    return Result(
        ok=False, error=Custom(101), log_error=None, logs=(f"Program {instruction.program_id} invoke [1]",)
    )
