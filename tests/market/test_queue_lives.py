"""The market host's queue over the in-memory chain: slots, keys, leaving and standing again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fakes.chain import keypair
from fakes.kube import FakeNotFound, Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from fakes.other_hosts import (
    PROGRAM,
    add_market,
    by_hand,
    chain_market,
    matches,
    post_to,
    ready,
    set_gpus,
    slots,
    spec,
    wallet,
    work_by_hand,
)
from nosana_operator.api import (
    ANNOTATION_KEY_USE,
    JOB_KIND,
    LABEL_JOB_UID,
    MARKET_KIND,
    find_condition,
    timestamp,
)


async def running(lab: MarketLab, **options: Any) -> Posted:
    await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    return posted


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


def set_quota(lab: MarketLab, pods: int) -> None:
    """The namespace of the jobs gets a ResourceQuota, or another figure in it."""
    hard = {"pods": str(pods)}
    values = {"spec": {"hard": hard}, "status": {"hard": hard, "used": {"pods": "0"}}}
    if lab.kube.objects("ResourceQuota", JOBS):
        lab.kube.edit("ResourceQuota", JOBS, "q", values)
        return
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": JOBS}}
    lab.kube.add(body | values)


async def test_slots_follow_the_resource_quota_of_the_jobs_namespace() -> None:
    lab = MarketLab(hosts=3, gpus=3)
    set_quota(lab, 2)
    await lab.until(lambda: slots(lab).get("standing") == 2)
    assert slots(lab)["total"] == 2
    set_quota(lab, 0)
    await lab.until(lambda: slots(lab)["standing"] == 0)
    _, reason, message = ready(lab)
    assert reason == "NoFreeSlot"
    assert f"ResourceQuota {JOBS}/q leaves 0 of 1 pods" in message
    set_quota(lab, 3)
    await lab.until(lambda: slots(lab)["standing"] == 3)
    lab.check_books()


def refused_pod(lab: MarketLab, name: str) -> None:
    """A kubelet refuses a pod of a job, and the pod is deleted at once."""
    lab.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": JOBS, "labels": {LABEL_JOB_UID: "some-job"}},
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "op", "image": "docker.io/library/busybox"}],
            },
            "status": {
                "phase": "Failed",
                "reason": "UnexpectedAdmissionError",
                "message": "no healthy devices",
            },
        }
    )
    lab.kube.remove("Pod", JOBS, name)


def nodes_available(lab: MarketLab) -> tuple[str, str, str]:
    found = find_condition(lab.market()["status"]["conditions"], "NodesAvailable") or {}
    return found.get("status", ""), found.get("reason", ""), found.get("message", "")


async def test_a_node_that_refuses_pods_in_a_row_counts_no_slot_until_its_time_is_over() -> None:
    lab = MarketLab(hosts=2, gpus=2)
    await lab.until(lambda: slots(lab).get("standing") == 2)
    for number in range(3):
        refused_pod(lab, f"op-{number}")
    await lab.until(lambda: slots(lab)["total"] == 0)
    assert nodes_available(lab)[:2] == ("False", "NodeRefusesPods")
    assert "node node-1 refused 3 pods in a row" in nodes_available(lab)[2]
    assert "its kubelet says UnexpectedAdmissionError: no healthy devices" in nodes_available(lab)[2]
    await lab.until(lambda: slots(lab)["standing"] == 0)
    assert [reason for _, reason, _ in lab.events.seen].count("NodeRefusesPods") == 1
    await lab.until(lambda: slots(lab)["standing"] == 2, 90)
    assert nodes_available(lab)[:2] == ("True", "Ready")
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


async def test_eight_keys_on_twelve_gpus_serve_a_backlog_and_never_more_than_fits() -> None:
    """A key takes one job at a time from the queue, and holds several."""
    lab = MarketLab(hosts=8, gpus=12, seconds=lambda: 20)
    jobs = [lab.post(content=bytes([n])) for n in range(30)]
    most, full = 0, 0
    for _ in range(900):
        await lab.slot()
        open_runs = sum(lab.run_of(one) is not None for one in jobs)
        most = max(most, matches(lab, "market"))
        full += open_runs >= 12
        if lab.settled()():
            break
    assert lab.settled()()
    assert most == 12
    assert full > 20, "while jobs waited, all GPUs were at work"
    assert len({str(lab.job_account(one).node) for one in jobs}) == 8
    lab.check_books()


async def test_two_markets_on_the_same_gpus_never_offer_one_twice() -> None:
    lab = MarketLab(hosts=4, gpus=2, seconds=lambda: 10)
    spec(lab, wallets=[{"secretRef": {"name": f"wallet-{n}"}} for n in (0, 1)])
    add_market(lab, "second", ["wallet-2", "wallet-3"])
    most = 0
    for step in range(250):
        if step in (5, 60, 61, 120):
            post_to(lab, "second", step)
        if step in (40, 60, 62, 125):
            lab.post(content=bytes([step]))
        await lab.slot()
        most = max(most, matches(lab, "market", "second"))
        assert most <= 2
    assert most == 2
    await lab.until(lambda: len(lab.nosana_jobs()) == 8 and lab.settled()())
    assert lab.count("Finish") == 8


async def test_a_market_that_only_stands_gives_way_to_one_whose_jobs_wait() -> None:
    lab = MarketLab(hosts=2, gpus=1, seconds=lambda: 5)
    spec(lab, wallets=[{"secretRef": {"name": "wallet-0"}}])
    await lab.until(lab.standing)
    add_market(lab, "second", ["wallet-1"])
    await lab.until(lambda: ready(lab, "second")[1] == "NoFreeSlot")
    assert ready(lab, "second")[0] == "False"
    assert "nvidia.com/gpu" in ready(lab, "second")[2]
    post_to(lab, "second", 1)
    await lab.until(lambda: len(lab.nosana_jobs()) == 1, 20)
    await lab.until(lambda: lab.count("Finish") == 1)
    await lab.until(lab.standing)
    assert lab.count("Stop") == 1


async def test_one_key_in_two_markets_signs_one_thing_after_the_other() -> None:
    lab = MarketLab(hosts=1, gpus=4, seconds=lambda: 5)
    add_market(lab, "second", ["wallet-0"])
    lab.rpc.delay = lambda: None
    for _ in range(20):
        await lab.slot()
        under_way = sum(
            len((body.get("status") or {}).get("transactions", [])) for body in lab.kube.objects(MARKET_KIND)
        )
        assert under_way <= 1
    lab.rpc.delay = lambda: 1
    host = lab.begin.hosts[0].pubkey()
    await lab.until(lambda: lab.standing() and host in chain_market(lab, "second").queue)
    posted = lab.post()
    post_to(lab, "second", 1)
    await lab.until(lambda: lab.count("Finish") == 2)
    await lab.until(lab.settled(posted))


# -- standing


async def test_who_is_put_out_of_the_queue_is_told_and_stands_again_after_a_while() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    await lab.pass_time(20)
    _put_out(lab)
    await lab.until(lambda: any(reason == "StandingLost" for _, reason, _ in lab.events.seen), 15)
    await lab.pass_time(30)
    assert not lab.standing(), "each time costs a fee"
    await lab.until(lab.standing, 60)
    assert [reason for _, reason, _ in lab.events.seen].count("StandingLost") == 1
    await lab.pass_time(60)
    assert ready(lab)[0] == "True"


def _put_out(lab: MarketLab) -> None:
    """The market's authority takes the host out of the queue."""
    authority = keypair("authority")
    evicted = PROGRAM.stop(market=str(lab.begin.market), node=str(lab.begin.hosts[0].pubkey()))
    metas = [type(one)(authority.pubkey(), True, False) if one.is_signer else one for one in evicted.accounts]
    out = type(evicted)(evicted.program_id, bytes(evicted.data), metas)
    assert lab.ledger.act([out], authority) is None


