"""A chain in simulated time with hosts and running jobs, and the client that watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from fakes.virtual_time import run_virtually
from nosana_operator.chain import DEVNET, ChainClient, ChainWatcher, Network
from nosana_sandbox.chain import Bank, ChainClock, DirectSession
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import Job, Market, Run, rent_exempt_minimum
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
