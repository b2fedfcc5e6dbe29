"""The market host's queue over the in-memory chain: slots, keys, leaving and standing again."""

from __future__ import annotations

from typing import Any

from fakes.market import ADMIN, MARKET, MarketLab
from nosana_operator.api import MARKET_KIND


def slots(lab: MarketLab) -> dict[str, Any]:
    return dict((lab.market().get("status") or {}).get("slots") or {})


def set_gpus(lab: MarketLab, count: int, node: str = "node-1") -> None:
    lab.kube.edit("Node", None, node, {"status": {"allocatable": {"nvidia.com/gpu": str(count)}}})


# -- slots


async def test_a_run_that_was_given_back_is_settled_as_soon_as_that_is_final() -> None:
    """Not only when the run is so old that its absence alone tells: its job would stand about meanwhile."""
    lab = MarketLab(gpus=1, market={"onBadDefinition": "Quit"})
    lab.jobs.bad_definitions = True
    await lab.until(lab.standing)
    posted = lab.post()
    await lab.until(lab.settled(posted), 25)
    assert lab.says("Settled", posted) == ("True", "Quit")
    lab.check_books()


async def test_a_status_write_that_was_put_off_is_made_up_for() -> None:
    """Figures alone are written at most every few seconds, and then nothing else need happen."""
    lab = MarketLab(gpus=1, market={"paused": True})
    await lab.until(lambda: slots(lab).get("total") == 1)
    await lab.pass_time(8)
    set_gpus(lab, 2)
    await lab.until(lambda: slots(lab)["total"] == 2, 2)
    set_gpus(lab, 3)
    await lab.pass_time(2)
    assert slots(lab)["total"] == 2, "too soon after the last write"
    await lab.until(lambda: slots(lab)["total"] == 3, 4.5)
