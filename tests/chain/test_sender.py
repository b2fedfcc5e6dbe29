"""Signing, the durable form, and the table of outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solders.compute_budget import ID as COMPUTE_BUDGET
from solders.hash import Hash
from solders.transaction import VersionedTransaction

from nosana_operator.chain import (
    DEVNET,
    ChainUnavailable,
    InvalidInstruction,
    JobsProgram,
    Outcome,
    OutcomeState,
    Rpc,
    Sender,
    SignedTransaction,
    Wallet,
)
from nosana_operator.chain.rpc.wire import Blockhash, EpochInfo, SignatureStatus, Slotted
from nosana_operator.chain.sender import sign_transaction

PROGRAM = JobsProgram(DEVNET)
BLOCKHASH = Blockhash(str(Hash.new_unique()), 1000)
FAILURE = {"InstructionError": [1, {"Custom": 6000}]}
LOG = ("Program log: AnchorError. Error Code: Unauthorized. Error Number: 6000. Error Message: x",)


@dataclass
class Node:
    """Scripted answers, and what was asked."""

    statuses: list[SignatureStatus | None] = field(default_factory=list)
    status_slot: int = 500
    finalized: EpochInfo = field(default_factory=lambda: EpochInfo(slot=490, block_height=900))
    logs: tuple[str, ...] | None = LOG
    asked: list[str] = field(default_factory=list)

    async def signature_statuses(self, signatures: Sequence[str]) -> Slotted[list[SignatureStatus | None]]:
        self.asked.append("statuses")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return Slotted(self.status_slot, [status])

    async def epoch_info(self, commitment: Commitment) -> EpochInfo:
        assert commitment == Finalized, "expiry is decided at finalized"
        self.asked.append("epoch")
        return self.finalized

    async def transaction_logs(self, signature: str, commitment: Commitment) -> tuple[str, ...]:
        if self.logs is None:
            raise ChainUnavailable("away")
        return self.logs

    async def send(self, raw: bytes, *, preflight: bool) -> str:
        self.asked.append("send" if preflight else "resend")
        return ""


def sender(node: Node) -> Sender:
    return Sender(cast(Rpc, node))


def status(commitment: Commitment, err: object | None = None) -> SignatureStatus:
    return SignatureStatus(slot=480, err=err, commitment=commitment)


@pytest.mark.parametrize(
    ("node", "state", "finalized"),
    [
        (Node([status(Processed)]), OutcomeState.PENDING, False),
        # A fork can still undo a processed failure.
        (Node([status(Processed, FAILURE)]), OutcomeState.PENDING, False),
        (Node([status(Confirmed)]), OutcomeState.CONFIRMED, False),
        (Node([status(Finalized)]), OutcomeState.FINALIZED, True),
        (Node([status(Confirmed, FAILURE)]), OutcomeState.FAILED, False),
        (Node([status(Finalized, FAILURE)]), OutcomeState.FAILED, True),
        (Node([None]), OutcomeState.PENDING, False),
        # At the last valid height it can still land.
        (Node([None], finalized=EpochInfo(490, 1000)), OutcomeState.PENDING, False),
        (Node([None], finalized=EpochInfo(490, 1001)), OutcomeState.EXPIRED, True),
        # The second answer comes from a node that has not seen that block.
        (Node([None], status_slot=489, finalized=EpochInfo(490, 1001)), OutcomeState.PENDING, False),
        # It landed between the two answers.
        (Node([None, status(Confirmed)], finalized=EpochInfo(490, 1001)), OutcomeState.CONFIRMED, False),
    ],
)
async def test_outcomes(node: Node, state: OutcomeState, finalized: bool) -> None:
    outcome = await sender(node).outcome("sig", 1000)
    assert (outcome.state, outcome.finalized) == (state, finalized)
    assert (outcome.error is not None) == (state is OutcomeState.FAILED)


async def test_where_history_is_kept_by_a_node_that_always_lags_a_signature_expires_at_last() -> None:
    node = Node([None], status_slot=400, finalized=EpochInfo(490, 1001))
    asked = sender(node)
    assert (await asked.outcome("sig", 1000)).state is OutcomeState.PENDING
    node.status_slot, node.finalized = 489, EpochInfo(579, 1090)
    assert (await asked.outcome("sig", 1000)).state is OutcomeState.PENDING
    node.status_slot, node.finalized = 490, EpochInfo(580, 1091)
    assert (await asked.outcome("sig", 1000)).state is OutcomeState.EXPIRED
    assert (await asked.outcome("another", 1000)).state is OutcomeState.PENDING


async def test_a_failure_is_named_by_its_log_only() -> None:
    named = (await sender(Node([status(Confirmed, FAILURE)])).outcome("sig", 1000)).error
    assert named is not None
    assert (named.name, named.number) == ("Unauthorized", 6000)
    bare = (await sender(Node([status(Confirmed, FAILURE)], logs=None)).outcome("sig", 1000)).error
    assert bare is not None
    assert (bare.name, bare.number) == (None, 6000)


async def test_silence_is_no_outcome() -> None:
    class Silent(Node):
        async def epoch_info(self, commitment: Commitment) -> EpochInfo:
            raise ChainUnavailable("away")

    with pytest.raises(ChainUnavailable):
        await sender(Silent([None])).outcome("sig", 1000)


async def test_a_landed_transaction_costs_one_request() -> None:
    node = Node([status(Confirmed)])
    await sender(node).outcome("sig", 1000)
    assert node.asked == ["statuses"]


def test_signing() -> None:
    host, run = Wallet.generate(), Wallet.generate()
    work = PROGRAM.work(run=run.address, market=DEVNET.jobs, node=host.address)
    signed = sign_transaction(
        "work",
        [work],
        host,
        (run,),
        BLOCKHASH,
        compute_unit_limit=60_000,
        priority_fee=50,
        run=run.address,
    )
    transaction = VersionedTransaction.from_bytes(signed.raw)
    assert all(transaction.verify_with_results())
    assert str(transaction.signatures[0]) == signed.signature
    assert str(transaction.message.recent_blockhash) == signed.blockhash == BLOCKHASH.blockhash
    assert (signed.kind, signed.key, signed.run) == ("work", host.address, run.address)
    assert signed.last_valid_block_height == 1000
    keys = transaction.message.account_keys
    programs = [keys[ix.program_id_index] for ix in transaction.message.instructions]
    assert programs[:2] == [COMPUTE_BUDGET, COMPUTE_BUDGET]
    assert bytes(transaction.message.instructions[0].data) == b"\x02" + (60_000).to_bytes(4, "little")
    assert bytes(transaction.message.instructions[1].data) == b"\x03" + (50).to_bytes(8, "little")


def test_without_a_priority_fee_there_is_no_price() -> None:
    host = Wallet.generate()
    stop = PROGRAM.stop(market=DEVNET.jobs, node=host.address)
    signed = sign([stop], host)
    assert len(VersionedTransaction.from_bytes(signed.raw).message.instructions) == 2


def sign(instructions: list[Any], wallet: Wallet, blockhash: Blockhash = BLOCKHASH) -> SignedTransaction:
    return sign_transaction("x", instructions, wallet, (), blockhash, compute_unit_limit=1000, priority_fee=0)


def test_what_cannot_be_signed_is_told() -> None:
    host = Wallet.generate()
    work = PROGRAM.work(run=Wallet.generate().address, market=DEVNET.jobs, node=host.address)
    with pytest.raises(InvalidInstruction, match="signers"):
        sign([work], host)
    large = [
        PROGRAM.create_nos_account(payer=host.address, owner=Wallet.generate().address) for _ in range(20)
    ]
    with pytest.raises(InvalidInstruction, match="1232 fit"):
        sign(large, host)
    with pytest.raises(ChainUnavailable, match="blockhash"):
        sign([], host, Blockhash("zz", 1))


def test_an_outcome_is_not_final_unless_said() -> None:
    assert Outcome(OutcomeState.CONFIRMED).finalized is False
