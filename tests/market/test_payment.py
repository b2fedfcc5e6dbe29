"""Who is paid, where to, how much; and what happens when a run cannot be paid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from solana.rpc.commitment import Commitment
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from fakes.chain import FakeRpc, keypair
from fakes.market import MarketLab, Posted
from fakes.market_objects import ADMIN, JOBS, MARKET
from nosana_operator.api import ANNOTATION_ABANDON, JOB_KIND, MARKET_KIND, find_condition
from nosana_operator.chain.rpc.wire import InnerInstruction, LandedTransaction
from nosana_operator.market.facts import NO_RESULT, QUEUED, JobFacts, PaymentFacts
from nosana_operator.market.runs.on_chain import obstacle
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import NOS_MINT, TOKEN_PROGRAM, associated_token_account, market_vault
from nosana_sandbox.program.layout import STATE_DONE, STATE_STOPPED, TokenAccount

JOB = JobFacts(
    address="job", ipfs_job=b"d" * 32, ipfs_result=NO_RESULT, market="market", node="1" * 32, payer="payer",
    project="project", price=10, state=QUEUED, time_start=0, time_end=0, timeout=100,
)  # fmt: skip
FREE = JobFacts(**{name: getattr(JOB, name) for name in JobFacts.__slots__} | {"price": 0})


def payment(**changes: Any) -> PaymentFacts:
    return PaymentFacts(
        **{"market": True, "vault": 1000, "payer_account": True, "account_rent": 500, **changes}
    )


@pytest.mark.parametrize(
    ("job", "seconds", "found", "why"),
    [
        (JOB, 50, payment(), None),
        (JOB, 50, payment(vault=999), "holds 999 of the 1000"),
        (JOB, 50, payment(vault=None), "was closed"),
        (JOB, 50, payment(market=False), "was closed"),
        (JOB, 50, payment(payout_problem="that is a token account"), "spec.payoutAddress"),
        # An account is made again for a run that pays for it, and paid are at most the time-out's seconds.
        (JOB, 50, payment(payer_account=False), None),
        (JOB, 49, payment(payer_account=False), "more than the pay of 490"),
        (JOB, 10**9, payment(payer_account=False, account_rent=1001), "more than the pay of 1000"),
        (JOB, -5, payment(payer_account=False), "more than the pay of 0"),
        (FREE, 50, payment(vault=0, payer_account=False), None),
        (FREE, 50, payment(vault=None), "was closed"),
    ],
)
def test_what_keeps_a_run_from_being_paid(
    job: JobFacts, seconds: float, found: PaymentFacts, why: str | None
) -> None:
    blocked = obstacle(job, seconds, found)
    assert (blocked is None) == (why is None)
    assert why is None or (blocked is not None and why in blocked.message)
    assert blocked is None or blocked.by_poster == ("the payer" in blocked.message)


async def running(lab: MarketLab, **options: Any) -> Posted:
    """A job that is verified and runs."""
    await lab.until(lab.standing)
    posted = lab.post(**options)
    await lab.until(lambda: lab.says("RunVerified", posted) == ("True", "Verified"))
    return posted


def settlement(lab: MarketLab, posted: Posted) -> dict[str, Any]:
    body = lab.job_of(posted) or {}
    return dict((body.get("status") or {}).get("settlement") or {})


def told(lab: MarketLab, reason: str) -> list[str]:
    """What the Events with that reason say."""
    return [note for _, why, note in lab.events.seen if why == reason]


# -- where to


async def test_finish_pays_to_the_payout_address_and_makes_its_account() -> None:
    payout = keypair("payout").pubkey()
    lab = MarketLab(market={"payoutAddress": str(payout)})
    posted = await running(lab)
    await lab.until(lab.settled())
    earned = settlement(lab, posted)["earned"]
    assert earned > 0
    assert lab.ledger.tokens(associated_token_account(payout)) == earned
    assert lab.earned() == 0


async def test_the_owners_end_pays_the_key_itself_whatever_the_payout_address() -> None:
    payout = keypair("payout").pubkey()
    lab = MarketLab(seconds=lambda: 1000, market={"payoutAddress": str(payout)})
    posted = await running(lab)
    await lab.pass_time(5)
    assert lab.end(posted) is None
    await lab.until(lab.settled(), 60)
    assert lab.ledger.account(associated_token_account(payout)) is None
    lab.check_books()


async def test_a_payout_address_that_is_no_wallet_is_told_and_not_paid_to() -> None:
    account = associated_token_account(keypair("payout").pubkey())
    lab = MarketLab(market={"payoutAddress": str(account)})
    posted = await running(lab)
    held = TokenAccount(mint=NOS_MINT, owner=keypair("payout").pubkey(), amount=0).encode()
    lab.ledger.place(account, Account(2_039_280, TOKEN_PROGRAM, held))
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    assert "is a token account" in told(lab, "SettlementImpossible")[0]
    assert lab.count("Finish") == 0
    payout = {"payoutAddress": str(keypair("payout").pubkey())}
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": payout})
    await lab.until(lab.settled(), 120)
    assert lab.ledger.tokens(account) == settlement(lab, posted)["earned"] > 0


async def test_a_payout_address_that_is_no_wallet_keeps_out_of_the_queue() -> None:
    account = associated_token_account(keypair("payout").pubkey())
    lab = MarketLab(market={"payoutAddress": str(account)})
    held = TokenAccount(mint=NOS_MINT, owner=keypair("payout").pubkey(), amount=0).encode()
    lab.ledger.place(account, Account(2_039_280, TOKEN_PROGRAM, held))
    await lab.pass_time(30)
    ready = find_condition((lab.market().get("status") or {}).get("conditions"), "Ready") or {}
    assert (ready["status"], ready["reason"]) == ("False", "PayoutAddressInvalid")
    assert "is a token account, no wallet" in ready["message"]
    assert not lab.standing()
    lab.kube.edit(MARKET_KIND, ADMIN, MARKET, {"spec": {"payoutAddress": str(keypair("payout").pubkey())}})
    await lab.until(lab.standing, 60)


# -- what cannot be paid


def _vault(lab: MarketLab) -> Pubkey:
    return market_vault(lab.begin.market, NOS_MINT)[0]


async def test_an_empty_vault_is_told_and_looked_at_by_the_hour() -> None:
    lab = MarketLab()
    posted = await running(lab)
    vault = _vault(lab)
    full = lab.ledger.account(vault)
    assert full is not None
    empty = TokenAccount(mint=NOS_MINT, owner=vault, amount=0).encode()
    lab.ledger.place(vault, Account(full.lamports, TOKEN_PROGRAM, empty))
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    lamports = lab.ledger.account(lab.begin.hosts[0].pubkey())
    looks = _count_looks(lab)
    await lab.pass_time(4 * 3600)
    assert looks() <= 15, "2, 4, 8 … seconds, then by the hour"
    assert lab.ledger.account(lab.begin.hosts[0].pubkey()) == lamports, "nothing was paid for in vain"
    assert len(told(lab, "SettlementImpossible")) == 1
    lab.ledger.place(vault, full)
    await lab.until(lab.settled(), 3700)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


def _count_looks(lab: MarketLab) -> Any:
    """How often a process has asked since what a payment would find."""
    asked = []
    read = lab.process.solana.read_payment

    async def counted(*args: Any, **more: Any) -> PaymentFacts:
        asked.append(args)
        return await read(*args, **more)

    lab.process.solana.read_payment = counted  # type: ignore[method-assign]
    return lambda: len(asked)


async def test_a_market_that_was_closed_under_a_run_is_told_and_signs_nothing() -> None:
    lab = MarketLab(seconds=lambda: 20)
    posted = await running(lab)
    market = lab.ledger.account(lab.begin.market)
    lab.ledger.place(lab.begin.market, None)
    lab.ledger.place(_vault(lab), None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    await lab.pass_time(300)
    assert "closed" in told(lab, "SettlementImpossible")[0]
    assert lab.count("Finish") == 0
    assert lab.earned() == 0
    assert market is not None


async def test_a_job_account_that_was_closed_under_a_run_is_told_and_signs_nothing() -> None:
    lab = MarketLab(seconds=lambda: 60)
    posted = await running(lab)
    await lab.pass_time(40)
    lab.ledger.place(posted.job, None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"), 200)
    assert "was closed though its run is open" in told(lab, "SettlementImpossible")[0]
    assert lab.count("Finish") == 0


async def test_a_poster_who_closed_his_account_gets_it_again_with_a_run_that_pays_for_it() -> None:
    lab = MarketLab(account_rent=20)
    posted = await running(lab)
    account = associated_token_account(lab.begin.poster.pubkey())
    lab.ledger.place(account, None)
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert lab.ledger.tokens(account) == settlement(lab, posted)["refunded"]
    lab.check_books()


async def test_a_poster_who_closes_his_account_each_time_costs_no_rent() -> None:
    """The run is given back, unpaid: that is less than the account would cost, and its slot is free."""
    lab = MarketLab(account_rent=10_000, gpus=1)
    posted = await running(lab)
    account = associated_token_account(lab.begin.poster.pubkey())
    lab.ledger.place(account, None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    lamports = getattr(lab.ledger.account(lab.begin.hosts[0].pubkey()), "lamports", 0)
    await lab.until(lab.settled(), 1500)
    assert lab.says("Settled", posted) == ("True", "Quit")
    assert lab.job_account(posted).state == STATE_STOPPED
    assert "resultCID" not in (lab.job_of(posted) or {})["status"], "nothing is published"
    assert lab.ledger.account(account) is None
    spent = lamports - getattr(lab.ledger.account(lab.begin.hosts[0].pubkey()), "lamports", 0)
    assert spent < 20_000, "fees, no rent"
    await lab.until(lab.standing)


async def test_a_poster_who_opens_his_account_again_is_refunded_and_we_are_paid() -> None:
    lab = MarketLab(account_rent=10_000)
    posted = await running(lab)
    account = associated_token_account(lab.begin.poster.pubkey())
    before = lab.ledger.account(account)
    lab.ledger.place(account, None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    lab.ledger.place(account, before)
    await lab.until(lab.settled(), 600)
    assert lab.says("Settled", posted) == ("True", "Finished")
    assert lab.job_account(posted).state == STATE_DONE
    lab.check_books()


async def test_a_poster_who_opens_his_account_in_the_last_minute_is_not_given_up() -> None:
    lab = MarketLab(account_rent=10_000)
    posted = await running(lab)
    account = associated_token_account(lab.begin.poster.pubkey())
    before = lab.ledger.account(account)
    lab.ledger.place(account, None)
    await lab.until(lambda: lab.says("Settled", posted) == ("False", "SettlementImpossible"))
    await lab.pass_time(585)
    assert settlement(lab, posted) == {}
    lab.ledger.place(account, before)
    await lab.until(lab.settled(), 100)
    assert lab.says("Settled", posted) == ("True", "Finished")
    lab.check_books()


# -- what is told of it


def _keep_transfers(monkeypatch: pytest.MonkeyPatch, lab: MarketLab, posted: Posted) -> None:
    """The node tells what a `finish` moved, as real ones do."""
    landed = FakeRpc.landed

    async def kept(rpc: FakeRpc, signature: str, commitment: Commitment) -> LandedTransaction | None:
        found = await landed(rpc, signature, commitment)
        if found is None:
            return None
        keys = [str(key) for key in VersionedTransaction.from_bytes(found.raw).message.account_keys]

        def transfer(owner: Pubkey, amount: int) -> InnerInstruction:
            vault, to = (keys.index(str(key)) for key in (_vault(lab), associated_token_account(owner)))
            token = keys.index(str(TOKEN_PROGRAM))
            return InnerInstruction(token, (vault, to, vault), bytes([3]) + amount.to_bytes(8, "little"))

        earned = lab.earned()
        moved = (
            transfer(lab.begin.hosts[0].pubkey(), earned),
            transfer(lab.begin.poster.pubkey(), 10 * posted.timeout - earned),
        )
        return replace(found, inner=dict.fromkeys(range(8), moved))

    monkeypatch.setattr(FakeRpc, "landed", kept)


async def test_a_poster_who_closes_his_job_account_at_once_takes_nothing_out_of_our_books(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`clean` is anybody's; then the `finish` itself tells what it paid."""
    lab = MarketLab()
    posted = await running(lab)
    _keep_transfers(monkeypatch, lab, posted)
    await lab.until(lambda: lab.run_of(posted) is None)
    lab.ledger.place(posted.job, None)
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Finished")
    told, earned = settlement(lab, posted), lab.earned()
    assert (told["earned"], told["secondsPaid"]) == (earned, earned // 10)
    assert told["refunded"] == 10 * posted.timeout - earned
    assert lab.metrics.settlements == [("finish", earned, 10 * posted.timeout - earned, earned // 10)]


async def test_where_nothing_tells_the_pay_it_is_said_where_it_stands() -> None:
    lab = MarketLab(seconds=lambda: 1000)
    posted = await running(lab)
    await lab.pass_time(20)
    assert lab.end(posted) is None
    lab.ledger.tick()
    lab.ledger.place(posted.job, None)
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "EndedByOthers")
    said = find_condition((lab.job_of(posted) or {})["status"]["conditions"], "Settled") or {}
    assert "`nosana-operator earnings` shows what was paid" in said["message"]
    assert lab.earned() > 0


# -- what is given up


async def abandoned(lab: MarketLab, **options: Any) -> tuple[Posted, str]:
    """A job that runs and whose pay an admin gives up, and the name of its NosanaJob."""
    posted = await running(lab, **options)
    body = lab.job_of(posted) or {}
    note = {ANNOTATION_ABANDON: body["spec"]["run"]["run"]}
    lab.kube.edit(JOB_KIND, JOBS, body["metadata"]["name"], {"metadata": {"annotations": note}})
    await lab.until(lab.settled())
    assert lab.says("Settled", posted) == ("True", "Abandoned")
    await lab.pass_time(10)
    return posted, body["metadata"]["name"]


@pytest.mark.parametrize("how", ["its day is over", "deleted"])
async def test_an_abandoned_run_is_not_served_again_by_the_next_process(how: str) -> None:
    lab = MarketLab()
    posted, name = await abandoned(lab, timeout=10 * 24 * 3600)
    if how == "deleted":
        lab.kube.remove(JOB_KIND, JOBS, name)
    else:
        lab.clock.advance(24 * 3600)
    await lab.pass_time(60)
    lab.boot()
    await lab.pass_time(30)
    assert sum(lab.jobs.starts.values()) == 1
    (body,) = lab.nosana_jobs()
    said = find_condition(body["status"]["conditions"], "Settled") or {}
    assert "would be served again" in said["message"], "who waits for it to go is told why it stays"
    # Its owner ends it: now nothing on chain calls for the object.
    assert lab.end(posted) is None
    await lab.until(lambda: not lab.nosana_jobs(), 4000)
    await lab.pass_time(30)
    assert sum(lab.jobs.starts.values()) == 1


async def test_an_abandoned_run_keeps_neither_its_nosana_market_nor_its_nosana_job_for_ever() -> None:
    lab = MarketLab()
    _, name = await abandoned(lab, timeout=10 * 24 * 3600)
    lab.kube.remove(JOB_KIND, JOBS, name)
    await lab.pass_time(60)
    assert lab.nosana_jobs()
    lab.kube.remove(MARKET_KIND, ADMIN, MARKET)
    await lab.until(
        lambda: lab.kube.find(MARKET_KIND, ADMIN, MARKET) is None and not lab.kube.objects(JOB_KIND)
    )


# -- how much


async def test_a_run_is_finished_at_the_hosts_bound_whatever_its_time_out() -> None:
    lab = MarketLab(seconds=lambda: 10_000, market={"maxTimeout": 30})
    posted = await running(lab, timeout=3000)
    await lab.until(lab.settled(), 120)
    assert lab.says("Complete", posted) == ("True", "Expired")
    status = (lab.job_of(posted) or {})["status"]
    assert (status["run"]["timeout"], status["run"]["maxTimeout"]) == (3000, 30)
    assert 30 <= status["settlement"]["secondsPaid"] < 60
    lab.check_books()


async def test_an_extension_without_end_does_not_go_beyond_the_hosts_bound() -> None:
    lab = MarketLab(seconds=lambda: 10_000, market={"maxTimeout": 60})
    posted = await running(lab, timeout=20)
    assert lab.extend(posted, 5000) is None
    await lab.pass_time(25)
    assert lab.says("Complete", posted) is None
    await lab.until(lab.settled(), 120)
    assert 60 <= settlement(lab, posted)["secondsPaid"] < 90
    lab.check_books()


@pytest.mark.parametrize("timeout", [2**63 - 1, 2**40])
async def test_a_free_job_without_end_is_finished_at_the_hosts_bound(timeout: int) -> None:
    lab = MarketLab(price=0, gpus=1, seconds=lambda: 10_000, market={"maxTimeout": 30})
    posted = await running(lab, timeout=timeout)
    await lab.until(lab.settled(), 120)
    assert lab.says("Complete", posted) == ("True", "Expired")
    await lab.until(lab.standing)
