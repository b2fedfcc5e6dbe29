"""A key that more than one uses: another NosanaMarket, or somebody else's host."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair

from fakes.kube import Request
from fakes.market import MarketLab
from fakes.market_objects import ADMIN, MARKET
from fakes.other_hosts import PROGRAM, add_market, by_hand, chain_market, post_to, spec, wallet, work_by_hand
from fakes.trouble import Silence
from nosana_operator.api import ANNOTATION_KEY_USE, MARKET_KIND


async def test_a_drain_stops_the_jobs_of_its_own_market_only() -> None:
    lab = MarketLab(gpus=4, seconds=lambda: 3000)
    add_market(lab, "second", ["wallet-0"])
    host = lab.begin.hosts[0].pubkey()
    await lab.until(lambda: lab.standing() and host in chain_market(lab, "second").queue)
    post_to(lab, "second", 1, timeout=3600)
    posted = lab.post(timeout=3600)
    await lab.until(lambda: len(lab.nosana_jobs()) == 2)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    spec(lab, drain={"policy": "Finish"})
    await lab.pass_time(30)
    jobs = lab.nosana_jobs()
    assert {one["spec"]["run"]["marketRef"]["name"] for one in jobs} == {MARKET, "second"}
    stopped = [one["spec"]["run"]["marketRef"]["name"] for one in jobs if one["spec"].get("stop")]
    assert stopped == [MARKET]


async def _stands_by_another_host(lab: MarketLab) -> Keypair:
    """The host whose key another install has put into the queue, and that is known."""
    host = lab.begin.hosts[0]
    await lab.until(lab.standing)
    await lab.pass_time(40)
    by_hand(lab, host, PROGRAM.stop(market=str(lab.begin.market), node=str(host.pubkey())))
    await lab.pass_time(5)
    work_by_hand(lab, host)
    await lab.until(lambda: wallet(lab, str(host.pubkey())).get("reason") == "KeyInUseElsewhere", 90)
    return host


@pytest.mark.parametrize("how", ["paused", "deleted"])
async def test_what_another_host_put_into_the_queue_it_would_put_back(how: str) -> None:
    """Each `stop` costs a fee, and the next one would be due at once."""
    lab = MarketLab()
    host = await _stands_by_another_host(lab)
    stops = lab.count("Stop")
    if how == "paused":
        spec(lab, paused=True)
    else:
        lab.kube.remove(MARKET_KIND, ADMIN, MARKET)
    for _ in range(300):
        await lab.slot()
        if not lab.standing() and not lab.ledger.waiting:
            work_by_hand(lab, host)
    assert lab.count("Stop") == stops
    found = lab.kube.find(MARKET_KIND, ADMIN, MARKET)
    assert (found is None) == (how == "deleted"), "a market that is deleted does not wait for it"


async def test_once_that_is_acknowledged_a_paused_market_leaves_the_queue() -> None:
    lab = MarketLab()
    host = await _stands_by_another_host(lab)
    spec(lab, paused=True)
    await lab.pass_time(20)
    assert lab.standing()
    note = {ANNOTATION_KEY_USE: wallet(lab, str(host.pubkey()))["foreign"]}
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"metadata": {"annotations": note}})
    await lab.until(lambda: not lab.standing(), 30)


@pytest.mark.parametrize("silent", ["chain", "secret", "both"])
async def test_a_restart_while_all_is_silent_forgets_nothing(silent: str) -> None:
    lab = MarketLab(gpus=2)
    key = str((await _stands_by_another_host(lab)).pubkey())
    await lab.pass_time(20)
    signature, works, gate = wallet(lab, key)["foreign"], lab.count("Work"), lab.rpc.gate

    async def no_chain(method: str, when: str) -> None:
        raise Silence("away")

    async def no_secret(request: Request, when: str) -> None:
        if (request.verb, request.kind) == ("get", "Secret"):
            raise Silence("away")

    if silent != "secret":
        lab.rpc.gate = no_chain
    if silent != "chain":
        lab.kube.interrupt = no_secret
    lab.boot()
    await lab.pass_time(30)
    assert wallet(lab, key)["foreign"] == signature
    lab.rpc.gate, lab.kube.interrupt = gate, None
    await lab.pass_time(90)
    assert (wallet(lab, key)["reason"], wallet(lab, key)["foreign"]) == ("KeyInUseElsewhere", signature)
    assert lab.count("Work") == works


@pytest.mark.parametrize("secret", ["wallet-0", "wallet-1"])
@pytest.mark.parametrize("silent", [True, False], ids=["its Secret is silent at first", "its Secret answers"])
async def test_a_run_in_a_market_that_is_served_with_other_keys_only_is_told(
    secret: str, silent: bool
) -> None:
    lab = MarketLab(hosts=2, gpus=3, market={"wallets": [{"secretRef": {"name": "wallet-0"}}]})
    add_market(lab, "second", [secret])
    lab.processes.clear()
    await lab.pass_time(1)
    post_to(lab, "second", 1)
    work_by_hand(lab, lab.begin.hosts[0], "second")

    async def no_secret(request: Request, when: str) -> None:
        if (request.verb, request.kind, request.name) == ("get", "Secret", secret):
            raise Silence("away")

    if silent:
        lab.kube.interrupt = no_secret
    lab.boot()
    await lab.pass_time(20)
    if silent:
        assert not [one for one in lab.events.seen if one[1] == "RunUnserved"], "it may be served"
        lab.kube.interrupt = None
        await lab.pass_time(40)
    told = [note for _, reason, note in lab.events.seen if reason == "RunUnserved"]
    if secret == "wallet-0":
        assert (len(lab.nosana_jobs()), told) == (1, [])
    else:
        assert not lab.nosana_jobs()
        assert len(told) == 1
        assert str(lab.begin.hosts[0].pubkey()) in told[0], "the key that it is to have"
