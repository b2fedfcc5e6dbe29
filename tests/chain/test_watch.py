"""The watcher over a scripted node: what it reads, when, and that it outlives outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, cast

import pytest
from solana.rpc.commitment import Commitment, Confirmed

from nosana_operator.chain import DEVNET, ChainClock, ChainUnavailable, ChainWatcher, Rpc, WatchSettings
from nosana_operator.chain.addresses import CLOCK_SYSVAR
from nosana_operator.chain.rpc.wire import AccountInfo, Memcmp, Slotted
from support.recordings import data_of, steps

STEP = steps("finish")[0]
ROLE = {account["role"]: account["pubkey"] for account in STEP["instruction"]["accounts"]}
RUN, JOB, MARKET, NODE = ROLE["run"], ROLE["job"], ROLE["market"], ROLE["authority"]


def info(role: str) -> AccountInfo:
    account = STEP["pre"][ROLE[role]]
    return AccountInfo(account["lamports"], account["owner"], data_of(account))


class Node:
    """What the chain holds, and what was asked of it."""

    def __init__(self) -> None:
        self.slot = 10
        self.time = 1_750_000_000
        self.runs = {RUN: info("run")}
        self.accounts_held = {JOB: info("job"), MARKET: info("market")}
        self.away = False
        self.asked: list[tuple[str, Any]] = []
        self.round = asyncio.Condition()

    async def _answer(self, method: str, what: Any) -> None:
        self.asked.append((method, what))
        async with self.round:
            self.round.notify_all()
        if self.away:
            raise ChainUnavailable("The RPC node is away.")
        self.slot += 1

    async def program_accounts(
        self, program: str, filters: Iterable[Memcmp], commitment: Commitment, *, not_before: int
    ) -> Slotted[dict[str, AccountInfo]]:
        assert (program, commitment) == (DEVNET.jobs, Confirmed)
        await self._answer("runs", [*filters][1].value)
        return Slotted(self.slot, dict(self.runs))

    async def accounts(
        self, addresses: Sequence[str], commitment: Commitment, *, not_before: int
    ) -> Slotted[dict[str, AccountInfo | None]]:
        await self._answer("accounts", tuple(addresses))
        held: dict[str, AccountInfo | None] = {a: self.accounts_held.get(a) for a in addresses}
        clock = b"".join(n.to_bytes(8, "little") for n in (self.slot, 0, 0, 0, self.time))
        held[CLOCK_SYSVAR] = AccountInfo(1, "Sysvar", clock)
        return Slotted(self.slot, held)

    def refuses(self, method: str) -> bool:
        return False

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(10), self.round:
            await self.round.wait_for(true)
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def watcher(node: Node) -> AsyncIterator[ChainWatcher]:
    clock = ChainClock(wall=lambda: 1_750_000_100.0)
    made = ChainWatcher(
        cast(Rpc, node), (), cast(Any, None), DEVNET.jobs, clock, settings=WatchSettings(*[0.05] * 4)
    )
    task = asyncio.create_task(made.run())
    yield made
    assert not task.done(), "the watcher must never end by itself"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_poll_reads_everything_watched_in_few_requests(node: Node, watcher: ChainWatcher) -> None:
    told: list[tuple[str, str]] = []
    watcher.on_change(lambda kind, address: told.append((kind, address)))
    watcher.watch(keys=[NODE], jobs=[JOB], markets=[MARKET])
    await node.until(lambda: len(told) == 3)
    assert set(told) == {("run", RUN), ("job", JOB), ("market", MARKET)}
    node.asked.clear()
    await node.until(lambda: len(node.asked) >= 3)
    # The known run is covered by the listing, the clock rides along.
    assert ("runs", NODE) in node.asked[:3]
    assert {frozenset(what) for method, what in node.asked if method == "accounts"} == {
        frozenset({CLOCK_SYSVAR, MARKET}),
        frozenset({JOB}),
    }
    assert len(told) == 3, "what did not change is not told again"


async def test_an_outage_is_said_once_and_survived(
    node: Node, watcher: ChainWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    watcher.watch(keys=[NODE], jobs=[], markets=[])
    await node.until(lambda: watcher.runs_of(NODE))
    node.away = True
    count = len(node.asked)
    await node.until(lambda: len(node.asked) > count + 6)
    assert caplog.text.count("cannot be read") == 1
    runs = watcher.runs_of(NODE)
    assert runs is not None
    assert len(runs) == 1, "silence is not absence"
    node.away = False
    node.runs.clear()
    await node.until(lambda: watcher.runs_of(NODE) == ())
    assert watcher.runs[RUN].value is None
    assert watcher.staleness is not None
    await node.until(lambda: "read again" in caplog.text)


async def test_the_chains_clock_comes_with_the_polls(node: Node, watcher: ChainWatcher) -> None:
    await node.until(lambda: watcher.slot)
    clock = watcher._chain_clock
    assert clock.offset == -100
    assert clock.now() == 1_750_000_000
    assert clock.ours(1_750_000_000).timestamp() == 1_750_000_100


async def test_a_broken_listener_does_not_blind_the_others(
    node: Node, watcher: ChainWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []

    def broken(kind: str, address: str) -> None:
        raise RuntimeError("mine")

    watcher.on_change(broken)
    watcher.on_change(lambda kind, address: told.append(address))
    watcher.watch(keys=[NODE], jobs=[], markets=[])
    await node.until(lambda: told == [RUN])
    assert "a listener to run" in caplog.text


async def test_staleness_begins_with_the_watcher(node: Node) -> None:
    now = 1000.0
    made = ChainWatcher(cast(Rpc, node), (), cast(Any, None), DEVNET.jobs, ChainClock(), clock=lambda: now)
    assert made.staleness is None, "a replica that waits to lead watches nothing"
    node.away = True
    task = asyncio.create_task(made.run())
    await node.until(lambda: node.asked)
    now = 1100.0
    assert made.staleness == 100
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_before_the_first_reading_the_chains_time_is_unknown() -> None:
    with pytest.raises(ChainUnavailable, match="has not been read"):
        ChainClock().now()


def test_a_node_that_lags_does_not_set_the_clock_back() -> None:
    clock = ChainClock(wall=lambda: 1_750_000_000.0)
    clock.observe(1_750_000_002, 500)
    clock.observe(1_749_999_900, 250)
    assert clock.offset == 2
    clock.observe(1_750_000_001, 500)
    assert clock.offset == 1
