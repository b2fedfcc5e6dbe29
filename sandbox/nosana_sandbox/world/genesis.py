"""The genesis of a sandbox's chain: the NOS token, a market with a price, a host and a poster with funds.

What other programs than Jobs would have written (stake, rewards, mint, balances) is placed directly in its
layout; the market is opened by a real `open`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from nosana_sandbox.chain import LAMPORTS_PER_SOL, Bank, Commitment
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import (
    METADATA_PROGRAM,
    NOS_MINT,
    REWARDS_PROGRAM,
    STAKING_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_account,
    metadata_account,
    stake_account,
)
from nosana_sandbox.program.layout import TokenAccount, account_discriminator, rent_exempt_minimum
from nosana_sandbox.program.metadata import metadata_of
from nosana_sandbox.world.errors import TransactionFailed
from nosana_sandbox.world.instructions import REFLECTION, REWARDS_VAULT, open_market

NOS: Final = 1_000_000
"""Base units of one NOS (6 decimals)."""
DEFAULT_PRICE: Final = 1_000
"""NOS base units per second: 0.001 NOS/s, so that payments are easy to read."""
JOB_TIMEOUT: Final = 7_200
JOB_EXPIRATION: Final = 86_400

_SUPPLY: Final = 100_000_000 * NOS
_STAKE_LENGTH: Final = 120
_METADATA_LENGTH: Final = 607
_REFLECTION_LENGTH: Final = 96
_YEAR: Final = 31_536_000


@dataclass(frozen=True, slots=True)
class Founded:
    """An initialized chain, and the keys of its parties."""

    bank: Bank
    market: Pubkey
    market_authority: Keypair = field(repr=False)
    host: Keypair = field(repr=False)
    poster: Keypair = field(repr=False)

    def submit(self, instructions: Sequence[Instruction], *signers: Keypair) -> None:
        """Execute a transaction directly; the first signer pays. Raises TransactionFailed with the logs."""
        submit(self.bank, instructions, signers)


def found(
    *,
    price: int = DEFAULT_PRICE,
    xnos_minimum: int = 0,
    genesis: Mapping[Pubkey, Account] | None = None,
    **bank_options: Any,
) -> Founded:
    """Begin a chain: everything placed, the market open and all of it finalized.

    `price` in NOS base units per second; `genesis` adds accounts; the rest goes to `Bank`.
    """
    market, authority, host, poster = Keypair(), Keypair(), Keypair(), Keypair()
    accounts = {
        **token_accounts(),
        authority.pubkey(): Account(10 * LAMPORTS_PER_SOL, SYSTEM_PROGRAM),
        **wallet_accounts(host.pubkey(), sol=10, nos=0),
        **stake_accounts(host.pubkey(), amount=10_000 * NOS),
        **wallet_accounts(poster.pubkey(), sol=100, nos=100_000 * NOS),
        **(genesis or {}),
    }
    bank = Bank(genesis=accounts, **bank_options)
    founded = Founded(bank, market.pubkey(), authority, host, poster)
    founded.submit(
        [
            open_market(
                market.pubkey(),
                authority.pubkey(),
                price=price,
                job_timeout=JOB_TIMEOUT,
                job_expiration=JOB_EXPIRATION,
                xnos_minimum=xnos_minimum,
            )
        ],
        authority,
        market,
    )
    bank.tick(bank.finality)
    return founded


def submit(bank: Bank, instructions: Sequence[Instruction], signers: Sequence[Keypair]) -> None:
    """Execute a transaction without RPC; the first signer pays. Raises TransactionFailed with the logs."""
    blockhash, _ = bank.blockhash_at(Commitment.PROCESSED)
    message = MessageV0.try_compile(signers[0].pubkey(), instructions, [], blockhash)
    landed = bank.submit(WireTransaction.decode(bytes(VersionedTransaction(message, list(signers)))))
    if landed.outcome.error is not None:
        raise TransactionFailed(
            f"a transaction of the sandbox's own making failed with {landed.outcome.error}: "
            + "; ".join(landed.outcome.logs)
        )


def token_accounts() -> dict[Pubkey, Account]:
    """The NOS mint and the rewards program's accounts that `list` names."""
    # Authority options, supply, decimals, initialized: nobody may mint or freeze.
    mint = bytes(36) + _SUPPLY.to_bytes(8, "little") + bytes([6, 1]) + bytes(36)
    bump = Pubkey.find_program_address([bytes(NOS_MINT)], REWARDS_PROGRAM)[1]
    reflection = (
        account_discriminator("ReflectionAccount")
        + (10**15).to_bytes(16, "little")
        + bytes(32)
        + bytes(REWARDS_VAULT)
        + bytes([bump])
    )
    return {
        NOS_MINT: Account(rent_exempt_minimum(len(mint)), TOKEN_PROGRAM, mint),
        REFLECTION: _padded(REWARDS_PROGRAM, reflection, _REFLECTION_LENGTH),
        REWARDS_VAULT: _token_account(REWARDS_VAULT, 0),
    }