async def test_a_new_nosanamarket_of_an_old_ones_name_begins_with_an_empty_queue() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    await lab.pass_time(5)
    old = lab.market()
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET, force=True)
    _put_out(lab)
    await lab.until(lambda: not lab.standing())
    meta = {key: old["metadata"][key] for key in ("name", "namespace")}
    lab.kube.add({**{key: old[key] for key in ("apiVersion", "kind", "spec")}, "metadata": meta})
    await lab.until(lab.standing, 20)
    assert not [one for one in lab.events.seen if one[1] == "StandingLost"]


async def test_where_jobs_are_refused_no_key_stands_until_one_is_taken() -> None:
    lab = MarketLab(hosts=3, gpus=3)
    await lab.until(lambda: len(chain_market(lab).queue) == 3)

    async def missing(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("create", JOB_KIND):
            raise FakeNotFound("namespaces not found")

    lab.kube.interrupt = missing
    posted = lab.post(timeout=600)
    await lab.until(lambda: ready(lab)[1] == "JobRefused")
    await lab.until(lambda: not lab.standing(), 20)
    await lab.pass_time(120)
    assert not lab.standing()
    assert (lab.count("Stop"), lab.count("Work")) == (2, 3)
    lab.kube.interrupt = None
    await lab.until(lambda: len(chain_market(lab).queue) == 2, 30)
    await lab.until(lab.settled(posted))
    lab.check_books()


async def test_a_refusal_that_is_over_at_the_next_try_costs_no_place_in_the_queue() -> None:
    lab = MarketLab(hosts=2, gpus=2)
    await lab.until(lambda: len(chain_market(lab).queue) == 2)
    refusals = iter([True])

    async def once(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("create", JOB_KIND) and next(refusals, False):
            raise FakeNotFound("namespaces not found")

    lab.kube.interrupt = once
    posted = lab.post(timeout=600)
    await lab.until(lab.settled(posted))
    assert lab.count("Stop") == 0


async def test_being_matched_is_not_being_put_out() -> None:
    lab = MarketLab(hosts=2, gpus=2)
    for n in range(4):
        await lab.until(lab.standing)
        lab.post(content=bytes([n]))
        await lab.pass_time(7)
    await lab.until(lab.settled())
    assert not [one for one in lab.events.seen if one[1] in ("StandingLost", "KeyInUseElsewhere")]
    lab.check_books()


async def test_a_price_below_ours_leaves_the_queue() -> None:
    lab = MarketLab(market={"minPrice": 10})
    await lab.until(lab.standing)
    spec(lab, minPrice=11)
    await lab.until(lambda: not lab.standing())
    await lab.until(lambda: ready(lab)[:2] == ("False", "PriceTooLow"))
    spec(lab, minPrice=10)
    await lab.until(lab.standing)


# -- keys


async def test_a_key_that_is_used_elsewhere_takes_no_job_until_that_is_acknowledged() -> None:
    lab = MarketLab(seconds=lambda: 120, gpus=2)
    posted = await running(lab, timeout=600)
    host = lab.begin.hosts[0]
    await lab.until(lab.standing)
    await lab.pass_time(40)
    # Another install leaves the queue, and stands in it again.
    by_hand(lab, host, PROGRAM.stop(market=str(lab.begin.market), node=str(host.pubkey())))
    work_by_hand(lab, host)
    key = str(host.pubkey())
    await lab.until(lambda: wallet(lab, key).get("reason") == "KeyInUseElsewhere", 60)
    assert wallet(lab, key)["state"] == "Blocked"
    signature = wallet(lab, key)["foreign"]
    assert signature in wallet(lab, key)["message"]
    assert [reason for _, reason, _ in lab.events.seen].count("KeyInUseElsewhere") == 1
    await lab.until(lab.settled(posted), 200)
    assert lab.says("Settled", posted) == ("True", "Finished"), "what it has, it brings to its end"
    works = lab.count("Work")
    lab.boot()
    await lab.pass_time(60)
    assert wallet(lab, key)["reason"] == "KeyInUseElsewhere", "a restart forgets nothing"
    assert lab.count("Work") == works

    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"metadata": {"annotations": {ANNOTATION_KEY_USE: signature}}})
    await lab.until(lambda: wallet(lab, key)["state"] in ("Ready", "Standing"), 30)
    lab.check_books()


