"""Running 500 jobs with 8 keys in 3 markets: requests a second, and how late things are seen. Time is simulated.

Market host and keeper are at work over the sandbox's chain, without sockets, so an hour takes minutes; every
request counts, whoever makes it. Two RPC nodes. "dead" is without a WebSocket; "followed" has one that tells of
all, as far as the intervals go: its notifications would come on top. "access_keys": the markets are only for
those who hold a token, as Nosana's own are.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from solders.pubkey import Pubkey

from nosana_sandbox.program.layout import STATE_DONE, Job

if TYPE_CHECKING:
    from fakes.steady_load import SteadyFleet

TESTS: Final = Path(__file__).parents[1] / "tests"

NAME: Final = "chain"
GOAL: Final = {
    "requests_per_second_dead": 1.0,
    "requests_per_second_followed": 1.0,
    "requests_per_second_dead_access_keys": 1.0,
    "requests_per_second_followed_access_keys": 1.0,
    "end_seen_seconds_dead_max": 10.0,
}
SECONDS: Final = 600
ENDS: Final = 50
BETWEEN: Final = (5.0, 25.0)
"""Seconds from one end to the next."""


async def _ends(fleet: SteadyFleet, jobs: Sequence[Pubkey]) -> list[float]:
    """Seconds after which the `end` of each of these jobs was seen, shortest first."""
    from fakes.steady_load import jobs_account

    loop, chance = asyncio.get_running_loop(), random.Random(7)
    ended: dict[str, float] = {}
    late: list[float] = []

    def changed(kind: str, address: str) -> None:
        if address in ended:
            late.append(loop.time() - ended.pop(address))

    fleet.watcher.on_change(changed)
    for job in jobs:
        await asyncio.sleep(chance.uniform(*BETWEEN))
        held = fleet.bank.account(job)
        assert held is not None
        fleet.bank.place(job, jobs_account(replace(Job.decode(held.data), state=STATE_DONE)))
        ended[str(job)] = loop.time()
    await asyncio.sleep(30)
    assert not ended, "each end is seen"
    return sorted(late)


def run() -> dict[str, Any]:
    """For `benchmarks.run`."""
    # The stand-ins for the API server and the operator's edges are the tests'.
    sys.path.insert(0, str(TESTS))
    from fakes.steady_load import Steady, live

    logging.disable(logging.WARNING)
    figures: dict[str, Any] = {"simulated_seconds": SECONDS}

    async def measure(fleet: SteadyFleet) -> None:
        await fleet.settle_in()
        for markets in ("", "_access_keys"):
            for followed in (False, True):
                fleet.followed = followed
                name = ("followed" if followed else "dead") + markets
                rate = await fleet.rate(SECONDS)
                figures[f"requests_per_second_{name}"] = round(rate.pop("sum"), 3)
                figures[f"by_method_{name}"] = {method: round(each, 3) for method, each in rate.items()}
            fleet.ask_for_access_keys()
            await fleet.settle_in()
        for name, jobs in (("dead", fleet.jobs[:ENDS]), ("followed", fleet.jobs[ENDS : 2 * ENDS])):
            fleet.followed = name == "followed"
            late = await _ends(fleet, jobs)
            figures[f"end_seen_seconds_{name}_max"] = round(late[-1], 1)
            figures[f"end_seen_seconds_{name}_median"] = round(late[len(late) // 2], 1)

    live(Steady(), measure)
    return figures


if __name__ == "__main__":
    print(run())
