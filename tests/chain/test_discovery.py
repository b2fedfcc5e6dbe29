"""Finding runs in the markets' transactions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest
from solana.rpc.commitment import Commitment
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from nosana_operator.chain import DEVNET, MAINNET, ChainUnavailable, JobsProgram, Rpc, Wallet
from nosana_operator.chain.errors import RpcError
from nosana_operator.chain.program import run_positions
from nosana_operator.chain.rpc.wire import HistoryEntry, SignatureStatus, Slotted
from nosana_operator.chain.watch.discovery import RunFinder, runs_named_by

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
        self.slot = 1

    def land(self, *instructions: Instruction, failed: bool = False, kept: bool = True) -> str:
        signature = f"s{len(self.history.get(MARKET, []))}"
        entry = HistoryEntry(signature, self.slot, {"InstructionError": [0, "x"]} if failed else None)
        self.history.setdefault(MARKET, []).insert(0, entry)
        if kept:
            self.transactions[signature] = raw(*instructions)
        return signature

    def fork(self) -> HistoryEntry:
        """Take the newest transaction back."""
        gone = self.history[MARKET].pop(0)
        self.transactions.pop(gone.signature, None)
        return gone

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

    async def signature_statuses(self, signatures: Sequence[str]) -> Slotted[list[SignatureStatus | None]]:
        self.asked.append("statuses")
        landed = {e.signature: SignatureStatus(e.slot, e.err, "confirmed") for e in self.history[MARKET]}  # type: ignore[arg-type]
        return Slotted(self.slot, [landed.get(signature) for signature in signatures])


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def finder(node: Node) -> RunFinder:
    return RunFinder(cast(Rpc, node), DEVNET.jobs)


def fresh() -> str:
    return Wallet.generate().address


async def found(finder: RunFinder, markets: Collection[str] = (MARKET,)) -> set[str]:
    """What a look that is complete finds."""
    look = await finder.find(markets)
    assert look.problem is None
    return set(look.runs)


async def test_each_transaction_is_read_once(node: Node, finder: RunFinder) -> None:
    first, second = fresh(), fresh()
    node.land(work(first))
    node.land(work(fresh()), failed=True)
    assert await found(finder) == {first}
    assert node.asked == ["page", "s0"]
    assert await found(finder) == set()
    node.land(listing(second))
    node.asked.clear()
    assert await found(finder) == {second}
    assert node.asked == ["page", "s2"]


async def test_what_cannot_be_read_yet_is_read_again_and_the_others_are_told(
    node: Node, finder: RunFinder
) -> None:
    known, late, broken = fresh(), fresh(), fresh()
    node.land(work(known))
    waiting = node.land(work(late), kept=False)
    node.transactions[node.land(work(broken), kept=False)] = ChainUnavailable("away")
    look = await finder.find([MARKET])
    assert look.runs == {known}
    assert isinstance(look.problem, ChainUnavailable)
    node.transactions[waiting] = raw(work(late))
    node.transactions["s2"] = raw(work(broken))
    node.asked.clear()
    assert await found(finder) == {late, broken}
    assert "s0" not in node.asked


async def test_a_market_that_cannot_be_read_does_not_hide_the_others(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.land(work(run), kept=False)
    node.history["other"] = [HistoryEntry("s-other", 1, None)]
    node.transactions["s-other"] = raw(work(run))
    look = await finder.find([MARKET, "other"])
    assert look.runs == {run}
    assert look.problem is not None


async def test_what_a_fork_took_back_is_waited_for_until_finality(node: Node, finder: RunFinder) -> None:
    run = fresh()
    await found(finder)
    node.land(work(fresh()), kept=False)
    node.fork()
    node.history[MARKET].insert(0, HistoryEntry("gone", 1, None))
    assert (await finder.find([MARKET])).problem is not None
    node.history[MARKET].pop(0)
    node.slot = 60
    node.land(work(run))
    look = await finder.find([MARKET])
    assert look.runs == {run}
    assert look.problem is not None, "it may land yet, or the node lags"
    node.slot = 66
    assert await found(finder) == set()
    node.asked.clear()
    assert await found(finder) == set()
    assert node.asked == ["page"]


async def test_a_node_that_lags_proves_nothing(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.slot = 1000
    node.land(work(run), kept=False)
    entry = node.history[MARKET][0]
    assert (await finder.find([MARKET])).problem is not None
    node.history[MARKET].clear()
    node.slot = 700
    for _ in range(100):
        assert (await finder.find([MARKET])).problem is not None
    node.history[MARKET].append(entry)
    node.transactions[entry.signature] = raw(work(run))
    assert await found(finder) == {run}


async def test_what_a_fork_took_back_may_land_in_another_slot(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.land(work(run))
    assert await found(finder) == {run}
    gone = node.fork()
    assert await found(finder) == set()
    node.slot = 3
    assert node.land(work(run)) == gone.signature
    assert await found(finder) == {run}


async def test_a_transaction_of_an_unknown_version_names_nothing(node: Node, finder: RunFinder) -> None:
    run = fresh()
    refusal = RpcError("Transaction version (1) is not supported", code=-32015)
    node.transactions[node.land(kept=False)] = refusal
    node.land(work(run))
    assert await found(finder) == {run}
    node.asked.clear()
    assert await found(finder) == set()
    assert node.asked == ["page"]


@pytest.mark.parametrize("answer", [None, RpcError("missing in long-term storage", code=-32009)])
async def test_what_no_node_gives_while_it_gives_later_ones_is_given_up(
    node: Node, finder: RunFinder, caplog: pytest.LogCaptureFixture, answer: RpcError | None
) -> None:
    lost = node.land(kept=False)
    node.transactions[lost] = answer
    node.slot = 2000
    assert (await finder.find([MARKET])).problem is not None, "perhaps the node keeps no transactions"
    node.land(work(fresh()))
    assert len(await found(finder)) == 1
    assert f"returns transaction {lost}" in caplog.text


async def test_many_transactions_between_two_looks(
    node: Node, finder: RunFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_operator.chain.watch.discovery.MAX_HISTORY", 3)
    node.page = 3
    for number in range(5):
        node.slot = 100 * number
        node.land(work(fresh()))
    assert len(await found(finder)) == 3, "the first time, only the newest"
    runs = {fresh() for _ in range(7)}
    for run in runs:
        node.slot += 100
        node.land(work(run))
    assert await found(finder) == runs


@pytest.mark.parametrize("behind", [1, 100], ids=["one transaction", "hundred"])
async def test_a_node_that_lags_has_nothing_read_again(node: Node, finder: RunFinder, behind: int) -> None:
    for number in range(1500):
        node.slot = number
        node.land(work(fresh()))
    await found(finder)
    ahead = node.history[MARKET]
    node.history[MARKET] = ahead[behind:]
    node.asked.clear()
    assert await found(finder) == set()
    assert node.asked == ["page"]
    node.history[MARKET] = ahead
    run = fresh()
    node.land(work(run))
    node.asked.clear()
    assert await found(finder) == {run}
    assert len(node.asked) == 2


async def test_a_history_without_an_end_ends_somewhere(
    node: Node, finder: RunFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nosana_operator.chain.watch.discovery.MAX_HISTORY", 2)
    node.page = 2
    for _ in range(30):
        node.land(work(fresh()))
    await found(finder)
    node.asked.clear()
    await found(finder)
    assert node.asked.count("page") == 5


async def test_a_false_slot_hides_nothing_once_it_is_known(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.slot = 10**12
    node.land(work(fresh()), kept=False)
    assert (await finder.find([MARKET])).problem is not None
    finder.correct_slots(1000)
    node.slot = 1100
    node.history[MARKET] = [HistoryEntry("s-true", 1090, None)]
    node.transactions["s-true"] = raw(work(run))
    assert await found(finder) == {run}


async def test_a_market_that_is_left_is_forgotten(node: Node, finder: RunFinder) -> None:
    run = fresh()
    node.land(work(run))
    assert await found(finder) == {run}
    assert await found(finder, []) == set()
    assert await found(finder) == {run}
