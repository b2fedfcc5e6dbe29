"""Watching 500 running jobs of 8 keys: requests a second, and how late things are seen. Time is simulated.

The chain is the sandbox's, without sockets, so an hour takes seconds. "dead" is without a WebSocket; "followed"
has one that is alive, as far as the intervals go, and tells nothing: its notifications would come on top.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from dataclasses import replace
from typing import Any, cast

import aiohttp
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from nosana_operator.chain import DEVNET, ChainClient, ChainWatcher, Network
from nosana_sandbox.chain import Bank, ChainClock, DirectSession
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import STATE_DONE, Job, Run, rent_exempt_minimum
from nosana_sandbox.world.genesis import found

NAME = "chain"
GOAL = {"requests_per_second_dead": 1.0, "end_seen_seconds_dead_max": 10.0}
KEYS = 8
JOBS = 500
SECONDS = 1800
START = 1_750_000_000


class _Selector(selectors.SelectSelector):
    """Jumps to the next timer instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        self.now += 0.0 if ready or timeout is None else max(0.0, timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


class _Followed(ChainWatcher):
    """Takes its WebSocket for one that tells of all accounts."""

    followed = True


def _account(state: Job | Run) -> Account:
    return Account(rent_exempt_minimum(state.SPACE), JOBS_PROGRAM, state.encode().ljust(state.SPACE, b"\0"))


def _populate(bank: Bank, market: Pubkey, keys: list[Pubkey]) -> list[Pubkey]:
    jobs = []
    for number in range(JOBS):
        job = Keypair().pubkey()
        jobs.append(job)
        bank.place(job, _account(Job(market=market, timeout=3600)))
        run = Run(job=job, node=keys[number % KEYS], payer=keys[number % KEYS], time=START)
        bank.place(Keypair().pubkey(), _account(run))
    bank.tick(2)
    return jobs


async def _measure(kind: type[ChainWatcher]) -> tuple[float, list[float]]:
    """Requests a second, and the seconds after which each of 100 ends was seen."""
    loop = asyncio.get_running_loop()
    founded = found(finality=4, clock=ChainClock(lambda: START + loop.time()))
    bank, session = founded.bank, DirectSession(founded.bank, seconds=0.05)
    client = ChainClient(Network(("http://node",), (), DEVNET), cast(aiohttp.ClientSession, session))
    watcher = kind(client.rpc, (), cast(Any, session), DEVNET.jobs, client.clock, clock=loop.time)
    keys = [Keypair().pubkey() for _ in range(KEYS)]
    jobs = _populate(bank, founded.market, keys)
    ended: dict[str, float] = {}
    late: list[float] = []

    def changed(kind: str, address: str) -> None:
        if address in ended:
            late.append(loop.time() - ended.pop(address))

    async def slots() -> None:
        while True:
            await asyncio.sleep(0.4)
            bank.tick()

    tasks = [asyncio.create_task(slots()), asyncio.create_task(watcher.run())]
    watcher.watch(keys=[*map(str, keys)], jobs=[*map(str, jobs)], markets=[str(founded.market)])
    await asyncio.sleep(5)
    watcher.on_change(changed)
    chance, before = random.Random(7), session.requests
    for job in chance.sample(jobs, 100):
        await asyncio.sleep(SECONDS / 100 * chance.uniform(0.5, 1.5))
        held = bank.account(job)
        assert held is not None
        bank.place(job, _account(replace(Job.decode(held.data), state=STATE_DONE)))
        ended[str(job)] = loop.time()
    await asyncio.sleep(30)
    rate = (session.requests - before) / (loop.time() - 5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not ended, "each end is seen"
    return rate, late


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    figures: dict[str, Any] = {"keys": KEYS, "jobs": JOBS, "simulated_seconds": SECONDS}
    for name, kind in (("dead", ChainWatcher), ("followed", _Followed)):
        with asyncio.Runner(loop_factory=_Loop) as runner:
            rate, late = runner.run(_measure(kind))
        figures[f"requests_per_second_{name}"] = round(rate, 3)
        figures[f"end_seen_seconds_{name}_max"] = round(max(late), 1)
        figures[f"end_seen_seconds_{name}_median"] = round(sorted(late)[len(late) // 2], 1)
    return figures


if __name__ == "__main__":
    print(run())
