"""Keys that come and go: what they hold is served to its end, whatever spec and Secrets say meanwhile."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fakes.kube import Request
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from fakes.other_hosts import add_market, chain_market, matches, post_to, spec
from fakes.trouble import Silence
from nosana_operator.api import (
    ANNOTATION_ABANDON,
    JOB_KIND,
    MARKET_KIND,
    NosanaMarketSpec,
    NosanaMarketStatus,
    WalletStatus,
)
from nosana_operator.api.crd import schema_of
from nosana_operator.cli.leave import still_standing

Row = tuple[str, str | None]


def refs(*names: str) -> list[dict[str, Any]]:
    return [{"secretRef": {"name": name}} for name in names]


def address(lab: MarketLab, host: int = 0) -> str:
    return str(lab.begin.hosts[host].pubkey())


def rows(lab: MarketLab, market: str = MARKET) -> dict[str, Row]:
    """State and reason of each key in the status; of one without an address by its Secret."""
    body = lab.kube.find(MARKET_KIND, ADMIN, market) or {}
    wallets = (body.get("status") or {}).get("wallets") or ()
    return {one.get("address", one["secret"]): (one["state"], one.get("reason")) for one in wallets}


def stands(lab: MarketLab, host: int = 0) -> bool:
    return lab.begin.hosts[host].pubkey() in chain_market(lab).queue


def replace_secret(lab: MarketLab, name: str, host: int) -> None:
    """Another key in the Secret."""
    lab.kube.remove("Secret", ADMIN, name)
    lab.add_wallet(name, bytes(lab.begin.hosts[host]))


def second(lab: MarketLab, *secrets: str, jobs: str = "other-jobs") -> None:
    """A newer NosanaMarket for the same market."""
    lab.clock.advance(1)
    first = lab.market()
    lab.kube.add(
        {
            "apiVersion": first["apiVersion"],
            "kind": MARKET_KIND,
            "metadata": {"name": "second", "namespace": ADMIN},
            "spec": first["spec"] | {"jobNamespace": jobs, "wallets": refs(*secrets)},
        }
    )


async def running(lab: MarketLab, **options: Any) -> Posted:
    """A job that runs with the one key that may stand."""
    await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    return posted


def alone(gpus: int = 1, **options: Any) -> MarketLab:
    """Two keys, of which the first is in the spec."""
    return MarketLab(hosts=2, gpus=gpus, market={"wallets": refs("wallet-0")}, **options)


# -- taken out of the spec


@pytest.mark.parametrize("restart", [False, True])
async def test_a_key_that_is_taken_out_of_the_spec_leaves_the_queue(restart: bool) -> None:
    lab = alone()
    await lab.until(lab.standing)
    spec(lab, wallets=refs("wallet-1"))
    if restart:
        lab.boot()
    await lab.until(lambda: rows(lab).get(address(lab)) == ("Blocked", "WalletRemoved"))
    while address(lab) in rows(lab) or not stands(lab, 1):
        await lab.slot()
        assert matches(lab, "market") <= 1, "as many as there are slots"
    assert not stands(lab)
    posted = lab.post()
    await lab.until(lab.settled(posted))
    assert list(rows(lab)) == [address(lab, 1)]
    lab.check_books()


@pytest.mark.parametrize("meanwhile", ["nothing", "the operator restarts", "its Secret is deleted"])
async def test_a_key_that_is_taken_out_of_the_spec_settles_its_run(meanwhile: str) -> None:
    lab = alone(seconds=lambda: 30)
    posted = await running(lab, timeout=600)
    spec(lab, wallets=refs("wallet-1"))
    if meanwhile == "the operator restarts":
        lab.boot()
    elif meanwhile == "its Secret is deleted":
        lab.kube.remove("Secret", ADMIN, "wallet-0")
    await lab.pass_time(10)
    assert rows(lab)[address(lab)] == ("Blocked", "WalletRemoved")
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    await lab.until(lambda: list(rows(lab)) == [address(lab, 1)])
    lab.check_books()


async def test_a_match_that_comes_while_a_key_is_taken_out_is_served() -> None:
    lab = alone()
    await lab.until(lab.standing)
    spec(lab, wallets=refs("wallet-1"))
    posted = lab.post()
    lab.boot()
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert lab.count("Finish") == 1
    lab.check_books()


async def test_a_key_that_is_taken_out_of_the_spec_posts_the_result_of_a_run_that_is_closed() -> None:
    """After the owner's end there is no run on chain; the result still has to be signed for."""
    lab = alone(seconds=lambda: 1000)
    posted = await running(lab)
    spec(lab, wallets=refs("wallet-1"))
    lab.pins.down = lambda: True
    assert lab.end(posted) is None
    await lab.pass_time(20)
    assert address(lab) in rows(lab)
    lab.boot()
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Completed")
    await lab.until(lambda: address(lab) not in rows(lab))
    lab.check_books()


