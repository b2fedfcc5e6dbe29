"""Whole lives of market jobs: what the chain pays, what the objects say, whatever others do meanwhile."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from fakes.chain import keypair
from fakes.kube import FakeNotFound, Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from fakes.trouble import Silence
from nosana_operator.api import ANNOTATION_ABANDON, JOB_KIND, MARKET_KIND, JobReason, find_condition
from nosana_operator.content import digest_of
from nosana_operator.market.facts import RunFacts
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED, STATE_STOPPED


async def running(lab: MarketLab, **options: Any) -> Posted:
    """A job that is verified and runs."""
    if not lab.posted:
        await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    return posted


def wallet_state(lab: MarketLab, secret: str = "wallet-0/id.json") -> tuple[str, str | None]:
    wallets = (lab.market().get("status") or {}).get("wallets") or []
    found: dict[str, Any] = next((one for one in wallets if one["secret"] == secret), {})
    return found.get("state", ""), found.get("reason")


def settlement(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    body = lab.job_of(posted) or {}
    return dict((body.get("status") or {}).get("settlement") or {})


def ready(lab: MarketLab) -> dict[str, Any]:
    return dict(find_condition(lab.market()["status"]["conditions"], "Ready") or {})


# -- the plain ways


async def test_a_job_is_served_paid_and_published() -> None:
    lab = MarketLab()
    posted = await running(lab)
    await lab.until(lab.settled())
    account, status = lab.job_account(posted), (lab.job_of(posted) or {})["status"]
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert account.state == STATE_DONE
    assert account.ipfs_result == digest_of(status["resultCID"])
    assert lab.pins.pinned[status["resultCID"]] == lab.result(posted)
    seconds = account.time_end - account.time_start
    assert status["settlement"]["secondsPaid"] == seconds
    assert status["settlement"]["earned"] == 10 * seconds == lab.earned()
    assert status["settlement"]["refunded"] == 600 - 10 * seconds
    assert status["timing"]["matched"] <= status["timing"]["ended"] <= status["timing"]["settled"]
    assert lab.metrics.settlements == [("finish", 10 * seconds, 600 - 10 * seconds, seconds)]
    assert lab.metrics.matches == 1
    assert len(lab.metrics.sent) == 1
    lab.check_books()


async def test_the_slot_is_free_once_the_run_is_closed_not_only_when_that_is_final() -> None:
    lab = MarketLab(gpus=1)
    posted = await running(lab)
    await lab.until(lambda: lab.run_of(posted) is None)
    assert lab.count("Work") == 1
    await lab.until(lambda: lab.count("Work") == 2)
    assert (lab.says("Settled", posted) or ("",))[0] == "False"
    await lab.until(lab.settled())
    lab.check_books()


async def test_jobs_that_wait_are_taken_one_per_slot() -> None:
    lab = MarketLab(gpus=2)
    jobs = [lab.post(content=bytes([n])) for n in range(4)]
    most = 0
    for _ in range(400):
        await lab.slot()
        most = max(most, sum(lab.run_of(one) is not None for one in jobs))
        if lab.settled()():
            break
    assert lab.settled()()
    assert most == 2
    lab.check_books()


async def test_the_owners_end_pays_and_the_result_is_posted() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    await lab.pass_time(5)
    assert lab.end(posted) is None
    await lab.until(lab.settled(), 60)
    assert lab.says("Complete", posted) == ("True", "OwnerEnded")
    assert lab.says("Settled", posted) == ("True", "Completed")
    assert (lab.count("End"), lab.count("Complete"), lab.count("Finish")) == (1, 1, 0)
    assert lab.job_account(posted).ipfs_result == digest_of((lab.job_of(posted) or {})["status"]["resultCID"])
    lab.check_books()


async def test_the_owner_ends_while_our_finish_is_under_way() -> None:
    lab = MarketLab()
    posted = await running(lab)
    lab.rpc.delay = lambda: 5
    await lab.until(lambda: bool(settlement(lab, posted)))
    assert lab.end(posted) is None
    await lab.until(lab.settled(), 120)
    assert (lab.count("End"), lab.count("Complete"), lab.count("Finish")) == (1, 1, 0)
    lab.check_books()


async def test_a_run_closed_by_the_admin_is_not_paid_and_lets_go() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    lab.quit_by_admin(posted)
    await lab.until(lab.settled(), 120)
    assert lab.says("Complete", posted) == ("True", "RunGone")
    assert lab.says("Settled", posted) == ("True", "EndedByOthers")
    assert lab.job_account(posted).state == STATE_QUEUED
    assert lab.earned() == 0


@pytest.mark.parametrize(
    ("policy", "state", "reason"), [("Quit", STATE_STOPPED, "Quit"), ("Finish", STATE_DONE, "Finished")]
)
async def test_an_unusable_definition_ends_as_the_market_says(policy: str, state: int, reason: str) -> None:
    lab = MarketLab(market={"onBadDefinition": policy})
    lab.jobs.bad_definitions = True
    await lab.until(lab.standing)
    posted = lab.post()
    await lab.until(lab.settled())
    assert lab.job_account(posted).state == state
    assert lab.says("Settled", posted) == ("True", reason)
    assert any(lab.job_account(posted).ipfs_result) is (policy == "Finish")
    lab.check_books()


async def test_a_policy_that_is_changed_does_not_contradict_an_intent() -> None:
    lab = MarketLab(market={"onBadDefinition": "Finish"})
    lab.jobs.bad_definitions = True
    await lab.until(lab.standing)
    posted = lab.post()
    lab.rpc.delay = lambda: None
    await lab.until(lambda: settlement(lab, posted).get("kind") == "finish")
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"onBadDefinition": "Quit"}})
    await lab.pass_time(5)
    lab.rpc.delay = lambda: 1
    await lab.until(lab.settled())
    assert settlement(lab, posted)["earned"] == lab.earned() > 0
    lab.check_books()


async def test_an_expired_job_is_paid_its_time_out_and_no_more() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab, timeout=20)
    await lab.until(lab.settled())
    assert lab.says("Complete", posted) == ("True", "Expired")
    assert lab.earned() == 200
    lab.check_books()


async def test_an_extension_is_followed_and_a_jump_of_the_chains_clock() -> None:
    lab = MarketLab(seconds=lambda: 10_000)
    posted = await running(lab, timeout=30)
    assert lab.extend(posted, 4000) is None
    await lab.pass_time(60)
    assert lab.says("Complete", posted) is None
    lab.chain_ahead += 5000
    await lab.until(lab.settled(), 60)
    assert lab.says("Complete", posted) == ("True", "Expired")
    assert lab.earned() == 40_000


async def test_a_settled_job_goes_after_a_day_with_its_result_pinned() -> None:
    lab = MarketLab()
    posted = await running(lab)
    await lab.until(lab.settled())
    lab.clock.advance(24 * 3600)
    await lab.until(lambda: lab.job_of(posted) is None)
    assert not lab.kube.objects("Secret", JOBS)


async def test_a_deleted_job_is_settled_before_it_goes() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    await lab.pass_time(4)
    lab.kube.remove(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"])
    await lab.until(lambda: lab.job_of(posted) is None)
    assert lab.count("Finish") == 1
    lab.check_books()


async def test_a_settled_job_that_is_deleted_is_not_made_again_by_a_stale_snapshot() -> None:
    lab = MarketLab()
    posted = await running(lab)
    lab.blind = lambda: True
    await lab.until(lab.settled())
    lab.kube.remove(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"])
    await lab.pass_time(12)
    assert lab.job_of(posted) is None
    assert len(lab.jobs.starts) == 1


async def test_a_running_job_that_is_deleted_is_not_made_again_by_a_stale_snapshot() -> None:
    """It goes in the moment in which it is settled, sooner than the watcher looks again."""
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    lab.blind = lambda: True
    lab.kube.remove(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"])
    await lab.until(lambda: not lab.nosana_jobs())
    await lab.pass_time(12)
    assert lab.job_of(posted) is None
    assert len(lab.jobs.starts) == 1
    assert lab.job_account(posted).state == STATE_DONE


async def test_a_job_that_another_process_settled_is_not_served_again_from_a_stale_snapshot() -> None:
    """Without a Lease two may work at once; here one has had no news of the chain since it saw the run."""
    lab = MarketLab(seconds=lambda: 1.0)
    awake, deaf = lab.process, lab.twin()
    posted = await running(lab)
    await lab.until(lambda: bool(deaf.watcher.runs_of(str(lab.begin.hosts[0].pubkey()))))

    async def nothing() -> None:
        """Its looks; the Kubernetes watch goes on."""

    deaf.slot = nothing  # type: ignore[method-assign]
    lab.kube.remove(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"])
    await lab.until(lambda: lab.job_of(posted) is None)
    assert len(lab.seen_jobs) == 1

    async def refused(key: str, *, not_before: int = 0) -> tuple[RunFacts, ...]:
        raise Silence("runs are not listed here")

    del deaf.slot
    lab.blind, deaf.solana.refresh_runs = lambda: True, refused  # type: ignore[method-assign]
    lab.processes.remove(awake)
    await lab.until(lambda: len(lab.seen_jobs) == 2)
    await lab.until(lab.settled())
    assert sum(lab.jobs.starts.values()) == 1
    assert lab.count("Finish") == 1


async def test_an_admin_may_give_up_a_run() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    body = lab.nosana_jobs()[0]
    note = {ANNOTATION_ABANDON: body["spec"]["run"]["run"]}
    lab.kube.edit(JOB_KIND, JOBS, body["metadata"]["name"], {"metadata": {"annotations": note}})
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Abandoned")
    await lab.pass_time(30)
    assert len(lab.nosana_jobs()) == 1, "the run is open, and is not taken up again"
    assert lab.count("Finish") == 0


# -- posters


@pytest.mark.parametrize("timeout", [0, -5, -(2**63), 2**63 - 1, 2**40])
async def test_no_time_out_of_a_free_job_holds_a_slot(timeout: int) -> None:
    lab = MarketLab(price=0, gpus=1)
    posted = await running(lab, timeout=timeout)
    await lab.until(lab.settled())
    await lab.until(lab.standing)
    expired = timeout <= 0
    assert lab.says("Complete", posted) == ("True", "Expired" if expired else "Succeeded")
    assert lab.earned() == 0


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_poster_who_uses_a_runs_key_again(at_once: bool) -> None:
    """A new run stands where a finished one was: it is served and paid as itself."""
    lab = MarketLab()
    first = await running(lab, run="again")
    if at_once:
        await lab.until(lambda: lab.run_of(first) is None and lab.standing())
        assert (lab.says("Settled", first) or ("",))[0] != "True"
    else:
        await lab.until(lab.settled())
        await lab.until(lab.standing)
    one = lab.job_of(first)
    second = lab.post(run="again", content=b"another")
    await lab.until(lab.settled(second))
    assert one is not None
    run, uid = one["spec"]["run"], one["metadata"]["uid"]
    assert lab.told[run["run"], run["startedAt"]] == {uid: lab._cost(first)}
    assert lab.count("Finish") == 2
    assert lab.job_account(second).ipfs_result != lab.job_account(first).ipfs_result
    lab.check_books()


async def test_an_account_of_another_kind_where_the_run_was() -> None:
    """Who holds the run's key can make anything there once it is closed."""
    lab = MarketLab()
    posted = await running(lab, run="mine")
    await lab.until(lambda: lab.run_of(posted) is None)
    market = lab.ledger.account(lab.begin.market)
    lab.ledger.place(keypair("mine").pubkey(), market)
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


