"""The SPL Token program as the jobs program calls it: transfers, a new vault, a closed vault."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from nosana_sandbox.program.addresses import TOKEN_PROGRAM
from nosana_sandbox.program.failure import ProgramFailure
from nosana_sandbox.program.layout import U64_MAX, TokenAccount, UnreadableError
from nosana_sandbox.program.types import AccountMeta, Custom

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from nosana_sandbox.program.frame import Frame

# First bytes of the Token program's instructions.
_TRANSFER: Final = bytes([3])
_CLOSE_ACCOUNT: Final = bytes([9])
_INITIALIZE_ACCOUNT_3: Final = bytes([18])


class TokenError(Enum):
    """The Token program's own errors, with the words of its log line."""

    INSUFFICIENT_FUNDS = (1, "insufficient funds")
    MINT_MISMATCH = (3, "Account not associated with this Mint")
    OWNER_MISMATCH = (4, "owner does not match")
    NON_NATIVE_HAS_BALANCE = (11, "Non-native account can only be closed if its balance is zero")
    OVERFLOW = (14, "Operation overflowed")
    ACCOUNT_FROZEN = (17, "Account is frozen")

    def failure(self) -> ProgramFailure:
        """The error as the runtime reports it."""
        code, words = self.value
        return ProgramFailure(Custom(code), [f"Program log: Error: {words}"])


def transfer(
    frame: Frame,
    source: Pubkey,
    target: Pubkey,
    authority: Pubkey,
    amount: int,
    signed_by: Pubkey | None = None,
) -> None:
    """Move tokens; checked and logged also when the amount is 0 or both accounts are one."""
    metas = (
        AccountMeta(source, False, True),
        AccountMeta(target, False, True),
        AccountMeta(authority, True, False),
    )
    with frame.invoke(TOKEN_PROGRAM, metas, _TRANSFER + amount.to_bytes(8, "little"), signed_by):
        giver = _read(frame, source)
        taker = _read(frame, target)
        if giver.frozen or taker.frozen:
            raise TokenError.ACCOUNT_FROZEN.failure()
        if giver.amount < amount:
            raise TokenError.INSUFFICIENT_FUNDS.failure()
        if giver.mint != taker.mint:
            raise TokenError.MINT_MISMATCH.failure()
        if authority == giver.delegate:
            if giver.delegated_amount < amount:
                raise TokenError.INSUFFICIENT_FUNDS.failure()
            if source != target:
                giver.delegated_amount -= amount
                giver.delegate = giver.delegate if giver.delegated_amount else None
        elif authority != giver.owner:
            raise TokenError.OWNER_MISMATCH.failure()
        if source == target:
            return
        if taker.amount + amount > U64_MAX:
            raise TokenError.OVERFLOW.failure()
        giver.amount -= amount
        taker.amount += amount
        frame.update(source, data=giver.encode())
        frame.update(target, data=taker.encode())


def initialize_account(frame: Frame, key: Pubkey, mint: Pubkey, owner: Pubkey) -> None:
    """Make an allocated account a token account."""
    metas = (AccountMeta(key, False, True), AccountMeta(mint, False, False))
    with frame.invoke(TOKEN_PROGRAM, metas, _INITIALIZE_ACCOUNT_3 + bytes(owner)):
        frame.update(key, data=TokenAccount(mint=mint, owner=owner).encode())


def close_account(
    frame: Frame, key: Pubkey, target: Pubkey, authority: Pubkey, signed_by: Pubkey | None = None
) -> None:
    """Close an empty token account; its rent goes to `target`."""
    metas = (
        AccountMeta(key, False, True),
        AccountMeta(target, False, True),
        AccountMeta(authority, True, False),
    )
    with frame.invoke(TOKEN_PROGRAM, metas, _CLOSE_ACCOUNT, signed_by):
        account = _read(frame, key)
        if account.native is None and account.amount:
            raise TokenError.NON_NATIVE_HAS_BALANCE.failure()
        if authority != (account.close_authority or account.owner):
            raise TokenError.OWNER_MISMATCH.failure()
        frame.close(key, target)


def _read(frame: Frame, key: Pubkey) -> TokenAccount:
    held = frame.account(key)
    if held.owner != TOKEN_PROGRAM:
        raise ProgramFailure("IncorrectProgramId")
    try:
        account = TokenAccount.decode(held.data)
    except UnreadableError as error:
        raise ProgramFailure("InvalidAccountData") from error
    if not account.initialized:
        raise ProgramFailure("UninitializedAccount")
    return account
