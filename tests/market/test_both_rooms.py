"""The real job controller and the market host on one API and one chain; and the market host's share of the
requests that a job may cost (at most 14 over its life, both controllers together).
"""

from __future__ import annotations

import json
from collections import Counter

from fakes.both_loops import BothRooms
from fakes.jobs import definition, op
from fakes.kube import Request
from fakes.market import MarketLab
from nosana_operator.api import parse_timestamp

HELLO = json.dumps(definition(op("hello", cmd="echo hi"))).encode()


def counted(requests: list[Request]) -> Counter[str]:
    # A wallet's Secret is read once a minute, whatever the jobs.
    kept = [r for r in requests if r.verb != "logs" and not r.name.startswith("wallet-")]
    return Counter(f"{r.verb} {r.kind}{'/' + r.subresource if r.subresource else ''}" for r in kept)


async def test_a_job_goes_through_both_rooms_and_is_paid() -> None:
    both = BothRooms()
    lab = both.market
    posted = await both.post(HELLO)
    await both.until(lab.settled())
    assert lab.says("Complete", posted) == ("True", "Succeeded")
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert json.loads(lab.result(posted))["status"] == "success"
    status = (lab.job_of(posted) or {})["status"]
    assert lab.pins.pinned[status["resultCID"]] == lab.result(posted)
    timing = {name: parse_timestamp(at) for name, at in status["timing"].items()}
    assert timing["matched"] <= timing["started"] <= timing["ended"] <= timing["settled"]
    assert both.jobs.metrics.run_to_pod_seconds[0] <= 1.5
    lab.check_books()
    await both.close()


async def test_the_market_hosts_share_of_a_jobs_requests() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    await lab.pass_time(30)
    before = len(lab.kube.requests)
    posted = lab.post()
    await lab.until(lab.settled(posted))
    await lab.pass_time(30)
    made = counted(lab.kube.requests[before:])
    market = made.pop("apply NosanaMarket/status")
    assert made == {"create NosanaJob": 1, "apply NosanaJob/status": 3, "get Secret": 1}
    assert market <= 4, "the intent, and figures at most every five seconds"


async def test_figures_of_many_jobs_are_written_together() -> None:
    lab = MarketLab(gpus=8, hosts=4)
    await lab.until(lab.standing)
    before, began = len(lab.kube.requests), lab.clock.now()
    jobs = [lab.post(content=bytes([n])) for n in range(8)]
    await lab.until(lab.settled(*jobs))
    made = counted(lab.kube.requests[before:])
    seconds = (lab.clock.now() - began).total_seconds()
    works = lab.count("Work")
    assert made["apply NosanaMarket/status"] <= works + seconds / 5 + 2
    assert made["apply NosanaJob/status"] == 3 * len(jobs)
    lab.check_books()
