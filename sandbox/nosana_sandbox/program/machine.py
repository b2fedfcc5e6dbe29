"""Runs one instruction of the Jobs or the staking program on a set of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nosana_sandbox.program.addresses import JOBS_PROGRAM, STAKING_PROGRAM
from nosana_sandbox.program.anchor import bind, write_back
from nosana_sandbox.program.failure import Code, ProgramFailure, anchor_error, describe
from nosana_sandbox.program.frame import Frame
from nosana_sandbox.program.instructions import BY_DISCRIMINATOR
from nosana_sandbox.program.staking import STAKING_BY_DISCRIMINATOR
from nosana_sandbox.program.types import Account, Instruction, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solders.pubkey import Pubkey

    from nosana_sandbox.program.spec import Argument, Spec

PROGRAM_ID: Final = JOBS_PROGRAM

_DISCRIMINATOR_LENGTH: Final = 8
_ARGUMENT_LENGTHS: Final = {"u8": 1, "u64": 8, "i64": 8, "u128": 16, "bytes32": 32}


def execute(instruction: Instruction, accounts: Mapping[Pubkey, Account], clock: int) -> Result:
    """Execute one top-level instruction of the Jobs program, all of it or nothing.

    `accounts` holds the accounts that exist among those the instruction names (others may be there and are
    not looked at); `clock` is the chain's unix time in seconds. Never raises for anything the instruction
    does wrong: that is a `Result` with `ok=False`. The programs it calls (System, Token, rewards) are taken
    to be there.
    """
    return _execute(PROGRAM_ID, BY_DISCRIMINATOR, instruction, accounts, clock)


def execute_staking(instruction: Instruction, accounts: Mapping[Pubkey, Account], clock: int) -> Result:
    """Execute one top-level instruction of the staking program, as `execute`."""
    return _execute(STAKING_PROGRAM, STAKING_BY_DISCRIMINATOR, instruction, accounts, clock)


def _execute(
    program: Pubkey,
    specs: Mapping[bytes, Spec],
    instruction: Instruction,
    accounts: Mapping[Pubkey, Account],
    clock: int,
) -> Result:
    frame = Frame(instruction, accounts)
    frame.log.append(f"Program {program} invoke [1]")
    try:
        _run(frame, specs, instruction, clock)
        changed = frame.changes()
    except ProgramFailure as failure:
        last = f"Program {program} failed: {describe(failure.error)}"
        return Result(
            ok=False, error=failure.error, log_error=failure.log_error, logs=(*frame.log, *failure.log, last)
        )
    frame.log.append(f"Program {program} success")
    return Result(
        ok=True,
        error=None,
        log_error=None,
        logs=tuple(frame.log),
        changed=changed,
        calls=tuple(frame.calls),
    )


def _run(frame: Frame, specs: Mapping[bytes, Spec], instruction: Instruction, clock: int) -> None:
    spec = specs.get(instruction.data[:_DISCRIMINATOR_LENGTH])
    if spec is None:
        raise anchor_error(Code.InstructionFallbackNotFound)
    frame.log.append(f"Program log: Instruction: {spec.title}")
    arguments = _arguments(spec.arguments, instruction.data[_DISCRIMINATOR_LENGTH:])
    context = bind(frame, clock, spec.fields, instruction.accounts)
    spec.handler(context, arguments)
    write_back(context, spec.fields)


def _arguments(types: tuple[str, ...], data: bytes) -> tuple[Argument, ...]:
    """Borsh values in order. Bytes behind the last one are ignored, as the program does."""
    values: list[Argument] = []
    for kind in types:
        length = _ARGUMENT_LENGTHS[kind]
        chunk, data = data[:length], data[length:]
        if len(chunk) < length:
            raise anchor_error(Code.InstructionDidNotDeserialize)
        values.append(chunk if kind == "bytes32" else int.from_bytes(chunk, "little", signed=kind[0] == "i"))
    return tuple(values)
