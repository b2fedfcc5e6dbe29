"""Finding runs in the markets' transactions."""

from __future__ import annotations

from typing import Any, cast

import pytest
from solana.rpc.commitment import Commitment
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from nosana_operator.chain import DEVNET, MAINNET, ChainUnavailable, JobsProgram, Rpc, Wallet
from nosana_operator.chain.discovery import RunFinder, runs_named_by
from nosana_operator.chain.program import run_positions
from nosana_operator.chain.wire import HistoryEntry

PROGRAM = JobsProgram(DEVNET)
MARKET, HOST, POSTER = (Wallet.generate().address for _ in range(3))


def raw(*instructions: Instruction) -> bytes:
    message = MessageV0.try_compile(Wallet.generate().keypair.pubkey(), instructions, [], Hash.default())
    count = message.header.num_required_signatures
    return bytes(VersionedTransaction.populate(message, [Signature.default()] * count))


def work(run: str, program: JobsProgram = PROGRAM) -> Instruction:
    return program.work(run=run, market=MARKET, node=HOST)


def listing(run: str) -> Instruction:
    job = Wallet.generate().address
    return PROGRAM.list(
        job=job, run=run, market=MARKET, payer=POSTER, project=POSTER, ipfs_job=b"x" * 32, timeout=1
    )


def test_the_places_of_run_accounts() -> None:
    assert sorted(run_positions().values()) == [0, 2, 2]


def test_what_a_transaction_names() -> None:
    first, second = Wallet.generate().address, Wallet.generate().address
    assert runs_named_by(raw(work(first), listing(second)), DEVNET.jobs) == {first, second}
    stop = PROGRAM.stop(market=MARKET, node=HOST)
    assert runs_named_by(raw(stop), DEVNET.jobs) == set()
    other = work(first, JobsProgram(MAINNET))
    assert runs_named_by(raw(other), DEVNET.jobs) == set(), "another program of the same discriminator"
    short = Instruction(other.program_id, other.data, other.accounts[:0])
    assert runs_named_by(raw(short), MAINNET.jobs) == set()
    assert runs_named_by(b"\x01nonsense", DEVNET.jobs) == set()


class Node:
    """Histories, newest first, and the transactions that the node has."""

    def __init__(self) -> None:
        self.history: dict[str, list[HistoryEntry]] = {}
        self.transactions: dict[str, Any] = {}
        self.asked: list[str] = []
        self.page = 1000

    def land(self, *instructions: Instruction, failed: bool = False, kept: bool = True) -> str:
        signature = f"s{len(self.history.get(MARKET, []))}"
        entry = HistoryEntry(signature, 1, {"InstructionError": [0, "x"]} if failed else None)
        self.history.setdefault(MARKET, []).insert(0, entry)
        if kept:
            self.transactions[signature] = raw(*instructions)
        return signature

    async def signatures_of(
        self,
        address: str,
        commitment: Commitment,
        *,
        until: str | None = None,
        before: str | None = None,
    ) -> list[HistoryEntry]:
        self.asked.append("page")
        names = [entry.signature for entry in self.history.get(address, [])]
        start = names.index(before) + 1 if before in names else 0
        end = names.index(until) if until in names else len(names)
        return self.history.get(address, [])[start:end][: self.page]

    async def transaction(self, signature: str, commitment: Commitment) -> bytes | None:
        self.asked.append(signature)
        answer = self.transactions.get(signature)
        if isinstance(answer, Exception):
            raise answer
        return cast("bytes | None", answer)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def finder(node: Node) -> RunFinder:
    return RunFinder(cast(Rpc, node), DEVNET.jobs)


def fresh() -> str:
    return Wallet.generate().address


async def test_each_transaction_is_read_once(node: Node, finder: RunFinder) -> None:
    first, second = fresh(), fresh()
    node.land(work(first))
    node.land(work(fresh()), failed=True)
    assert await finder.find([MARKET]) == {first}
    assert node.asked == ["page", "s0"]
    assert await finder.find([MARKET]) == set()
    node.land(listing(second))
    node.asked.clear()
    assert await finder.find([MARKET]) == {second}
    assert node.asked == ["page", "s2"]


async def test_what_cannot_be_read_yet_is_read_again_and_nothing_is_lost(
    node: Node, finder: RunFinder
) -> None:
    known, late, broken = fresh(), fresh(), fresh()
    node.land(work(known))
    waiting = node.land(work(late), kept=False)
    node.transactions[node.land(work(broken), kept=False)] = ChainUnavailable("away")
    with pytest.raises(ChainUnavailable):
        await finder.find([MARKET])
    node.transactions[waiting] = raw(work(late))
    node.transactions["s2"] = raw(work(broken))
    node.asked.clear()
    assert await finder.find([MARKET]) == {known, late, broken}
    assert "s0" not in node.asked


async def test_many_transactions_between_two_looks(
    node: Node, finder: RunFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_operator.chain.discovery.MAX_HISTORY", 3)
    node.page = 3
    for _ in range(5):
        node.land(work(fresh()))
    assert len(await finder.find([MARKET])) == 3, "the first time, only the newest"
    runs = {fresh() for _ in range(7)}
    for run in runs:
        node.land(work(run))
    assert await finder.find([MARKET]) == runs


async def test_a_cursor_that_a_fork_took_away_ends_somewhere(
    node: Node, finder: RunFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_operator.chain.discovery.MAX_HISTORY", 2)
    node.page = 2
    for _ in range(30):
        node.land(work(fresh()))
    await finder.find([MARKET])
    node.history[MARKET].pop(0)
    node.asked.clear()
    await finder.find([MARKET])
    assert node.asked.count("page") == 5


async def test_a_market_that_is_left_is_forgotten(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.land(work(run))
    assert await finder.find([MARKET]) == {run}
    assert await finder.find([]) == set()
    assert await finder.find([MARKET]) == {run}
