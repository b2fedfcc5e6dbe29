"""With the WebSocket dead or mute: how late things are seen, and what it costs. Time is simulated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import aiohttp
import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from fakes.virtual_time import run_virtually
from nosana_operator.chain import DEVNET, ChainClient, ChainWatcher, JobState, Network
from nosana_sandbox.chain import Bank, ChainClock, DirectSession
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import STATE_DONE, Job, Market, Run, rent_exempt_minimum
from nosana_sandbox.world.genesis import Founded, found

START = 1_750_000_000
SLOT = 0.4


def account(state: Job | Run | Market) -> Account:
    return Account(rent_exempt_minimum(state.SPACE), JOBS_PROGRAM, state.encode().ljust(state.SPACE, b"\0"))


@dataclass
class Scene:
    """A chain with hosts and running jobs, in simulated time, and the client that watches it."""

    founded: Founded
    session: DirectSession
    client: ChainClient
    hosts: list[Pubkey]
    runs: dict[Pubkey, Run] = field(default_factory=dict)

    @property
    def watcher(self) -> ChainWatcher:
        return self.client.watcher

    def job(self, host: Pubkey, timeout: int = 3600) -> tuple[Pubkey, Pubkey]:
        """A job of the market and its run by that host; their addresses."""
        job, run = Keypair().pubkey(), Keypair().pubkey()
        self.founded.bank.place(job, account(Job(market=self.founded.market, timeout=timeout)))
        self.runs[run] = Run(job=job, node=host, payer=host, time=START)
        self.founded.bank.place(run, account(self.runs[run]))
        return job, run

    def stands(self, host: Pubkey, stands: bool) -> None:
        """Put a host into the market's queue, or take it out."""
        bank, where = self.founded.bank, self.founded.market
        held = bank.account(where)
        assert held is not None
        market = Market.decode(held.data)
        market.queue = [*market.queue, host] if stands else [key for key in market.queue if key != host]
        market.queue_type = 1 if market.queue else 255
        bank.place(where, account(market))

    def watch(self) -> None:
        self.watcher.watch(
            keys=[str(host) for host in self.hosts],
            jobs=[str(run.job) for run in self.runs.values()],
            markets=[str(self.founded.market)],
        )

    async def until(self, true: Any, seconds: float = 100) -> float:
        """Seconds until it is so."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - time is simulated: looking costs nothing
                await asyncio.sleep(0.05)
        return loop.time() - began


def simulate(
    program: Any,
    *,
    hosts: int = 1,
    jobs: int = 0,
    followed: bool = False,
    session: Callable[[Bank], DirectSession] | None = None,
    urls: Sequence[str] = ("http://node",),
) -> Any:
    """Run `program(scene)` with the watcher on; without a WebSocket unless the session offers one."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        founded = found(finality=4, clock=ChainClock(lambda: START + loop.time()))
        http = session(founded.bank) if session else DirectSession(founded.bank, seconds=0.05)
        ws_urls = ("ws://node",) if hasattr(http, "ws_connect") else ()
        client = ChainClient(Network(tuple(urls), ws_urls, DEVNET), cast(aiohttp.ClientSession, http))
        client.clock._wall = lambda: START + loop.time()
        kind = type("Followed", (ChainWatcher,), {"followed": True}) if followed else ChainWatcher
        watcher = client.watcher = kind(
            client.watcher._rpc, ws_urls, cast(Any, http), DEVNET.jobs, client.clock, clock=loop.time
        )
        scene = Scene(founded, http, client, [Keypair().pubkey() for _ in range(hosts)])
        for number in range(jobs):
            scene.job(scene.hosts[number % hosts])
        founded.bank.tick(2)

        async def slots() -> None:
            while True:
                await asyncio.sleep(SLOT)
                founded.bank.tick()

        tasks = [asyncio.create_task(slots()), asyncio.create_task(watcher.run())]
        try:
            scene.watch()
            await scene.until(lambda: watcher.runs_of(str(scene.hosts[0])) is not None)
            return await program(scene)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends

    return run_virtually(run())