# -- forgers


def forged(lab: MarketLab, posted: Posted, **metadata: Any) -> dict[str, Any]:
    """A copy of a true NosanaJob, as anybody could make one."""
    body = copy.deepcopy(lab.job_of(posted))
    assert body is not None
    return {
        "apiVersion": body["apiVersion"],
        "kind": JOB_KIND,
        "metadata": {"name": body["metadata"]["name"], "namespace": JOBS, **metadata},
        "spec": body["spec"],
    }


@pytest.mark.parametrize("where", [{"namespace": "theirs"}, {"name": "copy"}])
async def test_a_copy_elsewhere_is_neither_run_nor_settled(where: dict[str, str]) -> None:
    lab = MarketLab(seconds=lambda: 30)
    posted = await running(lab)
    copied = lab.kube.add(forged(lab, posted, **where))
    meta = copied["metadata"]
    await lab.pass_time(5)
    status = (lab.kube.find(JOB_KIND, meta["namespace"], meta["name"]) or {})["status"]
    said = find_condition(status["conditions"], "RunVerified") or {}
    assert (said["status"], said["reason"]) == ("False", "RunMismatch")
    assert meta["namespace"] in said["message"] or meta["name"] in said["message"]
    await lab.until(lab.settled(posted))
    assert lab.count("Finish") == 1


