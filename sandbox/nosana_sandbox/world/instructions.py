"""The instructions of those who post jobs, as bytes on the wire.

(docs/protocol/jobs-program.md#instructions)

Kept apart from the operator's own builders on purpose: a poster is somebody else's client, and no test would
show what both sides get wrong alike.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from nosana_sandbox.program.addresses import (
    JOBS_PROGRAM,
    NOS_MINT,
    RENT_SYSVAR,
    REWARDS_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_account,
    market_vault,
)

REFLECTION: Final = Pubkey.find_program_address([b"reflection"], REWARDS_PROGRAM)[0]
"""The rewards program's pool."""
REWARDS_VAULT: Final = Pubkey.find_program_address([bytes(NOS_MINT)], REWARDS_PROGRAM)[0]


def _signs(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=True, is_writable=False)


def _signs_writes(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=True, is_writable=True)


def _writes(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=True)


def _reads(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=False)


def _instruction(name: str, arguments: bytes, accounts: list[AccountMeta]) -> Instruction:
    discriminator = hashlib.sha256(f"global:{name}".encode()).digest()[:8]
    return Instruction(JOBS_PROGRAM, discriminator + arguments, accounts)


def vault_of(market: Pubkey) -> Pubkey:
    """Where a market's deposits lie."""
    return market_vault(market, NOS_MINT)[0]


def open_market(
    market: Pubkey,
    authority: Pubkey,
    *,
    price: int,
    job_timeout: int,
    job_expiration: int,
    xnos_minimum: int = 0,
) -> Instruction:
    """Open a market without access key. `price` in NOS base units per second, the times in seconds."""
    arguments = struct.pack("<qQqB", job_expiration, price, job_timeout, 0) + xnos_minimum.to_bytes(
        16, "little"
    )
    return _instruction(
        "open",
        arguments,
        [
            _reads(NOS_MINT),
            _signs_writes(market),
            _writes(vault_of(market)),
            _signs_writes(authority),
            _reads(SYSTEM_PROGRAM),
            _reads(RENT_SYSVAR),
            _reads(SYSTEM_PROGRAM),
            _reads(TOKEN_PROGRAM),
        ],
    )


def list_job(
    market: Pubkey, job: Pubkey, run: Pubkey, poster: Pubkey, *, ipfs_job: bytes, timeout: int
) -> Instruction:
    """Post a job of `timeout` seconds. `job` and `run` are fresh keys that sign; the poster pays all."""
    return _instruction(
        "list",
        ipfs_job + struct.pack("<q", timeout),
        [
            _signs_writes(job),
            _writes(market),
            _signs_writes(run),
            _writes(associated_token_account(poster)),
            _writes(vault_of(market)),
            _signs_writes(poster),
            _writes(REFLECTION),
            _writes(REWARDS_VAULT),
            _signs(poster),
            _reads(REWARDS_PROGRAM),
            _reads(TOKEN_PROGRAM),
            _reads(SYSTEM_PROGRAM),
        ],
    )


def delist_job(market: Pubkey, job: Pubkey, poster: Pubkey, payer: Pubkey) -> Instruction:
    """Take a queued job back; its payer gets the deposit and the rent."""
    return _instruction(
        "delist",
        b"",
        [
            _writes(job),
            _writes(market),
            _writes(associated_token_account(payer)),
            _writes(payer),
            _writes(vault_of(market)),
            _reads(TOKEN_PROGRAM),
            _signs_writes(poster),
        ],
    )


def extend_job(market: Pubkey, job: Pubkey, poster: Pubkey, payer: Pubkey, *, timeout: int) -> Instruction:
    """Give a job more time: `timeout` is its new length in seconds, all in all."""
    return _instruction(
        "extend",
        struct.pack("<q", timeout),
        [
            _writes(job),
            _reads(market),
            _writes(associated_token_account(payer)),
            _writes(vault_of(market)),
            _writes(REFLECTION),
            _writes(REWARDS_VAULT),
            _signs(poster),
            _signs(payer),
            _reads(REWARDS_PROGRAM),
            _reads(TOKEN_PROGRAM),
        ],
    )


def end_job(
    market: Pubkey,
    job: Pubkey,
    run: Pubkey,
    poster: Pubkey,
    *,
    job_payer: Pubkey,
    run_payer: Pubkey,
    node: Pubkey,
) -> Instruction:
    """Stop a running job: its node is paid for the time so far, the rest goes back to the job's payer."""
    return _instruction(
        "end",
        b"",
        [
            _writes(job),
            _reads(market),
            _writes(run),
            _writes(associated_token_account(job_payer)),
            _writes(associated_token_account(node)),
            _writes(vault_of(market)),
            _writes(run_payer),
            _signs_writes(poster),
            _reads(TOKEN_PROGRAM),
        ],
    )
