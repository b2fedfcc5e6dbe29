"""Well-known addresses and the derived ones, as the devnet build of the program has them.

(docs/protocol/jobs-program.md#programs-and-mints, docs/protocol/jobs-program.md#derived-addresses)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from solders.pubkey import Pubkey

JOBS_PROGRAM: Final = Pubkey.from_string("nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR")
NOS_MINT: Final = Pubkey.from_string("devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP")
STAKING_PROGRAM: Final = Pubkey.from_string("nosScmHY2uR24Zh751PmGj9ww9QRNHewh9H59AfrTJE")
REWARDS_PROGRAM: Final = Pubkey.from_string("nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp")
METADATA_PROGRAM: Final = Pubkey.from_string("metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s")
MARKET_ADMIN: Final = Pubkey.from_string("XXXxddiNnmoD2h2LbQYaL76Swi21MaQbtBbRynAdQL8")
SYSTEM_PROGRAM: Final = Pubkey.default()
TOKEN_PROGRAM: Final = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
RENT_SYSVAR: Final = Pubkey.from_string("SysvarRent111111111111111111111111111111111")


@lru_cache(maxsize=4096)
def associated_token_account(owner: Pubkey, mint: Pubkey = NOS_MINT) -> Pubkey:
    """The wallet's own token account for a mint (classic SPL Token only)."""
    seeds = [bytes(owner), bytes(TOKEN_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, ASSOCIATED_TOKEN_PROGRAM)[0]


@lru_cache(maxsize=4096)
def market_vault(market: Pubkey, mint: Pubkey) -> tuple[Pubkey, int]:
    """The token account that holds a market's deposits, and its bump."""
    return Pubkey.find_program_address([bytes(market), bytes(mint)], JOBS_PROGRAM)


@lru_cache(maxsize=4096)
def stake_account(authority: Pubkey) -> Pubkey:
    """Where the staking program keeps a wallet's stake."""
    return Pubkey.find_program_address([b"stake", bytes(NOS_MINT), bytes(authority)], STAKING_PROGRAM)[0]


@lru_cache(maxsize=4096)
def stake_vault(authority: Pubkey) -> tuple[Pubkey, int]:
    """The token account that holds a wallet's stake, and its bump."""
    return Pubkey.find_program_address([b"vault", bytes(NOS_MINT), bytes(authority)], STAKING_PROGRAM)


@lru_cache(maxsize=4096)
def reward_account(authority: Pubkey) -> Pubkey:
    """Where the rewards program keeps what a staker earns."""
    return Pubkey.find_program_address([b"reward", bytes(authority)], REWARDS_PROGRAM)[0]


@lru_cache(maxsize=4096)
def metadata_account(mint: Pubkey) -> Pubkey:
    """Where the metadata of an NFT lies."""
    seeds = [b"metadata", bytes(METADATA_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, METADATA_PROGRAM)[0]
