"""Runs whose end does not come from the job controller, and NosanaJobs that this version cannot read."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Literal

import pytest

from fakes.both_loops import BothRooms
from fakes.jobs import definition, op
from fakes.kube import Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from nosana_operator.api import JOB_KIND, MARKET_KIND, find_condition, parse_timestamp
from nosana_operator.content import digest_of
from nosana_operator.errors import Refused
from nosana_operator.market.runs.decide import OVERDUE_GRACE, OVERDUE_NOTICE, OVERDUE_WATCHED

HELLO = json.dumps(definition(op("hello", cmd="echo hi"))).encode()
NOTICE, GRACE = OVERDUE_NOTICE.total_seconds(), OVERDUE_GRACE.total_seconds()


async def abandoned(lab: MarketLab, **options: Any) -> Posted:
    """A job that runs, and whose job controller does nothing more."""
    await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    lab.stands_in = False
    return posted


def expired_for(lab: MarketLab, posted: Posted) -> float:
    body = lab.job_of(posted) or {}
    expires_at = parse_timestamp(body["status"]["run"]["expiresAt"])
    return (lab.clock.now() - expires_at).total_seconds()


def reported(lab: MarketLab, posted: Posted) -> bool:
    return lab.says("Settled", posted) == ("False", "RunPastExpiry")


def on_chain(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    """The document whose CID is on chain."""
    digest = lab.job_account(posted).ipfs_result
    (data,) = [data for cid, data in lab.pins.pinned.items() if digest_of(cid) == digest]
    return dict(json.loads(data))


def events(lab: MarketLab, reason: str) -> list[str]:
    return [note for _, why, note in lab.events.seen if why == reason]


async def test_a_run_whose_job_never_ends_is_settled_without_it() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    await lab.until(lambda: reported(lab, posted), 60 + NOTICE + 30)
    assert expired_for(lab, posted) >= NOTICE
    (note,) = events(lab, "RunPastExpiry")
    assert "has not ended" in note
    await lab.until(lab.settled(), GRACE + 120)
    assert expired_for(lab, posted) >= NOTICE + GRACE
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert lab.earned() == 600
    document = on_chain(lab, posted)
    assert document["status"] == "failed"
    assert [error["event"] for error in document["errors"]] == ["result-lost"]
    assert document["endTime"] - document["startTime"] == 60_000
    assert len(events(lab, "RunPastExpiry")) == 1
    lab.check_books()


async def test_a_job_that_ends_within_the_grace_keeps_its_result() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    await lab.until(lambda: reported(lab, posted), 60 + NOTICE + 30)
    await lab.pass_time(GRACE - 60)
    assert lab.count("Finish") == 0
    lab.stands_in = True
    await lab.until(lab.settled(), 60)
    assert on_chain(lab, posted)["said"] == "Expired"
    lab.check_books()


async def test_a_job_that_ends_before_the_intent_is_durable_keeps_its_result() -> None:
    """The substitute is made and waits for its pin when the job's own result comes."""
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    lab.pins.down = lambda: True
    await lab.until(lambda: bool(events(lab, "PinUnavailable")), 60 + NOTICE + GRACE + 60)
    lab.stands_in = True
    lab.pins.down = lambda: False
    await lab.until(lab.settled(), 60)
    assert on_chain(lab, posted)["said"] == "Expired"


async def test_a_job_that_ends_after_all_does_not_change_what_was_announced() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    lab.pins.down = lambda: True
    await lab.until(lab.settled(), 60 + NOTICE + GRACE + 120)
    lab.stands_in = True
    await lab.until(lambda: lab.says("Complete", posted) is not None)
    lab.boot()
    lab.pins.down = lambda: False
    await lab.until(lambda: bool(lab.pins.pinned), 3600)
    assert [error["event"] for error in on_chain(lab, posted)["errors"]] == ["result-lost"]
    await lab.pass_time(3700)
    assert (lab.job_of(posted) or {})["status"]["settlement"]["published"] is True
    lab.check_books()


async def test_a_process_that_has_just_begun_gives_the_job_controller_time() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    await lab.until(lambda: reported(lab, posted), 60 + NOTICE + 30)
    lab.processes.clear()
    await lab.pass_time(2 * GRACE)
    lab.boot()
    began = lab.clock.now()
    await lab.until(lab.settled(), 300)
    assert lab.clock.now() - began >= OVERDUE_WATCHED
    lab.check_books()
    assert lab.says("Settled", posted) == ("True", "Finished")


async def test_an_outage_of_the_operator_costs_no_result() -> None:
    """Nobody worked for an hour beyond the expiry: the job controller comes first."""
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    lab.processes.clear()
    await lab.pass_time(3600)
    lab.boot()
    await lab.pass_time(60)
    assert lab.count("Finish") == 0
    lab.stands_in = True
    await lab.until(lab.settled(), 60)
    assert on_chain(lab, posted)["said"] == "Expired"
    assert not events(lab, "RunPastExpiry")


async def test_processes_that_die_again_and_again_settle_it_all_the_same() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    for _ in range(12):
        lab.processes.clear()
        lab.boot()
        await lab.pass_time(OVERDUE_WATCHED.total_seconds() + 20)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_an_extension_puts_the_end_off() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    await lab.until(lambda: reported(lab, posted), 60 + NOTICE + 30)
    lab.extend(posted, 3600)
    await lab.pass_time(GRACE + 120)
    assert lab.count("Finish") == 0
    await lab.until(lab.settled(), 3600 + NOTICE + GRACE)
    assert lab.earned() == 36_000
    lab.check_books()


