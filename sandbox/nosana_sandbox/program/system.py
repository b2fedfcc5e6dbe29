"""The System program as the jobs program calls it: new accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nosana_sandbox.program.addresses import SYSTEM_PROGRAM
from nosana_sandbox.program.failure import Code, ProgramFailure, anchor_error
from nosana_sandbox.program.layout import rent_exempt_minimum
from nosana_sandbox.program.types import AccountMeta, Custom

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from nosana_sandbox.program.frame import Frame

ACCOUNT_ALREADY_IN_USE: Final = Custom(0)
RESULT_WITH_NEGATIVE_LAMPORTS: Final = Custom(1)

# Numbers of the System program's instructions.
_CREATE_ACCOUNT: Final = 0
_ASSIGN: Final = 1
_TRANSFER: Final = 2
_ALLOCATE: Final = 8


def create_account(
    frame: Frame, payer: Pubkey, new: Pubkey, space: int, owner: Pubkey, signed_by: Pubkey | None = None
) -> None:
    """Create an account that holds no lamports yet, with the rent for `space` bytes from `payer`."""
    metas = (AccountMeta(payer, True, True), AccountMeta(new, True, True))
    rent = rent_exempt_minimum(space)
    with frame.invoke(SYSTEM_PROGRAM, metas, _data(_CREATE_ACCOUNT, rent, space, owner), signed_by):
        if frame.account(new).lamports > 0:
            line = f"Create Account: account Address {{ address: {new}, base: None }} already in use"
            raise ProgramFailure(ACCOUNT_ALREADY_IN_USE, [line])
        _allocate(frame, new, space)
        frame.update(new, owner=owner)
        _transfer(frame, payer, new, rent)


def init_account(
    frame: Frame, payer: Pubkey, new: Pubkey, space: int, owner: Pubkey, signed_by: Pubkey | None = None
) -> None:
    """What Anchor's `init` does: as `create_account`, but lamports that somebody sent ahead are kept.

    An account in use is found out by the allocation, so its error is the same.
    """
    held = frame.account(new).lamports
    if held == 0:
        create_account(frame, payer, new, space, owner, signed_by)
        return
    if payer == new:
        raise anchor_error(Code.TryingToInitPayerAsProgramAccount, compared=(payer, new))
    missing = max(rent_exempt_minimum(space) - held, 0)
    if missing:
        metas = (AccountMeta(payer, True, True), AccountMeta(new, False, True))
        with frame.invoke(SYSTEM_PROGRAM, metas, _data(_TRANSFER, missing)):
            _transfer(frame, payer, new, missing)
    with frame.invoke(SYSTEM_PROGRAM, (AccountMeta(new, True, True),), _data(_ALLOCATE, space), signed_by):
        _allocate(frame, new, space)
    with frame.invoke(SYSTEM_PROGRAM, (AccountMeta(new, True, True),), _data(_ASSIGN, owner), signed_by):
        frame.update(new, owner=owner)


def _data(number: int, *arguments: int | Pubkey) -> bytes:
    """An instruction of the System program: its number, then 64-bit amounts and addresses."""
    return number.to_bytes(4, "little") + b"".join(
        each.to_bytes(8, "little") if isinstance(each, int) else bytes(each) for each in arguments
    )


def _allocate(frame: Frame, key: Pubkey, space: int) -> None:
    account = frame.account(key)
    if account.data or account.owner != SYSTEM_PROGRAM:
        line = f"Allocate: account Address {{ address: {key}, base: None }} already in use"
        raise ProgramFailure(ACCOUNT_ALREADY_IN_USE, [line])
    frame.update(key, data=bytes(space))


def _transfer(frame: Frame, source: Pubkey, target: Pubkey, lamports: int) -> None:
    account = frame.account(source)
    if account.data:
        raise ProgramFailure("InvalidArgument", ["Transfer: `from` must not carry data"])
    if lamports > account.lamports:
        line = f"Transfer: insufficient lamports {account.lamports}, need {lamports}"
        raise ProgramFailure(RESULT_WITH_NEGATIVE_LAMPORTS, [line])
    if account.owner != SYSTEM_PROGRAM:
        raise ProgramFailure("ExternalAccountLamportSpend")
    frame.move_lamports(source, target, lamports)