def wallet_accounts(owner: Pubkey, *, sol: int, nos: int | None) -> dict[Pubkey, Account]:
    """A wallet with `sol` SOL and `nos` base units of NOS; None: without a NOS account."""
    accounts = {owner: Account(sol * LAMPORTS_PER_SOL, SYSTEM_PROGRAM)}
    if nos is not None:
        accounts[associated_token_account(owner)] = _token_account(owner, nos)
    return accounts


def stake_accounts(owner: Pubkey, *, amount: int) -> dict[Pubkey, Account]:
    """A stake of `amount` base units for a year, which counts four times.

    (docs/protocol/jobs-program.md#staking)
    """
    vault, bump = Pubkey.find_program_address([b"vault", bytes(NOS_MINT), bytes(owner)], STAKING_PROGRAM)
    data = (
        account_discriminator("StakeAccount")
        + amount.to_bytes(8, "little")
        + bytes(owner)
        + _YEAR.to_bytes(8, "little")
        + bytes(8)  # not unstaked
        + bytes(vault)
        + bytes([bump])
        + (4 * amount).to_bytes(16, "little")
    )
    return {stake_account(owner): _padded(STAKING_PROGRAM, data, _STAKE_LENGTH)}


def access_key_accounts(
    owner: Pubkey, collection: Pubkey, *, verified: bool = True, amount: int = 1
) -> dict[Pubkey, Account]:
    """A fresh NFT in the wallet, whose metadata names the collection: a market's access key."""
    mint = Keypair().pubkey()
    minted = bytes(36) + amount.to_bytes(8, "little") + bytes([0, 1]) + bytes(36)
    metadata = metadata_of(mint, collection, verified=verified)
    return {
        mint: Account(rent_exempt_minimum(len(minted)), TOKEN_PROGRAM, minted),
        associated_token_account(owner, mint): _token_account(owner, amount, mint),
        metadata_account(mint): _padded(METADATA_PROGRAM, metadata, _METADATA_LENGTH),
    }


def _padded(owner: Pubkey, data: bytes, length: int) -> Account:
    return Account(rent_exempt_minimum(length), owner, data.ljust(length, b"\0"))


def _token_account(owner: Pubkey, amount: int, mint: Pubkey = NOS_MINT) -> Account:
    data = TokenAccount(mint=mint, owner=owner, amount=amount).encode()
    return Account(rent_exempt_minimum(len(data)), TOKEN_PROGRAM, data)


def write_keypair(path: Path, keypair: Keypair) -> None:
    """Write a keypair as Solana's tools read it: a JSON array of 64 bytes, for the owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(list(bytes(keypair)), file)


def read_keypair(path: Path) -> Keypair:
    """Read a keypair file of `write_keypair` or of Solana's tools."""
    return Keypair.from_bytes(bytes(json.loads(path.read_text())))