@pytest.mark.parametrize("restarts", [0, 1])
async def test_an_owners_end_without_the_jobs_end_is_completed(restarts: int) -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=10**6)
    assert lab.end(posted) is None
    await lab.until(lambda: reported(lab, posted), NOTICE + 60)
    for _ in range(restarts):
        await lab.pass_time(GRACE / 2)
        lab.processes.clear()
        lab.boot()
    await lab.until(lab.settled(), GRACE + 120)
    assert lab.says("Settled", posted) == ("True", "Completed")
    assert [error["event"] for error in on_chain(lab, posted)["errors"]] == ["result-lost"]
    lab.check_books()


async def test_the_intent_of_an_overdue_run_is_followed_by_the_next_process() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    lab.rpc.delay = lambda: None
    await lab.until(lambda: bool(events(lab, "Settling")), 60 + NOTICE + GRACE + 120)
    lab.processes.clear()
    lab.boot()
    lab.rpc.delay = lambda: 1
    await lab.until(lab.settled(), 60)
    assert lab.count("Finish") == 1
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


# -- specs that this version cannot read


def from_the_future(lab: MarketLab, posted: Posted) -> None:
    body = lab.job_of(posted) or {}
    lab.kube.edit(
        JOB_KIND,
        JOBS,
        body["metadata"]["name"],
        {"spec": {"future": 1, "run": {"alsoFuture": 2}}},
        validated=False,
    )


async def test_a_run_whose_spec_cannot_be_read_is_followed_and_settled() -> None:
    lab = MarketLab(seconds=lambda: 30)
    posted = await abandoned(lab, timeout=600)
    lab.stands_in = True
    from_the_future(lab, posted)
    lab.boot()
    lab.extend(posted, 900)
    await lab.until(lambda: (lab.job_of(posted) or {})["status"]["run"]["timeout"] == 900)
    await lab.until(lab.settled(), 120)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_a_run_whose_spec_cannot_be_read_and_whose_job_does_not_end_is_settled_too() -> None:
    lab = MarketLab()
    posted = await abandoned(lab, timeout=60)
    from_the_future(lab, posted)
    await lab.until(lab.settled(), 60 + NOTICE + GRACE + 120)
    assert lab.earned() == 600
    lab.check_books()


async def test_a_status_with_words_of_another_version_keeps_no_settlement_waiting() -> None:
    lab = MarketLab(seconds=lambda: 5)
    await lab.until(lab.standing)
    posted = lab.post(timeout=60)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    name = (lab.job_of(posted) or {})["metadata"]["name"]
    lab.kube.edit(JOB_KIND, JOBS, name, {"status": {"phase": "Hibernating"}}, validated=False)
    await lab.until(lab.settled(), 120)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_an_unverified_job_that_cannot_be_read_is_refused_and_replaced() -> None:
    lab = MarketLab(seconds=lambda: 5)
    await lab.until(lab.standing)
    reconcile = lab.process.keeper.reconcile

    async def nothing(key: tuple[str, str]) -> float | None:
        return None

    lab.process.keeper.reconcile = nothing  # type: ignore[method-assign]
    posted = lab.post(timeout=600)
    await lab.until(lambda: lab.job_of(posted) is not None)
    first = (lab.job_of(posted) or {})["metadata"]["uid"]
    from_the_future(lab, posted)
    lab.process.keeper.reconcile = reconcile  # type: ignore[method-assign]
    lab.process.wake_all()
    await lab.until(lab.settled(), 120)
    refused = find_condition(lab.seen_jobs[first]["status"]["conditions"], "RunVerified") or {}
    assert (refused["status"], refused["reason"]) == ("False", "SpecInvalid")
    assert "spec.run.alsoFuture" in refused["message"]
    assert (lab.job_of(posted) or {})["metadata"]["uid"] != first
    lab.check_books()


async def test_a_market_that_cannot_be_read_is_reported_on_the_job() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    posted = lab.post(timeout=60)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"future": 1}}, validated=False)
    lab.processes.clear()
    lab.boot()
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SpecInvalid"), 120)
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"future": None}}, validated=False)
    await lab.until(lab.settled(), 60)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


# -- results that cannot be read


async def test_a_result_that_the_api_refuses_delays_the_settlement_ten_minutes() -> None:
    lab = MarketLab(seconds=lambda: 5)
    await lab.until(lab.standing)
    posted = lab.post(timeout=60)

    def names() -> list[str]:
        return list(((lab.job_of(posted) or {}).get("status") or {}).get("resultSecrets") or ())

    async def forbidden(request: Request, when: Literal["before", "after"]) -> None:
        if (request.verb, request.kind) == ("get", "Secret") and request.name in names():
            raise Refused("secrets is forbidden")

    lab.kube.interrupt = forbidden
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "ResultLost"))
    began = lab.clock.now()
    await lab.until(lab.settled(), 900)
    assert timedelta(minutes=9) < lab.clock.now() - began < timedelta(minutes=11)
    assert [error["event"] for error in on_chain(lab, posted)["errors"]] == ["result-lost"]
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_a_result_that_cannot_be_stored_delays_the_settlement_five_minutes() -> None:
    """The job controller gives it up; the market host publishes the substitute, and has nothing to report."""
    both = BothRooms()
    lab = both.market

    async def forbidden(request: Request, when: Literal["before", "after"]) -> None:
        if request.kind == "Secret" and request.verb in ("create", "apply"):
            raise Refused("secrets is forbidden: exceeded quota")

    posted = await both.post(HELLO, timeout=600)
    lab.kube.interrupt = forbidden
    await both.until(lab.settled(), 1200)
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert [error["event"] for error in on_chain(lab, posted)["errors"]] == ["result-lost"]
    assert not events(lab, "RunPastExpiry")
    lab.check_books()
    await both.close()
