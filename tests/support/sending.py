"""What tests need of the chain beside what the operator does: balances, and sending without a durable intent."""

from __future__ import annotations

import asyncio
from functools import partial

from solana.rpc.commitment import Commitment, Confirmed, Finalized

from nosana_operator.chain import OutcomeState, SignedTransaction
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.chain.rpc.wire import read_int, read_slotted
from nosana_operator.chain.sender import Sender

POLL = 0.4
RESEND_AFTER = 2.0


async def balance(rpc: Rpc, address: str) -> int:
    """Lamports at confirmed."""
    params = [address, {"commitment": Confirmed}]
    return (await rpc.call("getBalance", params, partial(read_slotted, read=read_int))).value


async def send_and_confirm(
    rpc: Rpc, sender: Sender, signed: SignedTransaction, commitment: Commitment = Confirmed
) -> None:
    """Send, and wait until the transaction has landed. Raises TransactionFailed; fails when it expired."""
    await rpc.send(signed.raw, preflight=True)
    sent = asyncio.get_running_loop().time()
    while True:
        outcome = await sender.outcome(signed.signature, signed.last_valid_block_height)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.state is not OutcomeState.EXPIRED, f"no block took the {signed.kind} transaction"
        if outcome.finalized or (outcome.state is OutcomeState.CONFIRMED and commitment != Finalized):
            return
        await asyncio.sleep(POLL)
        now = asyncio.get_running_loop().time()
        if outcome.state is OutcomeState.PENDING and now - sent >= RESEND_AFTER:
            await rpc.send(signed.raw, preflight=False)
            sent = now
