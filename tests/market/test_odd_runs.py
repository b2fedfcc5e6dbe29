"""Runs as they seldom are: found late, shared, taken back; and results that nobody gives."""

from __future__ import annotations

import json
from typing import Any

from fakes.both_loops import BothRooms
from fakes.chain import keypair
from fakes.jobs import definition, op
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from fakes.other_hosts import add_market, slots, work_by_hand
from nosana_operator.api import ANNOTATION_ABANDON, JOB_KIND, MARKET_KIND
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import JOBS_PROGRAM, NOS_MINT, TOKEN_PROGRAM, market_vault
from nosana_sandbox.program.layout import STATE_DONE, TokenAccount

HELLO = json.dumps(definition(op("hello", cmd="echo hi"))).encode()


async def running(lab: MarketLab, **options: Any) -> Posted:
    """A job that is verified and runs."""
    await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    return posted


def settlement(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    body = lab.job_of(posted) or {}
    return dict((body.get("status") or {}).get("settlement") or {})


async def test_a_run_that_had_expired_when_it_was_found_starts_nothing_and_is_paid() -> None:
    both = BothRooms()
    lab = both.market
    await both.until(lab.standing)
    lab.processes.clear()
    posted = await both.post(HELLO, timeout=20)
    await lab.pass_time(60)
    assert lab.job_of(posted) is None, "nobody was there"
    lab.boot()
    await both.until(lab.settled())
    assert lab.says("Complete", posted) is None, "nothing of it ran"
    assert (lab.says("Failed", posted) or ("",))[0] == "True"
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert lab.earned() == 200, "its whole time-out"
    started = [r for r in lab.kube.requests if (r.verb, r.kind) == ("create", "Pod")]
    assert not started
    lab.check_books()
    await both.close()


async def test_a_job_with_two_runs_is_settled_for_each() -> None:
    """After two claims one job has two runs (docs/protocol/jobs-program.md#claim); both may be ours."""
    lab = MarketLab(hosts=1, gpus=3, seconds=lambda: 20)
    posted = await running(lab)
    found = lab.run_of(posted)
    assert found is not None
    second = keypair("second claim").pubkey()
    lab.ledger.place(second, Account(1_726_080, JOBS_PROGRAM, found[1].encode()))
    await lab.until(lambda: len(lab.nosana_jobs()) == 2)
    vault = market_vault(lab.begin.market, NOS_MINT)[0]
    held = lab.ledger.account(vault)
    assert held is not None
    # The deposits of other jobs are in the same vault, and pay the second `finish`.
    more = TokenAccount(mint=NOS_MINT, owner=vault, amount=10_000).encode()
    lab.ledger.place(vault, Account(held.lamports, TOKEN_PROGRAM, more))
    await lab.until(lambda: lab.count("Finish") == 2, 200)
    await lab.until(lambda: all(_settled(body) for body in lab.nosana_jobs()), 200)
    assert {body["spec"]["run"]["run"] for body in lab.nosana_jobs()} == {str(found[0]), str(second)}
    assert lab.run_of(posted) is None
    assert lab.job_account(posted).state == STATE_DONE


def _settled(body: dict[str, Any]) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Settled" and one["status"] == "True" for one in conditions)


async def test_a_second_run_of_a_job_that_another_host_has_finished_is_told_when_the_vault_is_short() -> None:
    lab = MarketLab(seconds=lambda: 20)
    posted = await running(lab)
    vault = market_vault(lab.begin.market, NOS_MINT)[0]
    held = lab.ledger.account(vault)
    assert held is not None
    other = TokenAccount(mint=NOS_MINT, owner=vault, amount=0).encode()
    lab.ledger.place(vault, Account(held.lamports, TOKEN_PROGRAM, other))
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    assert lab.count("Finish") == 0


async def test_a_run_whose_job_account_is_closed_holds_its_slot_until_it_is_given_up() -> None:
    """`clean_admin` closes a job under its run; without it nobody can close that one."""
    lab = MarketLab(gpus=1, seconds=lambda: 60)
    posted = await running(lab, timeout=600)
    lab.ledger.place(posted.job, None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"), 200)
    await lab.pass_time(60)
    assert slots(lab)["running"] == 1
    body = lab.job_of(posted) or {}
    note = {ANNOTATION_ABANDON: body["spec"]["run"]["run"]}
    lab.kube.edit(JOB_KIND, JOBS, body["metadata"]["name"], {"metadata": {"annotations": note}})
    await lab.until(lab.settled(posted))
    await lab.until(lab.standing, 60)
    assert slots(lab)["running"] == 0
    assert not [one for one in lab.events.seen if one[1] == "RunUnserved"]
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET)
    await lab.until(lambda: lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None, 120)


async def test_a_run_found_without_its_job_account_takes_no_slot_and_is_told() -> None:
    lab = MarketLab(gpus=2)
    add_market(lab, "second", ["wallet-0"])
    lab.processes.clear()
    await lab.pass_time(1)
    posted = lab.post()
    work_by_hand(lab, lab.begin.hosts[0])
    found = lab.run_of(posted)
    assert found is not None
    lab.ledger.place(posted.job, None)
    lab.boot()
    await lab.pass_time(20)
    assert (slots(lab)["running"], slots(lab, "second")["running"]) == (1, 1), "it may yet come"
    await lab.pass_time(60)
    assert (slots(lab)["running"], slots(lab, "second")["running"]) == (0, 0)
    told = {note for _, reason, note in lab.events.seen if reason == "RunUnserved"}
    assert len(told) == 1, "the same, by each NosanaMarket"
    assert str(found[0]) in told.pop()
    assert not lab.nosana_jobs()


async def test_a_result_is_pinned_until_the_gateways_give_it() -> None:
    lab = MarketLab()
    lab.pins.gone = lambda: True
    posted = await running(lab)
    await lab.until(lab.settled())
    cid = (lab.job_of(posted) or {})["status"]["resultCID"]
    assert settlement(lab, posted)["pinned"] is True
    assert "published" not in settlement(lab, posted)
    lab.pins.pinned.clear()
    await lab.pass_time(20)
    assert cid in lab.pins.pinned, "pinned again"
    before = len(lab.kube.requests)
    await lab.pass_time(600)
    assert len(lab.kube.requests) - before < 40, "and not asked for all the time"
    lab.pins.gone = lambda: False
    await lab.until(lambda: settlement(lab, posted).get("published") is True, 1500)


async def test_a_deleted_job_does_not_wait_for_gateways_that_do_not_give_its_result() -> None:
    lab = MarketLab()
    lab.pins.gone = lambda: True
    posted = await running(lab)
    await lab.until(lab.settled())
    body = lab.job_of(posted) or {}
    lab.kube.remove(JOB_KIND, JOBS, body["metadata"]["name"])
    await lab.until(lambda: lab.job_of(posted) is None, 60)
    assert body["status"]["resultCID"] in lab.pins.pinned


async def test_a_result_that_the_gateways_give_is_not_asked_for_again() -> None:
    lab = MarketLab()
    posted = await running(lab)
    await lab.until(lab.settled())
    assert settlement(lab, posted)["published"] is True


async def test_status_and_events_tell_a_runs_story() -> None:
    lab = MarketLab()
    posted = await running(lab)
    await lab.until(lab.settled())
    found = settlement(lab, posted)
    told = [(kind, why) for kind, why, _ in lab.events.seen if why in ("Verified", "Settling", "Finished")]
    assert told == [("Normal", "Verified"), ("Normal", "Settling"), ("Normal", "Finished")]
    sent = next(note for _, why, note in lab.events.seen if why == "Settling")
    assert found["transaction"]["signature"] in sent
    assert found["transaction"]["kind"] == found["kind"] == "finish"
    assert found["secondsPaid"] * 10 == found["earned"]