async def test_faked_conditions_in_another_namespace_settle_nothing() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    body = forged(lab, posted, namespace="theirs")
    when = {"lastTransitionTime": "2026-01-02T03:04:05Z", "message": "trust me", "reason": "Verified"}
    body["status"] = {
        "conditions": [{"type": kind, "status": "True", **when} for kind in ("RunVerified", "Complete")],
        "resultSecrets": [],
    }
    lab.kube.add(body)
    await lab.pass_time(30)
    assert lab.count("Finish") == 0
    found = lab.kube.find(JOB_KIND, "theirs", body["metadata"]["name"]) or {}
    assert (find_condition(found["status"]["conditions"], "RunVerified") or {})["status"] == "False"


async def test_a_market_of_somebody_else_cannot_sign_with_our_keys() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    market = copy.deepcopy(lab.market())
    theirs = {
        "apiVersion": market["apiVersion"],
        "kind": MARKET_KIND,
        "metadata": {"name": "m", "namespace": "theirs"},
        "spec": market["spec"] | {"jobNamespace": "their-jobs", "wallets": [{"secretRef": {"name": "x"}}]},
    }
    lab.kube.add(theirs)
    body = forged(lab, posted, namespace="their-jobs")
    body["spec"]["run"]["marketRef"] = {"namespace": "theirs", "name": "m"}
    lab.kube.add(body)
    await lab.pass_time(20)
    found = lab.kube.find(JOB_KIND, "their-jobs", body["metadata"]["name"]) or {}
    assert (find_condition(found["status"]["conditions"], "RunVerified") or {})["status"] != "True"
    assert lab.count("Finish") == 0


