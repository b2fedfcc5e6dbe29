"""SPL Token accounts and mints, read from their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from solders.pubkey import Pubkey

from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import TOKEN_PROGRAM
from nosana_sandbox.program.layout import TokenAccount, UnreadableError

MINT_LENGTH: Final = 82


@dataclass(frozen=True, slots=True)
class Mint:
    """A token; `supply` in base units."""

    mint_authority: Pubkey | None
    supply: int
    decimals: int
    freeze_authority: Pubkey | None


@dataclass(frozen=True, slots=True)
class TokenBalance:
    """What one account of a transaction held, by its index in the transaction's keys."""

    index: int
    account: TokenAccount
    decimals: int


def _key(data: bytes, offset: int) -> Pubkey:
    return Pubkey.from_bytes(data[offset : offset + 32])


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _optional_key(data: bytes, offset: int) -> Pubkey | None:
    return _key(data, offset + 4) if data[offset] else None


def parse_token_account(account: Account | None) -> TokenAccount | None:
    """Read an initialized token account of the classic Token program; None for anything else."""
    if account is None or account.owner != TOKEN_PROGRAM or len(account.data) != TokenAccount.SPACE:
        return None
    try:
        held = TokenAccount.decode(account.data)
    except UnreadableError:
        return None
    return held if held.initialized else None


def parse_mint(account: Account | None) -> Mint | None:
    """Read an initialized mint of the classic Token program; None for anything else."""
    if account is None or account.owner != TOKEN_PROGRAM or len(account.data) != MINT_LENGTH:
        return None
    data = account.data
    if not data[45]:
        return None
    return Mint(_optional_key(data, 0), _u64(data, 36), data[44], _optional_key(data, 46))


def ui_amount(amount: int, decimals: int) -> dict[str, Any]:
    """An amount as an RPC answer shows it, in base units and in whole tokens."""
    exact = Decimal(amount).scaleb(-decimals)
    text = f"{exact:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return {"amount": str(amount), "decimals": decimals, "uiAmount": float(exact), "uiAmountString": text}