async def test_money_and_the_owners_of_jobs_are_no_other_users_of_the_key() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    poster = lab.begin.poster
    node = str(lab.begin.hosts[0].pubkey())
    gift = PROGRAM.create_nos_account(payer=str(poster.pubkey()), owner=node)
    assert lab.ledger.act([gift], poster) is None
    assert lab.end(posted) is None
    await lab.until(lab.settled(posted))
    await lab.pass_time(90)
    assert wallet(lab, node)["state"] == "Standing"
    assert not [one for one in lab.events.seen if one[1] == "KeyInUseElsewhere"]


async def test_our_own_transactions_after_a_crash_are_ours() -> None:
    lab = MarketLab(seconds=lambda: 8, gpus=1)
    for n in range(4):
        await lab.until(lab.standing)
        lab.post(content=bytes([n]))
        await lab.pass_time(6)
        lab.boot()
        await lab.pass_time(11)
        lab.boot()
    await lab.until(lab.settled())
    await lab.pass_time(60)
    assert not [one for one in lab.events.seen if one[1] == "KeyInUseElsewhere"]
    lab.check_books()


async def test_a_run_found_at_the_start_that_nobody_knows_is_adopted() -> None:
    lab = MarketLab(seconds=lambda: 5)
    lab.processes.clear()
    await lab.pass_time(1)
    posted = lab.post()
    work_by_hand(lab, lab.begin.hosts[0])
    assert lab.run_of(posted) is not None
    await lab.pass_time(20)
    lab.processes.append(lab.process)
    lab.boot()
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    await lab.until(lab.standing)
    lab.check_books()


