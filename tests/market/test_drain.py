"""A drain with a deadline, through both rooms: the job is stopped as an admin's, published and paid."""

from __future__ import annotations

import json
from datetime import timedelta

from fakes.both_loops import BothRooms
from fakes.jobs import definition, op
from fakes.market_objects import ADMIN, MARKET
from nosana_operator.api import MARKET_KIND, timestamp

SERVER = json.dumps(definition(op("server", cmd="serve"))).encode()


async def test_at_the_deadline_a_job_is_stopped_published_and_paid() -> None:
    both = BothRooms()
    del both.jobs.exits[0]
    lab = both.market
    posted = await both.post(SERVER, timeout=600)
    await both.until(lambda: bool(lab.kube.objects("Pod")) and lab.standing())
    deadline = timestamp(lab.clock.now() + timedelta(seconds=20))
    drain = {"policy": "Finish", "deadline": deadline}
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"drain": drain}})
    await both.until(lambda: not lab.standing())
    assert lab.run_of(posted) is not None, "first the queue, then the jobs"
    assert lab.says("Complete", posted) is None
    await both.until(lab.settled(posted))
    assert lab.says("Complete", posted) == ("True", "Stopped")
    assert lab.says("Settled", posted) == ("True", "Finished")
    flow = json.loads(lab.result(posted))
    assert flow["status"] == "stopped"
    assert flow["opStates"][0]["diagnostics"]["reason"]["hostShutDown"] is True
    account = lab.job_account(posted)
    assert 20 <= account.time_end - account.time_start < 60, "the seconds so far"
    assert not lab.standing()
    lab.check_books()
    await both.close()