@pytest.mark.parametrize("change", ["gpu", "definitionFrom", "run", "private"])
async def test_a_forgery_under_a_runs_name_gives_way(change: str) -> None:
    """The poster chose the run's key, so a friend in the cluster can know the name before we do."""
    lab = MarketLab()
    await lab.until(lab.standing)
    first = await running(lab, run="known")
    await lab.until(lab.settled())
    forgery = forged(lab, first)
    lab.kube.remove(JOB_KIND, JOBS, forgery["metadata"]["name"], force=True)
    if change == "gpu":
        forgery["spec"]["gpu"] = {"count": 64}
    elif change == "definitionFrom":
        forgery["spec"]["definitionFrom"] = {"ipfs": "Qm" + "a" * 44}
    elif change == "private":
        del forgery["spec"]["run"], forgery["spec"]["definitionFrom"]
        forgery["spec"]["definition"] = {"version": "0.1"}
    made = lab.kube.add(forgery)
    await lab.until(lab.standing)
    # What is deleted shows only when the watch brings it.
    lab.watch_lag = lambda: 1
    second = lab.post(run="known", content=b"second")
    await lab.until(lab.settled(second))
    body = lab.job_of(second)
    assert body is not None
    assert body["metadata"]["uid"] != made["metadata"]["uid"]
    assert body["spec"]["gpu"]["count"] == 1
    assert lab.count("Finish") == 2
    assert lab.jobs.starts[made["metadata"]["uid"]] == 0
    assert [reason for _, reason, _ in lab.events.seen].count("JobRefused") == 1


# -- keys


async def test_a_secret_that_goes_keeps_its_runs_and_leaves_the_queue() -> None:
    lab = MarketLab(seconds=lambda: 90)
    posted = await running(lab, timeout=600)
    await lab.until(lab.standing)
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    await lab.until(lambda: wallet_state(lab) == ("Blocked", "SecretMissing"), 120)
    await lab.until(lambda: not lab.standing())
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_a_secret_that_is_truly_gone_is_told_and_paid_when_it_is_back() -> None:
    lab = MarketLab(seconds=lambda: 10)
    posted = await running(lab, timeout=600)
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    lab.boot()
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "WalletMissing"))
    assert lab.count("Finish") == 0
    lab.add_wallet("wallet-0", bytes(lab.begin.hosts[0]))
    await lab.until(lab.settled(), 60)
    lab.check_books()