def test_an_hour_without_a_websocket_keeps_the_bounds() -> None:
    async def program(scene: Scene) -> dict[str, list[float]]:
        chance, bank, watcher = random.Random(5), scene.founded.bank, scene.watcher
        late: dict[str, list[float]] = {"run": [], "extension": [], "end": []}
        host = scene.hosts[0]
        for _ in range(50):
            scene.stands(host, True)
            await asyncio.sleep(chance.uniform(20, 60))
            # Matched: it stands no more, and a run exists.
            scene.stands(host, False)
            job, run = scene.job(host)
            late["run"].append(
                await scene.until(lambda run=run: getattr(watcher.runs.get(str(run)), "value", None))
            )
            scene.watch()
            await asyncio.sleep(chance.uniform(5, 20))
            for event, change in (
                ("extension", {"timeout": 7200}),
                ("end", {"timeout": 7200, "state": STATE_DONE}),
            ):
                held = bank.account(job)
                assert held is not None
                bank.place(job, account(replace(Job.decode(held.data), **change)))
                if event == "end":
                    bank.place(run, None)

                def seen(event: str = event, job: Pubkey = job) -> bool:
                    value = watcher.jobs[str(job)].value
                    assert value is not None
                    return value.timeout == 7200 if event == "extension" else value.state is JobState.DONE

                late[event].append(await scene.until(seen))
                await asyncio.sleep(chance.uniform(0, 10))
            del scene.runs[run]
            scene.watch()
        assert asyncio.get_running_loop().time() > 3600
        return late

    late = simulate(program)
    assert max(late["run"]) <= 10
    assert max(late["end"]) <= 10
    assert max(late["extension"]) <= 30


def test_a_run_is_seen_though_we_were_never_seen_standing() -> None:
    """`work` and the match fall between two looks at the market."""

    async def program(scene: Scene) -> float:
        await asyncio.sleep(30.2)
        scene.watcher.expect(str(scene.hosts[0]))
        await asyncio.sleep(0.5)
        scene.job(scene.hosts[0])
        return await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])))

    assert simulate(program) <= 10


def test_standing_ends_the_expectation() -> None:
    async def program(scene: Scene) -> int:
        scene.watcher.expect(str(scene.hosts[0]))
        scene.stands(scene.hosts[0], True)
        await asyncio.sleep(12)
        before = scene.session.requests
        await asyncio.sleep(40)
        return scene.session.requests - before

    assert simulate(program) <= 40 / 6 + 2


def test_a_closed_run_is_missed_within_a_minute_and_a_half() -> None:
    """An admin's quit touches the run only."""

    async def program(scene: Scene) -> float:
        _, run = scene.job(scene.hosts[0])
        await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])))
        scene.founded.bank.place(run, None)
        return await scene.until(lambda: scene.watcher.runs_of(str(scene.hosts[0])) == ())

    assert simulate(program) <= 91


@pytest.mark.parametrize(("followed", "most"), [(False, 0.86), (True, 0.48)])
def test_500_running_jobs_leave_room_below_one_request_a_second(followed: bool, most: float) -> None:
    """For what the market room reads: keys' funds and history, payout addresses."""

    async def program(scene: Scene) -> float:
        before = scene.session.requests
        await asyncio.sleep(900)
        return (scene.session.requests - before) / 900

    assert simulate(program, hosts=8, jobs=500, followed=followed) <= most


def test_a_slow_node_hides_no_end_for_long() -> None:
    async def program(scene: Scene) -> float:
        chance, bank, late = random.Random(1), scene.founded.bank, 0.0
        for run in [*scene.runs.values()][:25]:
            await asyncio.sleep(chance.uniform(0, 9))
            held = bank.account(run.job)
            assert held is not None
            bank.place(run.job, account(replace(Job.decode(held.data), state=STATE_DONE)))

            def seen(job: str = str(run.job)) -> bool:
                value = scene.watcher.jobs[job].value
                return value is not None and value.state is JobState.DONE

            late = max(late, await scene.until(seen))
        return late

    assert simulate(program, hosts=8, jobs=500, session=partial(DirectSession, seconds=1.0)) <= 10


def test_after_two_hours_away_everything_is_read_within_seconds() -> None:
    async def program(scene: Scene) -> float:
        watcher = scene.watcher
        scene.session.faults.add("cut")
        await asyncio.sleep(7200)
        assert watcher.staleness is not None
        assert watcher.staleness > 7000
        assert len(watcher.runs_of(str(scene.hosts[0])) or ()) == 50, "what was known stays"
        job, run = next((run.job, address) for address, run in scene.runs.items())
        scene.founded.bank.place(job, account(Job(market=scene.founded.market, state=STATE_DONE)))
        scene.founded.bank.place(run, None)
        scene.founded.bank.tick(2)
        scene.session.faults.clear()

        def seen() -> bool:
            value = watcher.jobs[str(job)].value
            return value is not None and value.state is JobState.DONE

        late = await scene.until(seen)
        return late + await scene.until(lambda: len(watcher.runs_of(str(scene.hosts[0])) or ()) == 49)

    assert simulate(program, jobs=50) <= 10