async def test_silence_of_the_api_at_a_restart_forgets_no_key() -> None:
    lab = alone(seconds=lambda: 60)
    posted = await running(lab, timeout=600)
    spec(lab, wallets=refs("wallet-1"))
    await lab.until(lambda: rows(lab)[address(lab)] == ("Blocked", "WalletRemoved"))

    async def away(request: Request, when: str) -> None:
        if request.kind == "Secret" and request.name == "wallet-0":
            raise Silence("away")

    lab.kube.interrupt = away
    lab.boot()
    await lab.pass_time(15)
    assert rows(lab)[address(lab)] == ("Unknown", "SecretMissing")
    lab.boot()
    lab.kube.interrupt = None
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_a_key_that_goes_on_in_another_market_leaves_no_row() -> None:
    lab = MarketLab(hosts=2, gpus=4, seconds=lambda: 3000)
    add_market(lab, "other", ["wallet-0"])
    await lab.until(lambda: lab.begin.hosts[0].pubkey() in chain_market(lab, "other").queue)
    post_to(lab, "other", 1, timeout=6000)
    await lab.until(lambda: len(lab.nosana_jobs()) == 1)
    spec(lab, wallets=refs("wallet-1"))
    await lab.until(lambda: list(rows(lab)) == [address(lab, 1)])
    await lab.pass_time(10)
    assert len(lab.nosana_jobs()) == 1
    assert address(lab) in rows(lab, "other")


async def test_a_key_that_is_put_back_stands_again() -> None:
    lab = alone()
    await lab.until(lab.standing)
    spec(lab, wallets=refs("wallet-1"))
    await lab.until(lambda: not stands(lab))
    spec(lab, wallets=refs("wallet-0"))
    await lab.until(lambda: rows(lab) == {address(lab): ("Standing", "Standing")}, 120)


async def test_what_comes_into_a_secret_after_it_was_taken_out_is_not_used() -> None:
    lab = MarketLab(hosts=3, gpus=1, seconds=lambda: 200, market={"wallets": refs("wallet-0")})
    posted = await running(lab, timeout=600)
    spec(lab, wallets=refs("wallet-1"))
    await lab.until(lambda: address(lab, 1) in rows(lab))
    replace_secret(lab, "wallet-0", 2)
    await lab.until(lab.settled(posted))
    await lab.pass_time(60)
    assert list(rows(lab)) == [address(lab, 1)]
    lab.check_books()


# -- not in memory


async def test_a_key_whose_secret_is_missing_at_the_start_still_stands() -> None:
    lab = MarketLab(hosts=2, gpus=2)
    await lab.until(lambda: stands(lab) and stands(lab, 1))
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    lab.boot()
    await lab.pass_time(20)
    assert rows(lab)[address(lab)] == ("Blocked", "SecretMissing")
    assert lab.slots()["standing"] == 2
    # The other key goes on: its jobs are served, it leaves and stands.
    spec(lab, paused=True)
    await lab.until(lambda: not stands(lab, 1))
    await lab.pass_time(20)
    said = still_standing(lab.market())
    assert said is not None
    assert "1 key stands (Paused: paused: out of the queue; running jobs continue; SecretMissing: " in said
    assert address(lab) in said
    spec(lab, paused=False)
    await lab.until(lambda: stands(lab, 1))
    # Neither does a deletion forget it.
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET)
    await lab.until(lambda: not stands(lab, 1))
    await lab.pass_time(60)
    assert stands(lab)
    lab.add_wallet("wallet-0", bytes(lab.begin.hosts[0]))
    for _ in range(100):
        await lab.slot()
        if lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None:
            break
    assert lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None
    assert not stands(lab)


async def test_the_match_of_a_key_that_is_missing_is_told_and_served_when_it_is_back() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    lab.boot()
    await lab.pass_time(5)
    posted = lab.post(timeout=600)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("Unknown", "WalletMissing"))
    await lab.until(lambda: lab.slots()["running"] == 1)
    lab.boot()
    await lab.pass_time(10)
    assert lab.slots()["running"] == 1
    lab.add_wallet("wallet-0", bytes(lab.begin.hosts[0]))
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


async def test_a_run_of_a_key_that_is_lost_for_good_can_be_given_up() -> None:
    lab = alone(seconds=lambda: 10)
    posted = await running(lab)
    lab.kube.remove("Secret", ADMIN, "wallet-0")
    spec(lab, wallets=refs("wallet-1"))
    lab.boot()
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "WalletMissing"))
    assert rows(lab)[address(lab)] == ("Blocked", "SecretMissing")
    run = (lab.job_of(posted) or {})["spec"]["run"]["run"]
    note = {"metadata": {"annotations": {ANNOTATION_ABANDON: run}}}
    lab.kube.edit(JOB_KIND, JOBS, lab.nosana_jobs()[0]["metadata"]["name"], note)
    await lab.until(lab.settled(posted))
    await lab.until(lambda: stands(lab, 1))


