"""What a `finish` depends on besides run and job: market, vault and NOS accounts, read together.

(docs/protocol/jobs-program.md#finish)
"""

from __future__ import annotations

from dataclasses import dataclass

from solana.rpc.commitment import Confirmed

from nosana_operator.chain.accounts import TokenAccount
from nosana_operator.chain.addresses import SYSTEM, TOKEN, Programs, address_problem
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.chain.rpc.wire import AccountInfo


@dataclass(frozen=True, slots=True)
class PaymentState:
    """The accounts at one slot, at confirmed."""

    market: bool
    """Whether the market account exists."""
    vault: int | None
    """NOS base units in the market's vault; None: there is no vault."""
    payer_account: bool
    """Whether the payer's NOS account exists."""
    payout_problem: str | None
    """Why the payout address cannot receive the payout; None if it can, or if none is set."""


async def read_payment(
    rpc: Rpc, programs: Programs, *, market: str, payer: str, payout: str | None, not_before: int = 0
) -> PaymentState:
    """Read the accounts in one request, at slot `not_before` or later. Raises ChainUnavailable."""
    vault, account = programs.market_vault(market), programs.nos_account(payer)
    problem = address_problem(payout) if payout is not None else None
    requested = [market, vault, account, *([payout] if payout is not None and problem is None else [])]
    accounts = (await rpc.accounts(requested, Confirmed, not_before=not_before)).value
    held = _token(vault, accounts[vault])
    if payout is not None and problem is None:
        problem = _payout_problem(payout, accounts[payout])
    at_market = accounts[market]
    return PaymentState(
        market=at_market is not None and at_market.owner == programs.jobs,
        vault=held.amount if held is not None else None,
        payer_account=_token(account, accounts[account]) is not None,
        payout_problem=problem,
    )


def _token(address: str, info: AccountInfo | None) -> TokenAccount | None:
    return TokenAccount.decode(address, info.data) if info is not None and info.owner == TOKEN else None


async def read_payout_problem(rpc: Rpc, address: str) -> str | None:
    """Why this address cannot receive the payout; None if it can. Raises ChainUnavailable."""
    problem = address_problem(address)
    if problem is not None:
        return problem
    return _payout_problem(address, (await rpc.account(address, Confirmed)).value)


def _payout_problem(address: str, info: AccountInfo | None) -> str | None:
    """NOS that a token account or a program owns is lost, so the address has to be a wallet."""
    if info is None or info.owner == SYSTEM:
        return None
    what = "a token account" if info.owner == TOKEN else "an account of a program"
    return f"{address} is {what}, no wallet"
