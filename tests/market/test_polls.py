"""What is asked of the chain beside the serving of runs: in its own time, once for all markets."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from fakes.chain import keypair
from fakes.many_markets import FleetLab, Shape
from fakes.market import MarketLab
from fakes.market_objects import ADMIN, MARKET
from fakes.other_hosts import spec
from fakes.trouble import Silence
from fakes.virtual_time import run_virtually
from nosana_operator.api import MARKET_KIND
from nosana_operator.errors import Refused
from nosana_operator.market.keys.polls import FUNDS_FRESH, MISSING, RARELY, UNANSWERED
from nosana_sandbox.program import Account
from nosana_sandbox.program.layout import Market

COLLECTION = str(keypair("collection").pubkey())
BESIDE = ("read_funds", "read_access_keys", "read_history", "signed_by", "payout_problem")


class Asked(Counter[str]):
    """Counts what the checks ask of a lab's chain; `silent` methods get no answer."""

    def __init__(self, lab: MarketLab) -> None:
        super().__init__()
        self.silent: set[str] = set()
        self.held: frozenset[str] = frozenset()
        """Access keys of every key."""
        for name in BESIDE:
            setattr(lab.process.solana, name, self._counted(name, getattr(lab.process.solana, name)))

    def _counted(self, name: str, method: Any) -> Any:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            self[name] += 1
            if name in self.silent:
                raise Silence("no answer")
            return self.held if name == "read_access_keys" else await method(*args, **kwargs)

        return counted


def closed(lab: MarketLab) -> None:
    """The market wants an access key from now on."""
    account = lab.ledger.account(lab.begin.market)
    assert account is not None
    market = Market.decode(account.data)
    market.node_access_key = keypair("collection").pubkey()
    lab.ledger.place(
        lab.begin.market,
        Account(account.lamports, account.owner, market.encode().ljust(len(account.data), b"\0")),
    )


def first_key(lab: MarketLab) -> dict[str, Any]:
    """The first row of status.wallets, but for its balances."""
    rows = (lab.market().get("status") or {}).get("wallets") or [{}]
    return {
        "reason": "",
        **{name: value for name, value in rows[0].items() if name not in ("lamports", "nos")},
    }


async def test_funds_are_read_together_for_all_markets() -> None:
    lab = FleetLab(Shape(markets=3, keys=8), random.Random(0), seconds=(600, 600))
    asked = Asked(lab)
    await lab.pass_time(10)
    before = asked["read_funds"]
    await lab.pass_time(10 * FUNDS_FRESH)
    assert asked["read_funds"] - before in (9, 10), "eight keys, three markets"
    assert len(lab.metrics.lamports) == 8


async def test_funds_that_got_no_answer_are_asked_for_again_after_a_while() -> None:
    lab = MarketLab()
    await lab.until(lab.standing)
    asked = Asked(lab)
    asked.silent = {"read_funds"}
    await lab.pass_time(FUNDS_FRESH + 10 * UNANSWERED)
    assert 8 <= asked["read_funds"] <= 11
    assert first_key(lab)["state"] == "Standing", "it goes by what was known"


async def test_nothing_is_offered_or_told_before_the_keys_funds_were_asked_for() -> None:
    lab = MarketLab(market={"payoutAddress": str(keypair("payout").pubkey())})
    await lab.until(lab.standing)
    await lab.pass_time(15)
    before, row = lab.market()["status"], first_key(lab)
    process = lab.boot()
    asked = Asked(lab)
    process.dirty = {(kind, key) for kind, key in process.dirty if kind == MARKET_KIND}
    checks, process.checks.reconcile = process.checks.reconcile, _later  # type: ignore[method-assign, assignment]
    await lab.pass_time(30)
    assert lab.market()["status"] == before, "a restart is no news"
    assert not asked
    process.checks.reconcile = checks  # type: ignore[method-assign]
    await lab.pass_time(5)
    assert (asked["read_funds"], asked["payout_problem"]) == (1, 1)
    assert first_key(lab) == row


async def _later(check: Any) -> float | None:
    return 1.0


async def test_a_payout_address_is_looked_at_seldom() -> None:
    lab = MarketLab(market={"payoutAddress": str(keypair("payout").pubkey())})
    asked = Asked(lab)
    await lab.pass_time(RARELY + 60)
    assert asked["payout_problem"] == 2
    asked.silent = {"payout_problem"}
    spec(lab, payoutAddress=str(keypair("other").pubkey()))
    await lab.pass_time(3 * UNANSWERED)
    assert 5 <= asked["payout_problem"] <= 7


async def test_access_keys_are_read_seldom_while_the_wanted_one_is_held() -> None:
    lab = MarketLab(market={"paused": True})
    asked = Asked(lab)
    closed(lab)
    await lab.pass_time(5 * MISSING + 5)
    assert first_key(lab)["reason"] == "AccessKeyMissing"
    assert asked["read_access_keys"] == 6
    asked.held = frozenset({COLLECTION})
    await lab.until(lambda: first_key(lab)["reason"] != "AccessKeyMissing", MISSING + 5)
    asked.clear()
    await lab.pass_time(RARELY - MISSING)
    assert asked["read_access_keys"] == 0
    await lab.pass_time(MISSING + 5)
    assert asked["read_access_keys"] == 1


async def test_an_access_key_that_is_gone_is_looked_for_at_once() -> None:
    lab = MarketLab()
    asked = Asked(lab)
    asked.held = frozenset({COLLECTION})
    signed = 0

    async def sign_work(*args: Any) -> Any:
        nonlocal signed
        signed += 1
        asked.held = frozenset()
        raise Refused("the token is gone")

    lab.process.solana.sign_work = sign_work  # type: ignore[method-assign, assignment]
    closed(lab)
    await lab.until(lambda: signed > 0, 60)
    await lab.until(lambda: first_key(lab)["reason"] == "AccessKeyMissing", 5)
    await lab.pass_time(30)
    assert signed == 1


@pytest.mark.parametrize("methods", [BESIDE, ("outcome",)], ids=["checks", "outcome"])
def test_a_run_gets_its_job_though_all_else_hangs(methods: tuple[str, ...]) -> None:
    async def main() -> None:
        lab = MarketLab()
        await lab.until(lab.standing)
        lab.process.host._memory.clear()
        posted = lab.post()
        lab.ledger.tick()
        lab.ledger.tick()
        await lab.process._watch_chain()
        for name in methods:
            setattr(lab.process.solana, name, _hang)
        # So that everything is due.
        lab.clock.advance(RARELY)
        looks = [asyncio.create_task(lab.process.checks.reconcile(check)) for check in lab.process.checks.all]
        look = asyncio.create_task(_quietly(lab.process.host.reconcile((ADMIN, MARKET))))
        await asyncio.sleep(1)
        assert lab.job_of(posted) is not None
        for task in (*looks, look):
            task.cancel()
        await asyncio.gather(*looks, look, return_exceptions=True)

    run_virtually(main())


async def _hang(*args: Any, **kwargs: Any) -> Any:
    await asyncio.sleep(10_000)


async def _quietly(look: Any) -> None:
    await look