async def test_a_rotated_secret_settles_the_old_keys_run_and_stands_with_the_new() -> None:
    lab = MarketLab(hosts=2, seconds=lambda: 90, market={"wallets": [{"secretRef": {"name": "wallet-0"}}]})
    posted = await running(lab, timeout=600)
    await lab.until(lab.standing)
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    lab.add_wallet("wallet-0", bytes(lab.begin.hosts[1]))
    new = str(lab.begin.hosts[1].pubkey())

    def standing_anew() -> bool:
        wallets = lab.market()["status"]["wallets"]
        return any(one.get("address") == new and one["state"] == "Standing" for one in wallets)

    await lab.until(standing_anew, 120)
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    await lab.until(lambda: len(lab.market()["status"]["wallets"]) == 1, 60)
    lab.check_books()


async def test_a_secret_that_cannot_be_read_refuses_nobody() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)

    async def away(request: Request, when: str) -> None:
        if request.kind == "Secret" and request.name == "wallet-0":
            raise Silence("away")

    posted = lab.post()
    run = lab.run_of(posted)
    assert run is not None
    lab.boot()
    lab.kube.interrupt = away
    await lab.pass_time(10)
    assert not lab.nosana_jobs(), "which key it is cannot be known"
    lab.kube.interrupt = None
    await lab.until(lambda: bool(lab.nosana_jobs()))
    lab.boot()
    lab.kube.interrupt = away
    await lab.pass_time(5)
    assert lab.says("RunVerified", posted) in (("Unknown", "WalletMissing"), ("True", "Verified"))
    lab.kube.interrupt = None
    await lab.until(lab.settled())
    lab.check_books()


async def test_two_markets_with_one_key_serve_a_run_once() -> None:
    lab = MarketLab(seconds=lambda: 20)
    other = copy.deepcopy(lab.market())
    lab.clock.advance(1)
    lab.kube.add(
        {
            "apiVersion": other["apiVersion"],
            "kind": MARKET_KIND,
            "metadata": {"name": "second", "namespace": ADMIN},
            "spec": other["spec"] | {"jobNamespace": "other-jobs"},
        }
    )
    posted = await running(lab)
    second = lab.kube.find(MARKET_KIND, ADMIN, "second") or {}
    assert second["status"]["wallets"][0]["reason"] == "WalletSharedWithOtherMarket"
    assert not lab.kube.objects(JOB_KIND, "other-jobs")
    await lab.until(lab.settled(posted))
    lab.check_books()


# -- results


@pytest.mark.parametrize("harm", ["deleted", "changed", "forged"])
async def test_a_lost_result_is_said_to_be_lost_and_the_run_is_paid(harm: str) -> None:
    lab = MarketLab()
    posted = await running(lab)
    lab.rpc.gate = _deaf("getAccountInfo")
    await lab.until(lambda: (lab.says("Complete", posted) or ("",))[0] == "True")
    lab.boot()
    (secret,) = lab.kube.objects("Secret", JOBS)
    name = secret["metadata"]["name"]
    if harm == "deleted":
        lab.kube.remove("Secret", JOBS, name)
    elif harm == "changed":
        # It is immutable: another one takes its place.
        lab.kube.remove("Secret", JOBS, name)
        lab.kube.add(secret | {"data": {"flowstate.json.gz": base64.b64encode(b"x").decode()}})
    else:
        lab.kube.edit("Secret", JOBS, name, {"metadata": {"annotations": None}})
    lab.rpc.gate = _deaf()
    await lab.until(lab.settled())
    cid = (lab.job_of(posted) or {})["status"]["resultCID"]
    assert b"result-lost" in lab.pins.pinned[cid]
    assert lab.job_account(posted).ipfs_result == digest_of(cid)
    assert any(reason == JobReason.RESULT_LOST for _, reason, _ in lab.events.seen)
    lab.check_books()


def _deaf(*methods: str) -> Any:
    async def gate(method: str, when: str) -> None:
        if method in methods:
            raise Silence(method)

    return gate


