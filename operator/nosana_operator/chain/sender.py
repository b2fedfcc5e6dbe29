"""Signing, sending, and reading the outcome.

The order that keeps money safe (docs/architecture.md#why-it-cannot-pay-twice): sign, make the signed bytes
durable, send, read the outcome. Sending the same bytes again is harmless, because the chain takes a signature once
(docs/protocol/solana-rpc.md#the-life-of-a-signature); a new signature for the same purpose is not harmless, so it
is made only when `outcome` proves that the old one can never land.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from solana.rpc.commitment import Confirmed, Finalized
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.errors import SignerError
from solders.hash import Hash, ParseHashError
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.transaction import VersionedTransaction

from nosana_operator.chain.errors import (
    ChainError,
    ChainUnavailable,
    InvalidInstruction,
    TransactionFailed,
)
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.chain.rpc.wire import Blockhash
from nosana_operator.chain.wallet import Wallet

MAX_TRANSACTION: Final = 1232
"""Bytes of a transaction: what fits in one network packet."""
_MOST_PAST: Final = 1000
"""How many signatures are remembered for which the proof of expiry is still incomplete."""


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A signed transaction: what is made durable, sent and looked up."""

    kind: str
    """`work`, `finish`, …"""
    key: str
    """The address that pays and signs."""
    signature: str
    raw: bytes
    blockhash: str
    last_valid_block_height: int
    run: str | None = None
    """For `work` and `list`: the run account that it creates when it matches."""


class OutcomeState(Enum):
    """The outcome of a signed transaction."""

    PENDING = "pending"
    """Not seen at confirmed yet; it can still land."""
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"
    FAILED = "failed"
    """In a block, with an error."""
    EXPIRED = "expired"
    """In no block, and it can never land."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a signed transaction. `finalized`: it cannot change any more."""

    state: OutcomeState
    finalized: bool = False
    error: TransactionFailed | None = None
    """For FAILED."""
    slot: int | None = None
    """The slot of its block."""


def sign_transaction(
    kind: str,
    instructions: Sequence[Instruction],
    wallet: Wallet,
    extra_signers: Sequence[Wallet],
    blockhash: Blockhash,
    *,
    compute_unit_limit: int,
    priority_fee: int,
    run: str | None = None,
) -> SignedTransaction:
    """Sign a v0 transaction; `priority_fee` in micro-lamports per compute unit, zero for none.

    Raises:
        InvalidInstruction: a signer is missing, or the transaction is larger than a packet.
    """
    budget = [set_compute_unit_limit(compute_unit_limit)]
    if priority_fee:
        budget.append(set_compute_unit_price(priority_fee))
    payer = wallet.keypair
    try:
        message = MessageV0.try_compile(
            payer.pubkey(), [*budget, *instructions], [], Hash.from_string(blockhash.blockhash)
        )
        signed = VersionedTransaction(message, [payer, *(signer.keypair for signer in extra_signers)])
    except ParseHashError as error:
        raise ChainUnavailable("The RPC node gave no usable blockhash; it is asked again.") from error
    except (SignerError, ValueError, OverflowError) as error:
        raise InvalidInstruction(f"The {kind} transaction cannot be signed: {error}.") from error
    raw = bytes(signed)
    if len(raw) > MAX_TRANSACTION:
        raise InvalidInstruction(f"The {kind} transaction has {len(raw)} bytes, {MAX_TRANSACTION} fit.")
    return SignedTransaction(
        kind=kind,
        key=wallet.address,
        signature=str(signed.signatures[0]),
        raw=raw,
        blockhash=blockhash.blockhash,
        last_valid_block_height=blockhash.last_valid_block_height,
        run=run,
    )


class Sender:
    """Sends over a network's RPC, and reads outcomes."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._past: dict[str, int] = {}
        """Signature → the oldest finalized slot at which it was past its validity, while that is not proof yet."""

    async def send(self, raw: bytes, *, first: bool) -> None:
        """Send signed bytes, the first time with preflight. A node has then taken them; they may not have landed.

        Raises:
            TransactionFailed: the preflight failed. That proves nothing about an earlier send.
            BlockhashNotFound, ChainUnavailable: unknown; read the outcome.
            RpcError: refused otherwise.
        """
        await self._rpc.send(raw, preflight=first)

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """The outcome of a transaction.

        EXPIRED needs proof: the *finalized* block height is past the last valid one, and a node that has seen that
        block does not know the signature, in its history either.

        Raises:
            ChainUnavailable: unknown.
        """
        statuses = await self._rpc.signature_statuses([signature])
        status = statuses.value[0]
        if status is None:
            finalized = await self._rpc.epoch_info(Finalized)
            if finalized.block_height <= last_valid_block_height:
                return Outcome(OutcomeState.PENDING)
            # Read again after the height, because it may have landed between the two answers.
            statuses = await self._rpc.signature_statuses([signature])
            status = statuses.value[0]
            if status is None:
                # Behind a load balancer the second answer may come from a node that lags. Where the node that
                # keeps history always lags, it will in time reach the slot that another node reported before.
                past = min(finalized.slot, self._past.pop(signature, finalized.slot))
                if statuses.slot < past:
                    self._wait_for(signature, past)
                    return Outcome(OutcomeState.PENDING)
                return Outcome(OutcomeState.EXPIRED, finalized=True)
        if status.commitment not in (Confirmed, Finalized):
            return Outcome(OutcomeState.PENDING)
        is_final = status.commitment == Finalized
        if status.err is not None:
            failure = await self._failure(signature, status.err)
            return Outcome(OutcomeState.FAILED, is_final, failure, status.slot)
        state = OutcomeState.FINALIZED if is_final else OutcomeState.CONFIRMED
        return Outcome(state, is_final, slot=status.slot)

    def _wait_for(self, signature: str, slot: int) -> None:
        self._past[signature] = slot
        while len(self._past) > _MOST_PAST:
            del self._past[next(iter(self._past))]

    async def _failure(self, signature: str, err: object) -> TransactionFailed:
        """The failure with the program log if the node still has it: only the log names the error reliably."""
        try:
            logs = await self._rpc.transaction_logs(signature, Confirmed)
        except ChainError:
            logs = ()
        return TransactionFailed.from_rpc(err, logs)
