"""What a key earned, read from its transactions: those that come through another program, and odd nodes.

The ledger as a whole: tests/contract/test_ledger.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from fakes.chain import keypair
from nosana_operator.chain import DEVNET
from nosana_operator.chain.addresses import TOKEN
from nosana_operator.chain.errors import ChainUnavailable
from nosana_operator.chain.ledger import LedgerEntry, read_ledger, signed_by
from nosana_operator.chain.program import JobsProgram, read_instruction
from nosana_operator.chain.rpc.methods import MAX_HISTORY
from nosana_operator.chain.rpc.wire import HistoryEntry, InnerInstruction, LandedTransaction

PROGRAM = JobsProgram(DEVNET)
OWNER, HOST, OTHER = keypair("owner"), keypair("host"), keypair("another host")
MULTISIG = keypair("multisig").pubkey()


def end_of(host: Keypair, job: str) -> Instruction:
    """The `end` of a job that this host runs, whose owner is an account of the multisig program."""
    vault = str(keypair("multisig's vault").pubkey())
    market, run = (str(keypair(name).pubkey()) for name in ("market", f"run of {job}"))
    return PROGRAM.end(
        job=str(keypair(job).pubkey()),
        market=market,
        run=run,
        node=str(host.pubkey()),
        job_payer=vault,
        run_payer=vault,
        project=vault,
    )


def through_multisig(*paid: tuple[Instruction, int]) -> LandedTransaction:
    """One instruction of the multisig program, which calls these, each of which pays its host so much."""
    metas = [AccountMeta(one.pubkey, False, one.is_writable) for each, _ in paid for one in each.accounts] + [
        AccountMeta(each.program_id, False, False) for each, _ in paid
    ]
    outer = Instruction(MULTISIG, b"\x01execute", metas)
    message = MessageV0.try_compile(OWNER.pubkey(), [outer], [], Hash.default())
    keys = [str(key) for key in message.account_keys]

    def at(key: Pubkey | str) -> int:
        return keys.index(str(key))

    inner = []
    for each, amount in paid:
        known = read_instruction(bytes(each.data), [str(one.pubkey) for one in each.accounts])
        assert known is not None
        vault, user = known[1]["vault"], known[1]["user"]
        inner += [
            InnerInstruction(
                at(each.program_id), tuple(at(one.pubkey) for one in each.accounts), bytes(each.data)
            ),
            InnerInstruction(
                at(TOKEN), (at(vault), at(user), at(vault)), bytes([3]) + amount.to_bytes(8, "little")
            ),
        ]
    return LandedTransaction(
        raw=bytes(VersionedTransaction(message, [OWNER])),
        slot=1,
        time=1,
        fee=5000,
        err=None,
        loaded=(),
        inner={0: tuple(inner)},
    )


class Node:
    """An RPC node with one transaction."""

    def __init__(self, transaction: LandedTransaction) -> None:
        self.transaction = transaction

    async def signatures_of(self, *_: Any, before: str | None) -> list[HistoryEntry]:
        return [HistoryEntry(signature="s", slot=1, time=1, err=None)]

    async def landed(self, *_: Any) -> LandedTransaction:
        return self.transaction

    async def accounts(self, addresses: list[str], *_: Any) -> Any:
        class Found:
            value = dict.fromkeys(addresses)

        return Found


class StuckNode(Node):
    """It names the same full page, wherever one asks it to go on."""

    async def signatures_of(self, *_: Any, before: str | None) -> list[HistoryEntry]:
        return [HistoryEntry(signature=f"s{n}", slot=1, time=1, err=None) for n in range(MAX_HISTORY)]


async def ledger(node: Node, key: Keypair) -> list[LedgerEntry]:
    rpc: Any = node
    return await read_ledger(rpc, DEVNET, str(key.pubkey()))


async def test_an_end_that_comes_through_another_program_is_told() -> None:
    node = Node(through_multisig((end_of(HOST, "job"), 400)))
    (entry,) = await ledger(node, HOST)
    assert (entry.kind, entry.earned, entry.fee) == ("end", 400, 0)
    assert entry.job == str(keypair("job").pubkey())


async def test_each_of_several_calls_has_its_own_payment() -> None:
    node = Node(through_multisig((end_of(OTHER, "first"), 70), (end_of(HOST, "second"), 400)))
    assert [entry.earned for entry in await ledger(node, HOST)] == [400]
    assert [entry.earned for entry in await ledger(node, OTHER)] == [70]


async def test_an_owners_end_through_another_program_is_no_use_of_the_key() -> None:
    rpc: Any = Node(through_multisig((end_of(HOST, "job"), 400)))
    assert await signed_by(rpc, DEVNET, "s", str(HOST.pubkey())) is None


async def test_a_key_is_used_through_another_program_too() -> None:
    stop = PROGRAM.stop(market=str(keypair("market").pubkey()), node=str(HOST.pubkey()))
    outer = Instruction(MULTISIG, b"", [*stop.accounts, AccountMeta(stop.program_id, False, False)])
    message = MessageV0.try_compile(HOST.pubkey(), [outer], [], Hash.default())
    at = [str(key) for key in message.account_keys].index
    call = InnerInstruction(
        at(str(stop.program_id)), tuple(at(str(one.pubkey)) for one in stop.accounts), bytes(stop.data)
    )
    raw = bytes(VersionedTransaction(message, [HOST]))
    rpc: Any = Node(LandedTransaction(raw, 1, 1, 5000, None, (), {0: (call,)}))
    assert await signed_by(rpc, DEVNET, "s", str(HOST.pubkey())) == "stop"


async def test_a_node_that_tells_the_same_history_for_ever_is_not_asked_for_ever() -> None:
    with pytest.raises(ChainUnavailable, match="again and again"):
        await ledger(StuckNode(through_multisig((end_of(HOST, "job"), 400))), HOST)