async def test_a_key_without_enough_sol_stands_again_when_it_has_come() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    host = lab.begin.hosts[0].pubkey()
    rich = lab.ledger.account(host)
    assert rich is not None
    lab.ledger.place(host, type(rich)(3_900_000, rich.owner, rich.data))
    await lab.pass_time(35)
    lab.post()
    await lab.until(lab.settled())
    await lab.until(lambda: wallet(lab, str(host)).get("reason") == "SolTooLow", 60)
    assert lab.count("Work") == 1
    lab.ledger.place(host, rich)
    await lab.until(lab.standing, 60)


# -- leaving


async def test_a_cordoned_node_leaves_the_queue_and_its_job_goes_on() -> None:
    lab = MarketLab(gpus=2, seconds=lambda: 40)
    posted = await running(lab)
    await lab.until(lab.standing)
    lab.kube.edit("Node", None, "node-1", {"spec": {"unschedulable": True}})
    await lab.until(lambda: not lab.standing())
    assert lab.run_of(posted) is not None
    await lab.until(lab.settled())
    assert lab.says("Complete", posted) == ("True", "Succeeded")
    assert not lab.standing()
    assert ready(lab)[1] == "NoFreeSlot"
    assert "cordoned" in ready(lab)[2]
    lab.kube.edit("Node", None, "node-1", {"spec": {"unschedulable": False}})
    await lab.until(lab.standing)


async def test_a_drain_waits_for_the_jobs_or_ends_them_at_its_deadline() -> None:
    lab = MarketLab(gpus=2, seconds=lambda: 1000)
    posted = await running(lab, timeout=600)
    await lab.until(lab.standing)
    deadline = timestamp(lab.clock.now() + timedelta(seconds=45))
    spec(lab, drain={"policy": "Wait"})
    await lab.until(lambda: not lab.standing())
    await lab.until(lambda: ready(lab)[:2] == ("True", "Draining"))
    await lab.pass_time(20)
    assert lab.run_of(posted) is not None
    spec(lab, drain={"policy": "Finish", "deadline": deadline})
    await lab.pass_time(5)
    assert not lab.nosana_jobs()[0]["spec"].get("stop"), "it is not yet time"
    await lab.until(lambda: bool(lab.nosana_jobs()[0]["spec"].get("stop")), 60)
    lab.kube.remove(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"])
    await lab.until(lambda: lab.job_of(posted) is None)
    assert lab.count("Finish") == 1
    assert 200 <= lab.earned() < 600 * 10
    lab.check_books()


async def test_the_end_of_the_process_changes_nothing_on_chain() -> None:
    lab = MarketLab(seconds=lambda: 60, gpus=2)
    posted = await running(lab)
    await lab.until(lab.standing)
    landed = len(lab.ledger.history)
    lab.processes.clear()
    await lab.pass_time(10)
    assert len(lab.ledger.history) == landed
    assert lab.standing()
    lab.processes.append(lab.process)
    lab.boot()
    await lab.until(lab.settled(posted))
    assert lab.count("Stop") == 0
    lab.check_books()
