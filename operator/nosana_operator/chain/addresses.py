"""Addresses: the programs of each cluster, derived addresses, and the check of text.

(docs/protocol/jobs-program.md#programs-and-mints, docs/protocol/jobs-program.md#derived-addresses)

Addresses are base58 `str` everywhere outside this package; `Pubkey` only where instructions are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey
from spl.token.instructions import get_associated_token_address

from nosana_operator.chain.errors import InvalidAddress

SYSTEM: Final = "11111111111111111111111111111111"
"""The System program; an unset pubkey field of an account reads as this address too."""
TOKEN: Final = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"  # noqa: S105 - a program, no secret
ASSOCIATED_TOKEN: Final = "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL"  # noqa: S105
RENT_SYSVAR: Final = "SysvarRent111111111111111111111111111111111"
CLOCK_SYSVAR: Final = "SysvarC1ock11111111111111111111111111111111"


def pubkey(address: str) -> Pubkey:
    """The public key of an address.

    Raises:
        InvalidAddress: not base58 of 32 bytes.
    """
    problem = address_problem(address)
    if problem is not None:
        raise InvalidAddress(problem)
    return Pubkey.from_string(address)


def address_problem(address: str) -> str | None:
    """Why the text is not an address, as a sentence; None if it is one."""
    try:
        Pubkey.from_string(address)
    except ValueError:
        shown = address if len(address) <= 60 else address[:57] + "…"
        return f"{shown!r} is not a Solana address; give the 32 bytes in base58 (32 to 44 characters)."
    return None


def address_of(key: bytes) -> str:
    """The address that 32 bytes of an account's data hold."""
    if len(key) != Pubkey.LENGTH:
        raise InvalidAddress(f"A Solana address has {Pubkey.LENGTH} bytes, not {len(key)}.")
    return str(Pubkey(key))


STAKING_PROGRAM: Final = "nosScmHY2uR24Zh751PmGj9ww9QRNHewh9H59AfrTJE"
REWARDS_PROGRAM: Final = "nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp"
"""Both are the same on all of Nosana's clusters."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The program ids and the NOS mint of one cluster, and the addresses derived from them."""

    jobs: str
    nos_mint: str
    staking: str = STAKING_PROGRAM
    rewards: str = REWARDS_PROGRAM
    metaplex: str = "metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s"

    def market_vault(self, market: str) -> str:
        """The NOS account that holds a market's deposits."""
        return _derive(self.jobs, bytes(pubkey(market)), bytes(pubkey(self.nos_mint)))

    def stake(self, authority: str) -> str:
        """The stake account of a wallet."""
        return _derive(self.staking, b"stake", bytes(pubkey(self.nos_mint)), bytes(pubkey(authority)))

    def rewards_reflection(self) -> str:
        """The rewards program's only reflection account."""
        return _derive(self.rewards, b"reflection")

    def rewards_vault(self) -> str:
        """The rewards program's NOS account."""
        return _derive(self.rewards, bytes(pubkey(self.nos_mint)))

    def metadata(self, mint: str) -> str:
        """The Metaplex metadata account of an access token's mint."""
        return _derive(self.metaplex, b"metadata", bytes(pubkey(self.metaplex)), bytes(pubkey(mint)))

    def nos_account(self, owner: str) -> str:
        """A wallet's associated token account for NOS."""
        return str(get_associated_token_address(pubkey(owner), pubkey(self.nos_mint)))


MAINNET: Final = Programs(
    jobs="nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM",
    nos_mint="nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7",
)
DEVNET: Final = Programs(
    jobs="nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR",
    nos_mint="devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP",
)
NETWORK_PROGRAMS: Final[Mapping[str, Programs]] = {"mainnet": MAINNET, "devnet": DEVNET}
"""By the name of the network in the settings; any other network has to state its program and mint."""


def _derive(program: str, *seeds: bytes) -> str:
    address, _bump = Pubkey.find_program_address(list(seeds), pubkey(program))
    return str(address)
