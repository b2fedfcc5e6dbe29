"""What the chain's tests share: transactions, and the two instructions of a host that they need."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import aiohttp
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from nosana_sandbox.chain import Bank, Commitment
from nosana_sandbox.chain.transaction import WireTransaction
from nosana_sandbox.program.addresses import (
    JOBS_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_account,
    stake_account,
)
from nosana_sandbox.world.genesis import Founded
from nosana_sandbox.world.instructions import list_job, vault_of

SOL = 1_000_000_000


async def rpc(url: str, method: str, *params: Any) -> dict[str, Any]:
    """One raw request; the whole reply."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        reply: dict[str, Any] = await response.json()
        assert reply["id"] == 7
        return reply


def signed(
    bank: Bank,
    instructions: Sequence[Instruction],
    *signers: Keypair,
    blockhash: Hash | None = None,
    commitment: Commitment = Commitment.CONFIRMED,
) -> VersionedTransaction:
    """A transaction the first signer pays."""
    blockhash = blockhash or bank.blockhash_at(commitment)[0]
    return VersionedTransaction(
        MessageV0.try_compile(signers[0].pubkey(), instructions, [], blockhash), list(signers)
    )


def wire(transaction: VersionedTransaction) -> WireTransaction:
    return WireTransaction.decode(bytes(transaction))


def pay(sender: Keypair, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=sender.pubkey(), to_pubkey=to, lamports=lamports))


def post(founded: Founded, job: Keypair, run: Keypair, timeout: int = 60) -> Instruction:
    return list_job(
        founded.market,
        job.pubkey(),
        run.pubkey(),
        founded.poster.pubkey(),
        ipfs_job=hashlib.sha256(b"definition").digest(),
        timeout=timeout,
    )


def work(founded: Founded, run: Keypair) -> Instruction:
    host = founded.host.pubkey()
    return Instruction(
        JOBS_PROGRAM,
        bytes.fromhex("0f432dc3d789e52f"),
        [
            AccountMeta(run.pubkey(), True, True),
            AccountMeta(founded.market, False, True),
            AccountMeta(host, True, True),
            AccountMeta(stake_account(host), False, False),
            AccountMeta(associated_token_account(host), False, False),
            AccountMeta(SYSTEM_PROGRAM, False, False),
            AccountMeta(host, True, False),
            AccountMeta(SYSTEM_PROGRAM, False, False),
        ],
    )


def finish(founded: Founded, job: Pubkey, run: Pubkey, result: bytes = b"r" * 32) -> Instruction:
    """End a run that began with `list`: the host stood, so the poster paid for both accounts."""
    host, poster = founded.host.pubkey(), founded.poster.pubkey()
    return Instruction(
        JOBS_PROGRAM,
        bytes.fromhex("434aaa847de9b625") + result,
        [
            AccountMeta(job, False, True),
            AccountMeta(run, False, True),
            AccountMeta(founded.market, False, False),
            AccountMeta(vault_of(founded.market), False, True),
            AccountMeta(associated_token_account(poster), False, True),
            AccountMeta(associated_token_account(host), False, True),
            AccountMeta(poster, False, True),
            AccountMeta(poster, False, True),
            AccountMeta(host, True, False),
            AccountMeta(TOKEN_PROGRAM, False, False),
        ],
    )
