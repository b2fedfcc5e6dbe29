"""Two NosanaMarkets on the same GPUs in bad weather: crashes, cuts, lagging nodes, lost and late transactions.

Whatever happens, there are never more runs and standing keys than GPUs, over both, and every job is settled.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from fakes.market import MarketLab
from fakes.other_hosts import add_market, matches, post_to, spec
from fakes.trouble import Crash, Silence
from nosana_operator.api import condition_is_true

_STORM = 60.0
"""Seconds of trouble."""
_CALM_LIMIT = 300.0


class Weather:
    """One seed's weather over two markets with two keys each, and one key that both have."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.crash, self.cut = rng.choice([0.0, 0.01, 0.05]), rng.choice([0.0, 0.02, 0.15])
        self.drop, self.late = rng.choice([0.0, 0.2, 0.5]), rng.choice([1, 5, 20])
        self.quiet = False
        self.gpus = rng.choice([1, 2, 3])
        self.lab = lab = MarketLab(hosts=5, gpus=self.gpus, seconds=lambda: rng.uniform(0, 10))
        spec(lab, wallets=[{"secretRef": {"name": f"wallet-{n}"}} for n in (0, 1, 4)])
        add_market(lab, "second", ["wallet-2", "wallet-3", "wallet-4"])
        lab.kube.interrupt = self._gate
        lab.rpc.gate = self._gate
        lag, watch, blind = rng.choice([0, 3, 8]), rng.choice([0, 3]), rng.choice([0.0, 0.3, 0.8])
        lab.rpc.lag = lambda: 0 if self.quiet else rng.randint(0, lag)
        lab.watch_lag = lambda: 0 if self.quiet else rng.randint(0, watch)
        lab.blind = lambda: not self.quiet and rng.random() < blind
        lab.rpc.delay = self._delay
        self.jobs = rng.randint(3, 6)
        for n in range(self.jobs):
            post = (lambda n=n: post_to(lab, "second", n)) if n % 2 else lambda: lab.post()
            lab.after(rng.uniform(0, 40), post)

    def _delay(self) -> int | None:
        if self.quiet:
            return 1
        return None if self.rng.random() < self.drop else self.rng.randint(1, self.late)

    async def _gate(self, *what: Any) -> None:
        drawn = 1.0 if self.quiet else self.rng.random()
        if drawn < self.crash:
            raise Crash
        if drawn < self.crash + self.cut:
            raise Silence("cut")

    async def live(self) -> None:
        lab, end = self.lab, self.lab.clock.now().timestamp() + _STORM
        while lab.clock.now().timestamp() < end:
            await self._slot()
        self.quiet = True
        end += _CALM_LIMIT
        while not self._over():
            assert lab.clock.now().timestamp() < end, f"it does not come to rest: {lab.story()}"
            await self._slot()
        assert lab.count("Finish") == self.jobs
        assert not [one for one in lab.events.seen if one[1] == "KeyInUseElsewhere"]

    async def _slot(self) -> None:
        await self.lab.slot()
        assert matches(self.lab, "market", "second") <= self.gpus, "more matches than GPUs"

    def _over(self) -> bool:
        bodies = self.lab.nosana_jobs()
        return len(bodies) == self.jobs and all(
            condition_is_true((body.get("status") or {}).get("conditions"), "Settled") for body in bodies
        )


async def brave(seeds: range) -> None:
    for seed in seeds:
        weather = Weather(seed)
        try:
            await weather.live()
        except Exception as problem:
            raise AssertionError(f"seed {seed}: {problem}") from problem


@pytest.mark.parametrize("first", range(0, 40, 10))
async def test_two_markets_share_gpus_in_any_weather(first: int) -> None:
    await brave(range(first, first + 10))


@pytest.mark.parametrize("seed", [1064, 1278, 1751])
async def test_weather_that_broke_something_once(seed: int) -> None:
    """A stop that came too late; a reading that failed and counted; a write whose answer was lost."""
    await brave(range(seed, seed + 1))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(1000, 2000, 100))
async def test_two_markets_share_gpus_in_any_weather_at_length(first: int) -> None:
    await brave(range(first, first + 100))