async def test_a_pin_outage_delays_the_pay_by_half_a_minute_and_the_pin_goes_on() -> None:
    lab = MarketLab()
    lab.pins.down = lambda: True
    posted = await running(lab)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "PinUnavailable"))
    await lab.until(lab.settled(), 90)
    assert [reason for _, reason, _ in lab.events.seen].count(JobReason.PIN_UNAVAILABLE) == 1
    body = lab.job_of(posted)
    assert body is not None
    assert 30 <= lab.metrics.sent[0] <= 33
    assert settlement(lab, posted)["pinned"] is False
    lab.kube.remove(JOB_KIND, JOBS, body["metadata"]["name"])
    await lab.pass_time(60)
    assert lab.job_of(posted) is not None, "it holds the only copy"
    lab.pins.down = lambda: False
    await lab.until(lambda: lab.job_of(posted) is None, 60)
    assert body["status"]["resultCID"] in lab.pins.pinned


# -- the world away


async def test_silence_of_the_chain_ends_nothing() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab, timeout=9000)
    methods = ("getAccountInfo", "getMultipleAccounts", "getProgramAccounts", "sendTransaction")
    lab.rpc.gate = _deaf(*methods, "getSignatureStatuses", "getLatestBlockhash", "getEpochInfo")
    await lab.pass_time(900)
    assert lab.says("Complete", posted) is None
    await lab.until(lambda: (lab.says("Complete", posted) or ("",))[0] == "True")
    await lab.pass_time(60)
    lab.rpc.gate = _deaf()
    await lab.until(lab.settled(), 30)
    lab.check_books()


async def test_a_fork_that_takes_a_run_back_and_gives_another() -> None:
    lab = MarketLab(seconds=lambda: 20)
    await lab.until(lab.standing)
    posted = lab.post()
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    first = lab.job_of(posted)
    assert first is not None
    await lab.pass_time(1)
    lab.ledger.fork(6, lambda landed: True)
    assert lab.run_of(posted) is None
    await lab.until(lambda: lab.count("Finish") == 1)
    await lab.until(lab.settled(posted))
    lab.check_books()
    body = lab.job_of(posted)
    assert body is not None
    assert body["metadata"]["uid"] != first["metadata"]["uid"]
    assert body["metadata"]["name"] == first["metadata"]["name"], "the run's address is the same"
    assert body["spec"]["run"]["startedAt"] != first["spec"]["run"]["startedAt"]


async def test_a_market_deleted_by_force_settles_from_memory() -> None:
    lab = MarketLab(seconds=lambda: 10)
    posted = await running(lab, timeout=600)
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET, force=True)
    await _until_settled_without_market(lab, posted)
    lab.check_books()


async def _until_settled_without_market(lab: MarketLab, posted: Posted) -> None:
    for _ in range(300):
        await lab.slot()
        if (lab.says("Settled", posted) or ("",))[0] == "True":
            return
    raise AssertionError("not settled")


async def test_a_market_deleted_by_force_before_a_restart_is_told_and_paid_when_it_is_back() -> None:
    lab = MarketLab(seconds=lambda: 10)
    posted = await running(lab, timeout=600)
    market = copy.deepcopy(lab.market())
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET, force=True)
    lab.boot()
    for _ in range(60):
        await lab.slot()
    assert lab.says("Settled", posted) == ("False", "WalletMissing")
    said = find_condition((lab.job_of(posted) or {})["status"]["conditions"], "Settled") or {}
    assert ANNOTATION_ABANDON in said["message"]
    del market["metadata"]["uid"], market["metadata"]["resourceVersion"], market["status"]
    market["metadata"].pop("finalizers", None)
    lab.kube.add(market)
    await lab.until(lab.settled(), 60)
    lab.check_books()


