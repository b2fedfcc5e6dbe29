"""Signing, sending, and finding out what became of it.

The order that keeps money safe (docs/architecture.md#why-it-cannot-pay-twice): sign, make the signed bytes
durable, send, look. Resending the same bytes is harmless, the chain takes a signature once
(docs/protocol/solana-rpc.md#the-life-of-a-signature); a new signature for the same purpose is not, so it
is made only when `outcome` proves the old one dead.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

from solana.rpc.commitment import Commitment, Confirmed, Finalized
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
    TransactionExpired,
    TransactionFailed,
)
from nosana_operator.chain.rpc.methods import Rpc
from nosana_operator.chain.rpc.wire import Blockhash
from nosana_operator.chain.wallet import Wallet

MAX_TRANSACTION: Final = 1232
"""Bytes of a transaction: what fits in one network packet."""
_POLL: Final = 0.4
_RESEND_AFTER: Final = 2.0
_MOST_PAST: Final = 1000
"""Signatures remembered that wait for the proof of their end."""


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction that can be made durable, sent and asked for."""

    kind: str
    """What it is for: `work`, `finish`, …"""
    key: str
    """The address that pays and signs."""
    signature: str
    raw: bytes
    blockhash: str
    last_valid_block_height: int
    run: str | None = None
    """For `work` and `list`: the run account that it makes when it matches."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `raw` in base64."""
        return asdict(self) | {"raw": base64.b64encode(self.raw).decode()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SignedTransaction:
        """Inverse of `to_dict`.

        Raises:
            InvalidInstruction: fields are missing or broken.
        """
        try:
            return cls(**{**stored, "raw": base64.b64decode(stored["raw"], validate=True)})
        except (TypeError, KeyError, binascii.Error) as error:
            raise InvalidInstruction(f"A stored transaction cannot be read: {error}.") from error


class OutcomeState(Enum):
    """What became of a signed transaction."""

    PENDING = "pending"
    """Not seen at confirmed yet; it can still land."""
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"
    FAILED = "failed"
    """In a block, with an error."""
    EXPIRED = "expired"
    """In no block, and it cannot land any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a signed transaction. `finalized` says that this cannot change any more."""

    state: OutcomeState
    finalized: bool = False
    error: TransactionFailed | None = None
    """For FAILED."""
    slot: int | None = None
    """Of the block that holds it."""


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
    """Sign a v0 transaction; `priority_fee` in micro-lamports a compute unit, zero for none.

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
    """Sends over a network's RPC, and finds out what became of it."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._past: dict[str, int] = {}
        """Signature → the oldest finalized slot seen at which it cannot land any more, while that is no proof yet."""

    async def send(self, raw: bytes, *, first: bool) -> None:
        """Send signed bytes, the first time with preflight. Returning means taken, not landed.

        Raises:
            TransactionFailed: the preflight says no. That proves nothing about an earlier send.
            BlockhashNotFound, ChainUnavailable: unknown; ask for the outcome.
            RpcError: refused otherwise.
        """
        await self._rpc.send(raw, preflight=first)

    async def outcome(self, signature: str, last_valid_block_height: int) -> Outcome:
        """What became of a transaction.

        EXPIRED needs proof: the *finalized* block height is past the last valid one, and a node that has
        seen that block, its history included, does not know the signature.

        Raises:
            ChainUnavailable: unknown.
        """
        statuses = await self._rpc.signature_statuses([signature])
        status = statuses.value[0]
        if status is None:
            finalized = await self._rpc.epoch_info(Finalized)
            if finalized.block_height <= last_valid_block_height:
                return Outcome(OutcomeState.PENDING)
            # Asked again, after the height: it may have landed between the two answers.
            statuses = await self._rpc.signature_statuses([signature])
            status = statuses.value[0]
            if status is None:
                # Behind a load balancer the second answer may come from a node that lags; where the node that
                # keeps history always does, it has once seen the slot that another told before.
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

    async def send_and_confirm(self, signed: SignedTransaction, commitment: Commitment = Confirmed) -> None:
        """Send and wait until the transaction has landed: for those who have no durable intent to keep.

        Raises:
            TransactionFailed, TransactionExpired: as it ended.
            ChainUnavailable, RpcError: the outcome is unknown.
        """
        await self._rpc.send(signed.raw, preflight=True)
        sent = asyncio.get_running_loop().time()
        while True:
            outcome = await self.outcome(signed.signature, signed.last_valid_block_height)
            if outcome.error is not None:
                raise outcome.error
            if outcome.state is OutcomeState.EXPIRED:
                raise TransactionExpired(
                    f"The {signed.kind} transaction was never taken into a block; repeat it."
                )
            if outcome.finalized or (outcome.state is OutcomeState.CONFIRMED and commitment != Finalized):
                return
            await asyncio.sleep(_POLL)
            now = asyncio.get_running_loop().time()
            if outcome.state is OutcomeState.PENDING and now - sent >= _RESEND_AFTER:
                await self._rpc.send(signed.raw, preflight=False)
                sent = now

    async def _failure(self, signature: str, err: object) -> TransactionFailed:
        """With the program log when the node still has it: only the log names the error surely."""
        try:
            logs = await self._rpc.transaction_logs(signature, Confirmed)
        except ChainError:
            logs = ()
        return TransactionFailed.from_rpc(err, logs)