# -- one key, one Secret


async def test_a_key_that_was_replaced_while_the_operator_was_away_is_told() -> None:
    lab = alone(gpus=2)
    await lab.until(lab.standing)
    replace_secret(lab, "wallet-0", 1)
    lab.boot()
    await lab.until(lambda: rows(lab).get(address(lab)) == ("Blocked", "SecretRotated"))
    await lab.until(lambda: stands(lab, 1))
    lab.boot()
    await lab.pass_time(20)
    assert rows(lab)[address(lab)] == ("Blocked", "SecretRotated")
    assert lab.slots()["standing"] == 2
    lab.add_wallet("old", bytes(lab.begin.hosts[0]))
    spec(lab, wallets=refs("wallet-0", "old"))
    await lab.until(lambda: set(rows(lab).values()) == {("Standing", "Standing")})
    assert len(rows(lab)) == 2


async def test_a_former_key_in_a_secret_of_its_own_stands_again() -> None:
    lab = alone(gpus=3, seconds=lambda: 200)
    posted = await running(lab, timeout=600)
    replace_secret(lab, "wallet-0", 1)
    await lab.until(lambda: rows(lab).get(address(lab)) == ("Blocked", "SecretRotated"), 90)
    lab.add_wallet("old", bytes(lab.begin.hosts[0]))
    spec(lab, wallets=refs("wallet-0", "old"))
    await lab.until(lambda: set(rows(lab).values()) == {("Standing", "Standing")}, 120)
    assert stands(lab)
    await lab.until(lab.settled(posted))
    lab.check_books()


async def test_two_secrets_that_are_swapped() -> None:
    lab = MarketLab(hosts=2, gpus=2)
    await lab.until(lambda: stands(lab) and stands(lab, 1))
    replace_secret(lab, "wallet-0", 1)
    replace_secret(lab, "wallet-1", 0)
    await lab.pass_time(70)
    await lab.until(lambda: set(rows(lab).values()) == {("Standing", "Standing")}, 120)
    assert len(rows(lab)) == 2


@pytest.mark.parametrize("how", ["its Secret holds another", "it is taken out of the spec"])
async def test_a_newer_market_has_a_key_once_the_older_has_settled_its_runs(how: str) -> None:
    lab = alone(gpus=4, seconds=lambda: 200)
    posted = await running(lab, timeout=600)
    second(lab, "moved")
    lab.add_wallet("moved", bytes(lab.begin.hosts[0]))
    if how == "it is taken out of the spec":
        spec(lab, wallets=refs("wallet-1"))
    else:
        replace_secret(lab, "wallet-0", 1)
    await lab.pass_time(90)
    assert rows(lab, "second") == {"moved/id.json": ("Blocked", "WalletSharedWithOtherMarket")}
    assert not lab.kube.objects(JOB_KIND, "other-jobs"), "a run is served once"
    await lab.until(lab.settled(posted))
    assert lab.says("Settled", posted) == ("True", "Finished")
    await lab.until(lambda: rows(lab, "second") == {address(lab): ("Standing", "Standing")}, 120)
    await lab.until(lambda: list(rows(lab)) == [address(lab, 1)])
    lab.check_books()


# -- bounds


def test_the_status_has_room_for_the_keys_that_were_replaced() -> None:
    spec_of, status_of = schema_of(NosanaMarketSpec), schema_of(NosanaMarketStatus)
    most = spec_of["properties"]["wallets"]["maxItems"]
    assert status_of["properties"]["wallets"]["maxItems"] >= 2 * most
    wallets = tuple(WalletStatus(secret=f"s/{n}") for n in range(2 * most))
    assert len(NosanaMarketStatus(wallets=wallets).wallets) == 2 * most


async def test_a_secret_that_is_missing_is_not_asked_for_at_each_look() -> None:
    lab = MarketLab(market={"wallets": refs("wallet-0", "missing")})
    for number in range(4):
        add_market(lab, f"other-{number}", ["wallet-0", f"missing-{number}"])
    await lab.pass_time(70)
    asked: list[str] = []

    async def count(request: Request, when: str) -> None:
        if request.kind == "Secret" and when == "before":
            asked.append(request.name)

    lab.kube.interrupt = count
    await lab.pass_time(60)
    assert all(asked.count(name) <= 13 for name in set(asked))
    assert asked.count("missing") >= 5, "and is noticed soon when it comes"


async def test_a_secret_of_brackets_harms_no_other_market() -> None:
    lab = MarketLab()
    data = {"id.json": base64.b64encode(b"[" * 4000).decode()}
    lab.kube.add(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "odd", "namespace": ADMIN}, "data": data}
    )
    add_market(lab, "other", ["odd"])
    await lab.until(lab.standing)
    assert rows(lab, "other") == {"odd/id.json": ("Blocked", "SecretInvalid")}