async def test_a_run_that_was_over_before_it_could_be_verified() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    posted = lab.post()

    async def unverifiable(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("apply", JOB_KIND):
            raise Silence("away")

    lab.kube.interrupt = unverifiable
    await lab.until(lambda: lab.job_of(posted) is not None)
    assert lab.end(posted) is None
    await lab.pass_time(40)
    lab.kube.interrupt = None
    await lab.until(lab.settled(), 60)
    assert lab.says("RunVerified", posted) == ("False", "RunNotFound")
    assert lab.says("Settled", posted) == ("True", "Completed")
    assert settlement(lab, posted)["earned"] == lab.earned()
    assert not lab.jobs.starts


async def test_a_job_namespace_that_is_missing_is_told_and_nothing_more_is_taken() -> None:
    lab = MarketLab(gpus=2)
    await lab.until(lab.standing)

    async def missing(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("create", JOB_KIND):
            raise FakeNotFound("namespaces not found")

    lab.kube.interrupt = missing
    posted = lab.post()
    await lab.until(lambda: ready(lab)["reason"] == "JobRefused")
    assert JOBS in ready(lab)["message"]
    await lab.pass_time(20)
    assert lab.count("Work") == 1
    lab.kube.interrupt = None
    await lab.until(lab.settled(posted))
    await lab.until(lab.standing)
    lab.check_books()


async def test_a_dropped_transaction_is_signed_anew_only_when_it_cannot_land() -> None:
    lab = MarketLab()
    lab.rpc.delay = lambda: None
    await lab.pass_time(60)
    lab.rpc.delay = lambda: 1
    await lab.until(lab.standing)
    first = {s for s in lab.rpc.sent if lab.ledger.landed(s) is None}
    assert 2 <= len(first) <= 4, "resent for as long as it could land, then signed anew"
    assert len(lab.rpc.sent) > 2 * len(first)


async def test_a_deposed_process_signs_nothing() -> None:
    """The compare-and-swap is the fence: what a stale process signs is never durable, and so never sent."""
    lab = MarketLab()
    posted = await running(lab)
    body = lab.job_of(posted)
    assert body is not None
    old = lab.process
    lab.twin()
    lab.rpc.delay = lambda: None
    version = body["metadata"]["resourceVersion"]
    await lab.until(lambda: bool(settlement(lab, posted)))
    sent = list(lab.rpc.sent)
    key = (JOBS, body["metadata"]["name"])
    # The old process knows that the job has ended, and nothing of what was written since.
    stale = copy.deepcopy(lab.job_of(posted)) or {}
    old.cache.forget(JOB_KIND, stale)
    old.cache._tombstones.clear()
    stale["metadata"]["resourceVersion"] = version
    stale["status"]["settlement"] = None
    old.cache.put(stale)
    assert await old.keeper.reconcile(key) == 0.1
    assert lab.rpc.sent == sent
    lab.rpc.delay = lambda: 1
    await lab.until(lab.settled())
    lab.check_books()


async def test_pause_leaves_the_queue_and_a_deleted_market_goes_last() -> None:
    lab = MarketLab(seconds=lambda: 15)
    posted = await running(lab)
    await lab.until(lab.standing)
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"paused": True}})
    await lab.until(lambda: lab.count("Stop") == 1)
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET)
    await lab.pass_time(2)
    assert lab.kube.find(MARKET_KIND, ADMIN, MARKET) is not None
    for _ in range(300):
        await lab.slot()
        if lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None:
            break
    assert lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_an_unreadable_spec_keeps_the_intents() -> None:
    lab = MarketLab()
    lab.rpc.delay = lambda: None
    await lab.until(lambda: bool(lab.market().get("status", {}).get("transactions")))
    before = lab.market()["status"]["transactions"]
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"wallets": []}}, validated=False)
    await lab.until(lambda: ready(lab).get("reason") == "SpecInvalid")
    assert lab.market()["status"]["transactions"] == before


async def test_a_reading_of_a_node_that_lags_settles_nothing() -> None:
    """A young run that the answering node does not have yet is neither ended nor settled."""
    lab = MarketLab(seconds=lambda: 0.5)
    await lab.until(lab.standing)
    posted = lab.post()
    posted_at = lab.ledger.slot
    lab.rpc.gate = _deaf("getLatestBlockhash")
    await lab.until(lambda: (lab.says("Complete", posted) or ("",))[0] == "True")
    lab.rpc.lag = lambda: lab.ledger.slot - posted_at
    lab.boot()
    await lab.pass_time(3)
    assert lab.run_of(posted) is not None
    assert (lab.says("Settled", posted) or ("",))[0] != "True"
    lab.rpc.lag = lambda: 0
    lab.rpc.gate = _deaf()
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()
