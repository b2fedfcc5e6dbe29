"""What is done about a NosanaMarket: standing, leaving, creating jobs, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from nosana_operator.api import MarketReason, MarketRef, NosanaMarketSpec, SlotStatus, Transaction
from nosana_operator.inventory import Share
from nosana_operator.market.facts import (
    GONE,
    NO_RESULT,
    QUEUED,
    UNKNOWN,
    Fate,
    Funds,
    JobFacts,
    MarketFacts,
    Outcome,
    RunFacts,
)
from nosana_operator.market.host.decide import decide, market_demand
from nosana_operator.market.host.effects import CreateJob, ReplaceJob, Resend, Stop, StopJob, Work
from nosana_operator.market.host.eligibility import reserve
from nosana_operator.market.host.queueing import (
    DEEPEST,
    NOT_OFFERING,
    Policy,
    draining,
    leaving,
    not_offering,
    paused,
    payout_invalid,
    price_too_low,
    queue_too_deep,
)
from nosana_operator.market.host.slots import count_slots, holder, open_works, taken
from nosana_operator.market.host.view import JobObject, MarketView, PendingTransaction, WalletView
from nosana_operator.market.job_spec import run_spec

ADDRESS = "3" * 32
KEY, KEY2 = "4" * 32, "5" * 32
MARKET = MarketFacts(
    address=ADDRESS, price=10, node_access_key=None, xnos_minimum=0, queue_type="Empty", queue=()
)
CAP = 200_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = Share(placed=0, reserved=0, free=0, shortage="", must_yield=False)
RICH = Funds(lamports=10**9, nos=0, nos_account=True, xnos=0)


def run(name: str = "6", node: str = KEY) -> RunFacts:
    return RunFacts(address=name * 32, job="7" * 32, node=node, payer=KEY, time=1)


def job(market: str = ADDRESS) -> JobFacts:
    return JobFacts("7" * 32, b"d" * 32, NO_RESULT, market, "1" * 32, KEY, KEY, 10, QUEUED, 0, 0, 60)


REF = MarketRef(namespace="system", name="m")
LOST = ("SecretMissing", "create it")


def wallet(address: str | None = KEY, *, runs: Any = (), funds: Any = RICH, problem: Any = None, unread: bool = False, foreign: str | None = None) -> WalletView:  # fmt: skip
    name = address[0] if address else "none"
    return WalletView(f"secret-{name}/id.json", address, problem, funds, runs, unread=unread, foreign=foreign)


def job_object(**changes: Any) -> dict[str, JobObject]:
    base = JobObject("jobs", "run-x", "uid-1", run_spec(run(), job(), REF), verified=True)
    return {"6" * 32: replace(base, **changes)}


def replaced(**changes: Any) -> ReplaceJob:
    return ReplaceJob(job_object(**changes)["6" * 32], "6" * 32)


EARLIER = run_spec(RunFacts("6" * 32, "7" * 32, KEY, KEY, 0), job(), REF)
"""Another run at the same address."""
ELSEWHERE = run_spec(run(), job("2" * 32), MarketRef(namespace="system", name="other"))
"""The same run, of another NosanaMarket."""


def work(key: str = KEY, fate: Fate = Fate.PENDING, *, seen: bool = False, kind: str = "work") -> PendingTransaction:  # fmt: skip
    transaction = Transaction(
        kind=kind,
        key=key,
        signature=f"sig-{key[0]}-{fate.value}",
        raw="AA==",
        blockhash="8" * 32,
        last_valid_block_height=1,
        signed_at="2026-01-01T00:00:00Z",
        run="9" * 32,
    )
    return PendingTransaction(transaction, Outcome(fate, "words"), seen)


def view(**changes: Any) -> MarketView:
    spec = NosanaMarketSpec.model_validate(
        {
            "address": ADDRESS,
            "network": "localnet",
            "jobNamespace": "jobs",
            "wallets": [{"secretRef": {"name": "w"}}],
            "slots": changes.pop("slots", {}),
            "paused": changes.pop("paused", False),
            "minPrice": changes.pop("min_price", 0),
            "drain": changes.pop("drain", None),
        }
    )
    base = MarketView(
        ref=REF,
        spec=spec,
        deleting=False,
        network_known=True,
        networks=("localnet",),
        address_problem=None,
        payout_problem=None,
        market=MARKET,
        wallets=(wallet(),),
        job_accounts={},
        job_objects={},
        runs_with_pods=frozenset(),
        unsettled=frozenset(),
        served=frozenset({(ADDRESS, KEY)}),
        job_refusal=None,
        pending=(),
        job_uids=frozenset(),
        leave_until=None,
        unexplained=frozenset(),
        held_back=frozenset(),
        queued_by_us=frozenset(),
        fee_cap=CAP,
        now=NOW,
        share=NOTHING,
    )
    total = changes.pop("total", 2)
    made = replace(base, **changes)
    if "share" in changes:
        return made
    held, kept = taken(made), made.spec.slots.reserve
    placed = min(held, total)
    reserved = min(kept, total - placed)
    return replace(
        made, share=replace(NOTHING, placed=placed, reserved=reserved, free=total - placed - reserved)
    )


def standing(*keys: str) -> MarketFacts:
    return replace(MARKET, queue_type="Node", queue=keys)


LEFT_UNTIL = datetime(2026, 1, 1, tzinfo=UTC)


def deep(length: int) -> MarketFacts:
    return replace(MARKET, queue_type="Job", queue=tuple("j" * 32 for _ in range(length)))


STRANGE = ("KeyInUseElsewhere", "end the other one")
RUNNING: dict[str, Any] = {"wallets": (wallet(runs=(run(),)),), "job_accounts": {"7" * 32: job()}}
CLOSED_JOB = {**RUNNING, "job_accounts": {"7" * 32: GONE}}

EFFECT_ROWS: list[tuple[str, dict[str, Any], list[object]]] = [
    ("a free slot is offered", {}, [Work(KEY)]),
    ("a key stands once", {"market": standing(KEY)}, []),
    ("two keys, two slots", {"wallets": (wallet(), wallet(KEY2))}, [Work(KEY), Work(KEY2)]),
    ("two keys, one slot", {"wallets": (wallet(), wallet(KEY2)), "total": 1}, [Work(KEY)]),
    ("no slot", {"total": 0}, []),
    ("spec.slots.max", {"slots": {"max": 0}}, []),
    ("the reserve is never offered", {"slots": {"reserve": 2}}, []),
    ("others' standing is not ours", {"market": standing(KEY2)}, [Work(KEY)]),
    ("jobs wait: work takes one", {"market": replace(MARKET, queue_type="Job", queue=("a",))}, [Work(KEY)]),
    ("a work under way holds key and slot", {"pending": (work(),)}, [Resend(work().transaction)]),
    ("a work of silence holds them too", {"pending": (work(fate=Fate.UNKNOWN),)}, []),
    ("confirmed, effect not read yet", {"pending": (work(fate=Fate.CONFIRMED),)}, []),
    ("confirmed, effect read: the key is free", {"pending": (work(fate=Fate.CONFIRMED, seen=True),)}, [Work(KEY)]),
    ("a dead work frees them", {"pending": (work(fate=Fate.EXPIRED),)}, [Work(KEY)]),
    ("a failed work frees them", {"pending": (work(fate=Fate.FAILED),)}, [Work(KEY)]),
    ("a run under way counts against its slot", {**RUNNING, "total": 1, "job_objects": job_object()}, []),
    ("a key with a run stands again", {**RUNNING, "job_objects": job_object()}, [Work(KEY)]),
    ("a job whose pods run holds its slot", {"runs_with_pods": frozenset({"6" * 32}), "total": 1}, []),
    ("a job that has ended and whose run is closed holds none", {"unsettled": frozenset({"6" * 32}), "total": 1}, [Work(KEY)]),
    ("an abandoned run holds no slot", {**RUNNING, "job_objects": job_object(settled=True), "total": 1}, [Work(KEY)]),
    ("an unverified job waits", {**RUNNING, "job_objects": job_object(verified=False), "total": 1}, []),
    ("a forgery under the run's name goes", {**RUNNING, "job_objects": job_object(verified=False, run=None), "total": 1}, [replaced(verified=False, run=None)]),
    ("a refused one goes", {**RUNNING, "job_objects": job_object(verified=False, refused=True), "total": 1}, [replaced(verified=False, refused=True)]),
    ("one that goes already is waited for", {**RUNNING, "job_objects": job_object(verified=False, refused=True, deleting=True), "total": 1}, []),
    ("a fork: the run began anew, the old one is not settled yet", {**RUNNING, "job_objects": job_object(run=EARLIER), "total": 1}, []),
    ("a fork: the old one is settled", {**RUNNING, "job_objects": job_object(run=EARLIER, settled=True), "total": 1}, [replaced(run=EARLIER, settled=True)]),
    ("the API server takes no jobs: no more runs", {"job_refusal": "create the namespace"}, []),
    ("the API server takes no jobs: who stands leaves", {"job_refusal": "create the namespace", "market": standing(KEY)}, [Stop(KEY)]),
    ("the API server takes no jobs: runs still get theirs", {**RUNNING, "job_refusal": "create the namespace"}, [CreateJob(run(), job())]),
    ("Secret gone: leave", {"wallets": (wallet(problem=LOST),), "market": standing(KEY)}, [Stop(KEY)]),
    ("Secret gone: do not stand", {"wallets": (wallet(problem=LOST),)}, []),
    ("Secret gone: its runs are served", {"wallets": (wallet(runs=(run(),), problem=LOST),), "job_accounts": {"7" * 32: job()}, "total": 1}, [CreateJob(run(), job())]),
    ("Secret unread: what its key holds is not known", {"wallets": (wallet(None, unread=True), wallet(KEY2))}, []),
    ("runs of one key unknown: no key offers more", {"wallets": (wallet(runs=UNKNOWN), wallet(KEY2))}, []),
    ("jobs where the Secrets are: nothing is made", {**RUNNING, "ref": MarketRef(namespace="jobs", name="m")}, []),
    ("a run without a job gets one", {**RUNNING, "total": 1}, [CreateJob(run(), job())]),
    ("a run of another market is not ours", {**RUNNING, "job_accounts": {"7" * 32: job("2" * 32)}, "total": 1}, [Work(KEY)]),
    ("a run whose job is unknown waits and counts", {**RUNNING, "job_accounts": {}, "total": 1}, []),
    ("a run whose job a node that lags does not have counts", {**CLOSED_JOB, "recent_runs": frozenset({"6" * 32}), "total": 1}, []),
    ("a run whose job is closed is nobody's", {**CLOSED_JOB, "total": 1}, [Work(KEY)]),
    ("one that we serve holds its slot", {**CLOSED_JOB, "job_objects": job_object(), "total": 1}, []),
    ("one that another market serves does not", {**CLOSED_JOB, "job_objects": job_object(run=ELSEWHERE), "total": 1}, [Work(KEY)]),
    ("one that was given up does not", {**CLOSED_JOB, "job_objects": job_object(settled=True), "total": 1}, [Work(KEY)]),
    ("another run was served at its address", {**CLOSED_JOB, "job_objects": job_object(run=EARLIER), "total": 1}, [Work(KEY)]),
    ("an unverified job vouches for none", {**CLOSED_JOB, "job_objects": job_object(verified=False), "total": 1}, [Work(KEY)]),
    ("capacity went: leave", {"market": standing(KEY), "total": 0}, [Stop(KEY)]),
    ("capacity went: one leaves", {"wallets": (wallet(), wallet(KEY2)), "market": standing(KEY, KEY2), "total": 1}, [Stop(KEY)]),
    ("paused: leave", {"market": standing(KEY), "paused": True}, [Stop(KEY)]),
    ("paused: do not stand", {"paused": True}, []),
    ("paused: runs still get their job", {**RUNNING, "paused": True}, [CreateJob(run(), job())]),
    ("asked to leave: leave", {"market": standing(KEY), "leave_until": LEFT_UNTIL}, [Stop(KEY)]),
    ("asked to leave: do not stand", {"leave_until": LEFT_UNTIL}, []),
    ("asked to leave: runs still get their job", {**RUNNING, "leave_until": LEFT_UNTIL}, [CreateJob(run(), job())]),
    ("deleting: leave", {"market": standing(KEY), "deleting": True}, [Stop(KEY)]),
    ("deleting: stop under way", {"market": standing(KEY), "deleting": True, "pending": (work(kind="stop"),)}, [Resend(work(kind="stop").transaction)]),
    ("no money", {"wallets": (wallet(funds=replace(RICH, lamports=reserve(0, CAP, nos_account=True) - 1)),)}, []),
    ("not enough money for another run beside the open one", {**RUNNING, "wallets": (wallet(runs=(run(),), funds=replace(RICH, lamports=reserve(1, CAP, nos_account=True) - 1)),), "job_objects": job_object()}, []),
    ("the NOS account has to be paid for as well", {"wallets": (wallet(funds=replace(RICH, nos_account=False, lamports=reserve(0, CAP, nos_account=True))),)}, []),
    ("the price is what we want", {"min_price": 10}, [Work(KEY)]),
    ("the price is too low: do not stand", {"min_price": 11}, []),
    ("the price is too low: leave", {"market": standing(KEY), "min_price": 11}, [Stop(KEY)]),
    ("the queue is deep", {"market": deep(250)}, [Work(KEY)]),
    ("our own keys make it no deeper", {"wallets": (wallet(), wallet(KEY2)), "market": standing(*("8" * 32 for _ in range(250)))}, [Work(KEY)]),
    ("those on their way count", {"wallets": (wallet(), wallet(KEY2)), "market": standing(*("8" * 32 for _ in range(250))), "pending": (work(fate=Fate.UNKNOWN),)}, []),
    ("jobs that wait are taken off it", {"wallets": (wallet(), wallet(KEY2)), "market": deep(250)}, [Work(KEY), Work(KEY2)]),
    ("the queue is too deep: do not stand", {"market": deep(251)}, []),
    ("the queue is too deep: who stands, stays", {"market": standing(KEY, *("8" * 32 for _ in range(250)))}, []),
    ("another market has a hold on the nodes", {"share": replace(NOTHING, free=0)}, []),
    ("a job that waits elsewhere goes before standing", {"wallets": (wallet(), wallet(KEY2)), "market": standing(KEY, KEY2), "share": replace(NOTHING, placed=2, must_yield=True)}, [Stop(KEY)]),
    ("one gives way at a time", {"wallets": (wallet(), wallet(KEY2)), "market": standing(KEY, KEY2), "pending": (work(kind="stop"),), "share": replace(NOTHING, placed=2, must_yield=True)}, [Resend(work(kind="stop").transaction)]),
    ("a stop under way is one too many less", {"wallets": (wallet(), wallet(KEY2)), "market": standing(KEY, KEY2), "pending": (work(kind="stop"),), "total": 1}, [Resend(work(kind="stop").transaction)]),
    ("where a key has gone is not known: it counts", {"unexplained": frozenset({KEY2}), "total": 1}, []),
    ("a key that was put out waits", {"held_back": frozenset({KEY})}, []),
    ("a key that is used elsewhere takes nothing", {"wallets": (wallet(problem=STRANGE, foreign="sig"),)}, []),
    ("what it stands for by our work, it leaves", {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY), "queued_by_us": frozenset({KEY})}, [Stop(KEY)]),
    ("what somebody else put there stays", {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY)}, []),
    ("paused: what somebody else put there stays", {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY), "paused": True}, []),
    ("paused: what it stands for by our work, it leaves", {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY), "paused": True, "queued_by_us": frozenset({KEY})}, [Stop(KEY)]),
    ("deleting: what somebody else put there stays", {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY), "deleting": True}, []),
    ("its runs are served", {"wallets": (wallet(runs=(run(),), problem=STRANGE, foreign="sig"),), "job_accounts": {"7" * 32: job()}}, [CreateJob(run(), job())]),
    ("drain: leave, runs go on", {**RUNNING, "job_objects": job_object(), "market": standing(KEY), "drain": {}}, [Stop(KEY)]),
    ("drain: do not stand", {"drain": {"policy": "Wait"}}, []),
    ("drain: before the deadline", {**RUNNING, "job_objects": job_object(), "drain": {"policy": "Finish", "deadline": "2026-01-01T00:00:01Z"}}, []),
    ("drain: at the deadline jobs are stopped", {**RUNNING, "job_objects": job_object(), "drain": {"policy": "Finish", "deadline": "2026-01-01T00:00:00Z"}}, [StopJob(job_object()["6" * 32])]),
    ("drain: at once", {**RUNNING, "job_objects": job_object(), "drain": {"policy": "Finish"}}, [StopJob(job_object()["6" * 32])]),
    ("drain: asked already, or ended", {**RUNNING, "job_objects": job_object(stopping=True), "drain": {"policy": "Finish"}}, []),
    ("drain: nobody vouches for that one", {**RUNNING, "job_objects": job_object(verified=False), "drain": {"policy": "Finish"}}, []),
    ("drain: the key's job in another market goes on", {**RUNNING, "job_accounts": {"7" * 32: job("2" * 32)}, "job_objects": job_object(run=ELSEWHERE), "drain": {"policy": "Finish"}}, []),
    ("drain of a market that is deleted", {**RUNNING, "job_objects": job_object(), "deleting": True, "drain": {"policy": "Finish"}}, [StopJob(job_object()["6" * 32])]),
    ("no stake", {"wallets": (wallet(funds=replace(RICH, xnos=None)),)}, []),
    ("chain silent", {"market": UNKNOWN}, []),
    ("runs unknown", {"wallets": (wallet(runs=UNKNOWN),)}, []),
    ("market not there", {"market": GONE}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "effects"), [r[1:] for r in EFFECT_ROWS], ids=[r[0] for r in EFFECT_ROWS]
)
def test_effects(changes: dict[str, Any], effects: list[object]) -> None:
    assert list(decide(view(**changes)).effects) == effects


CLOSED = replace(MARKET, node_access_key="2" * 32)
READY_ROWS = [
    ("fine", {}, True, MarketReason.READY),
    ("stands", {"market": standing(KEY)}, True, MarketReason.STANDING),
    ("network unknown", {"network_known": False}, False, MarketReason.NETWORK_UNKNOWN),
    ("bad address", {"address_problem": "too short"}, False, MarketReason.MARKET_ADDRESS_INVALID),
    ("no market", {"market": GONE}, False, MarketReason.MARKET_NOT_FOUND),
    ("silence", {"market": UNKNOWN}, None, MarketReason.CHAIN_UNAVAILABLE),
    ("secrets beside jobs", {"ref": MarketRef(namespace="jobs", name="m")}, False, MarketReason.SPEC_INVALID),
    ("no Secret", {"wallets": (wallet(None, problem=LOST),)}, False, MarketReason.SECRET_MISSING),
    ("no SOL", {"wallets": (wallet(funds=replace(RICH, lamports=0)),)}, False, MarketReason.SOL_TOO_LOW),
    ("used elsewhere", {"wallets": (wallet(problem=STRANGE, foreign="sig"),)}, False, MarketReason.KEY_IN_USE_ELSEWHERE),
    ("price too low", {"min_price": 11}, False, MarketReason.PRICE_TOO_LOW),
    ("no wallet", {"payout_problem": "a token account"}, False, MarketReason.PAYOUT_ADDRESS_INVALID),
    ("queue too deep", {"market": deep(251)}, False, MarketReason.QUEUE_TOO_DEEP),
    ("draining", {"drain": {"policy": "Wait"}}, True, MarketReason.DRAINING),
    ("no stake account", {"wallets": (wallet(funds=replace(RICH, xnos=None)),)}, False, MarketReason.STAKE_MISSING),
    ("stake too low", {"market": replace(MARKET, xnos_minimum=5)}, False, MarketReason.STAKE_TOO_LOW),
    ("access keys unread", {"market": CLOSED}, None, MarketReason.CHAIN_UNAVAILABLE),
    (
        "no access key",
        {"market": CLOSED, "wallets": (wallet(funds=replace(RICH, access_keys=frozenset({"3" * 32}))),)},
        False,
        MarketReason.ACCESS_KEY_MISSING,
    ),
    (
        "access key",
        {"market": CLOSED, "wallets": (wallet(funds=replace(RICH, access_keys=frozenset({"2" * 32}))),)},
        True,
        MarketReason.READY,
    ),
    ("one of two keys is enough", {"wallets": (wallet(None, problem=LOST), wallet(KEY2))}, True, MarketReason.READY),
    ("Secret unread", {"wallets": (wallet(None, unread=True),)}, None, MarketReason.SECRET_MISSING),
    ("NosanaJobs are refused", {"job_refusal": "create the namespace"}, False, MarketReason.JOB_REFUSED),
    ("no node", {"total": 0}, False, MarketReason.NO_FREE_SLOT),
    ("paused", {"paused": True}, True, MarketReason.PAUSED),
    ("asked to leave", {"leave_until": LEFT_UNTIL}, True, MarketReason.LEAVING),
    ("deleting", {"deleting": True}, False, MarketReason.DELETING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status", "reason"), [r[1:] for r in READY_ROWS], ids=[r[0] for r in READY_ROWS]
)
def test_ready_says_what_to_do(changes: dict[str, Any], status: bool | None, reason: str) -> None:
    ready = decide(view(**changes)).ready
    assert (ready.status, ready.reason) == (status, reason)
    assert ready.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network_known": False, "market": UNKNOWN}, MarketReason.NETWORK_UNKNOWN),
        ({"address_problem": "too short", "market": UNKNOWN}, MarketReason.MARKET_ADDRESS_INVALID),
        ({"market": GONE}, MarketReason.MARKET_NOT_FOUND),
        ({"market": UNKNOWN}, MarketReason.CHAIN_UNAVAILABLE),
    ],
)
def test_the_wallets_blame_what_is_wrong(changes: dict[str, Any], reason: str) -> None:
    """Not the chain, when it was never asked."""
    said = decide(view(**changes)).wallets_ready
    assert (said.status, said.reason) == (None, reason)


def test_too_little_sol_names_what_is_needed() -> None:
    poor = wallet(runs=(run(),), funds=replace(RICH, lamports=1_000_000, nos_account=False))
    said = decide(view(wallets=(poor,), job_accounts={"7" * 32: job()}, job_objects=job_object())).wallets[0]
    assert (said.state, said.reason) == ("Blocked", MarketReason.SOL_TOO_LOW)
    # Twice a fee of 0.0002, a run of 0.00172608 and a NOS account of 0.00203928; and the key's own NOS account.
    assert "needs 0.009970" in (said.message or "")
    assert "at least 0.008970 SOL" in (said.message or "")


def test_a_key_that_stands_without_sol_is_told_and_goes_on_standing() -> None:
    # A fee of 0.0002 and a NOS account of 0.00203928; the run's account is the poster's to pay.
    for lamports, reason, ready in ((2_239_280, "Standing", True), (2_239_279, "SolTooLow", False)):
        made = decide(view(wallets=(wallet(funds=replace(RICH, lamports=lamports)),), market=standing(KEY)))
        assert (made.wallets[0].state, made.wallets[0].reason) == ("Standing", reason)
        assert made.wallets_ready.status is ready
        assert made.wallets_ready.reason == ("Ready" if ready else "SolTooLow")
        assert (made.ready.status, made.ready.reason) == (True, MarketReason.STANDING)
        assert made.effects == ()


def test_what_offering_takes_is_enough_to_stand() -> None:
    """Else a key that has got what it was said to lack would lack it again, for the fee of its `work`."""
    for runs in range(3):
        for nos_account in (True, False):
            left = reserve(runs, CAP, nos_account=nos_account) - CAP
            assert left >= reserve(runs, CAP, nos_account=nos_account, standing=True)


def test_no_free_slot_names_what_is_short() -> None:
    full = decide(view(share=replace(NOTHING, shortage="short of memory (has 1Gi of 4Gi) on n"))).ready
    assert (full.status, full.reason) == (False, MarketReason.NO_FREE_SLOT)
    assert "memory" in full.message
    taken_all = {
        **RUNNING,
        "job_objects": job_object(),
        "share": replace(NOTHING, placed=1, shortage="short of cpu on n"),
    }
    full = decide(view(**taken_all)).ready
    assert (full.status, full.reason) == (True, MarketReason.NO_FREE_SLOT)
    assert "cpu" in full.message


@pytest.mark.parametrize(
    ("changes", "taken_", "demand_"),
    [
        ({"market": deep(3), "wallets": (wallet(), wallet(KEY2))}, 0, 2),
        ({"market": deep(1), "wallets": (wallet(), wallet(KEY2))}, 0, 1),
        ({"market": deep(3), "wallets": (wallet(), wallet(KEY2)), "pending": (work(),)}, 1, 1),
        ({"market": deep(3), "wallets": (wallet(), wallet(KEY2)), "slots": {"max": 2, "reserve": 1}}, 0, 1),
        ({"market": deep(3), "paused": True}, 0, 0),
        ({"market": deep(3), "deleting": True}, 0, 0),
        ({"market": deep(3), "job_refusal": "no"}, 0, 0),
        ({"market": deep(3), "wallets": (wallet(problem=LOST),)}, 0, 0),
        ({"market": standing(KEY)}, 1, 0),
        ({"market": standing(KEY, KEY2)}, 1, 0),
        ({**RUNNING, "job_objects": job_object()}, 1, 0),
        ({"pending": (work(),), "unexplained": frozenset({KEY2})}, 2, 0),
        ({"pending": (work(),), "unexplained": frozenset({KEY})}, 1, 0),
        ({"runs_with_pods": frozenset({"6" * 32})}, 1, 0),
    ],
)
def test_what_a_market_holds_and_wants_of_the_nodes(
    changes: dict[str, Any], taken_: int, demand_: int
) -> None:
    made = view(**changes)
    found = holder(made, previous=SlotStatus(standing=5), demand=market_demand(made))
    assert (found.taken, found.demand) == (taken_, demand_)


OPEN_WORKS: list[tuple[str, dict[str, Any], int]] = [
    ("under way", {"pending": (work(),)}, 1),
    ("silence about it", {"pending": (work(fate=Fate.UNKNOWN),)}, 1),
    ("confirmed, its effect not read yet", {"pending": (work(fate=Fate.CONFIRMED),)}, 1),
    ("confirmed, its effect read", {"pending": (work(fate=Fate.CONFIRMED, seen=True),)}, 0),
    ("it can never land", {"pending": (work(fate=Fate.EXPIRED),)}, 0),
    ("it failed", {"pending": (work(fate=Fate.FAILED),)}, 0),
    ("a stop takes no slot", {"pending": (work(kind="stop"),)}, 0),
    ("its run counts already", {"pending": (work(),), "wallets": (wallet(runs=(run("9"),)),)}, 0),
    ("its standing counts already", {"pending": (work(),), "market": standing(KEY)}, 0),
    ("its key left for a reason not known", {"pending": (work(),), "unexplained": frozenset({KEY})}, 0),
    ("two of them", {"pending": (work(), work(KEY2)), "wallets": (wallet(), wallet(KEY2))}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "count"), OPEN_WORKS, ids=[row[0] for row in OPEN_WORKS])
def test_a_work_takes_a_slot_until_its_effect_is_counted_or_it_is_dead(
    name: str, changes: dict[str, Any], count: int
) -> None:
    made = view(**changes, share=replace(NOTHING, free=5))
    assert open_works(made) == count
    assert count_slots(made).free == 5 - taken(made)


@pytest.mark.parametrize(
    "silence",
    [
        {"market": UNKNOWN},
        {"wallets": (wallet(runs=UNKNOWN),)},
        {"wallets": (wallet(None, unread=True),)},
    ],
)
def test_a_market_of_which_nothing_is_known_holds_what_it_held(silence: dict[str, Any]) -> None:
    made = view(**silence, pending=(work(),))
    assert holder(made, previous=SlotStatus(standing=1, running=2), demand=0).taken == 4


RELEASE_ROWS = [
    ("nothing left", {}, True),
    ("standing", {"market": standing(KEY)}, False),
    ("a stop under way", {"pending": (work(kind="stop"),)}, False),
    ("a run", {**RUNNING}, False),
    ("an unsettled job", {"unsettled": frozenset({"6" * 32})}, False),
    ("chain silent", {"market": UNKNOWN}, False),
    ("runs silent", {"wallets": (wallet(runs=UNKNOWN),)}, False),
    ("a Secret that could not be read", {"wallets": (wallet(None, unread=True),)}, False),
    ("a Secret that is gone for good", {"wallets": (wallet(None, problem=LOST),)}, True),
    ("its key still stands", {"wallets": (wallet(problem=LOST),), "market": standing(KEY)}, False),
    ("an abandoned run", {**RUNNING, "job_objects": job_object(settled=True)}, True),
    ("one whose job is closed", {**CLOSED_JOB, "job_objects": job_object(settled=True)}, True),
    ("a run that cannot be served", CLOSED_JOB, True),
    (
        "somebody else keeps its key there",
        {"wallets": (wallet(problem=STRANGE, foreign="sig"),), "market": standing(KEY)},
        True,
    ),
    (
        "used elsewhere, but there by our work",
        {
            "wallets": (wallet(problem=STRANGE, foreign="sig"),),
            "market": standing(KEY),
            "queued_by_us": frozenset({KEY}),
        },
        False,
    ),
    ("never was a market", {"market": GONE}, True),
]


@pytest.mark.parametrize(
    ("changes", "released"), [r[1:] for r in RELEASE_ROWS], ids=[r[0] for r in RELEASE_ROWS]
)
def test_a_deleted_market_goes_only_when_nothing_needs_it(changes: dict[str, Any], released: bool) -> None:
    assert decide(view(**changes, deleting=True)).release is released


def test_runs_that_nobody_serves_are_told() -> None:
    elsewhere = {**RUNNING, "job_accounts": {"7" * 32: job("2" * 32)}}
    ((address, why),) = decide(view(**elsewhere)).unserved
    assert address == "6" * 32
    assert "2" * 32 in why
    assert KEY in why
    served = frozenset({(ADDRESS, KEY), ("2" * 32, "9" * 32)})
    assert decide(view(**elsewhere, served=served)).unserved == ((address, why),), "with another key"
    assert decide(view(**elsewhere, served=served | {("2" * 32, KEY)})).unserved == ()


def test_a_run_whose_job_is_closed_is_told() -> None:
    ((address, why),) = decide(view(**CLOSED_JOB)).unserved
    assert address == "6" * 32
    assert "7" * 32 in why


@pytest.mark.parametrize(
    "changes",
    [
        {"recent_runs": frozenset({"6" * 32})},
        {"job_objects": job_object()},
        {"job_objects": job_object(settled=True)},
        {"job_objects": job_object(run=ELSEWHERE)},
    ],
    ids=["it may yet come", "served", "given up", "served by another one"],
)
def test_what_a_nosanajob_tells_of_is_not_told_again(changes: dict[str, Any]) -> None:
    assert decide(view(**CLOSED_JOB, **changes)).unserved == ()


def test_more_matches_than_slots_are_never_possible() -> None:
    """However keys, runs and transactions stand: works that may match stay within the slots."""
    for total in range(4):
        for keys in range(4):
            wallets = tuple(wallet(str(n + 2) * 32) for n in range(keys))
            for pending in range(keys + 1):
                works = tuple(work(str(n + 2) * 32) for n in range(pending))
                decision = decide(view(wallets=wallets, pending=works, total=total))
                new = sum(isinstance(e, Work) for e in decision.effects)
                assert new + pending <= max(total, pending)


POLICY_ROWS: list[tuple[Any, dict[str, Any], bool, MarketReason]] = [
    (draining, {"drain": {}}, True, MarketReason.DRAINING),
    (leaving, {"leave_until": LEFT_UNTIL}, True, MarketReason.LEAVING),
    (paused, {"paused": True}, True, MarketReason.PAUSED),
    (payout_invalid, {"payout_problem": "not a wallet."}, False, MarketReason.PAYOUT_ADDRESS_INVALID),
    (price_too_low, {"min_price": 11}, False, MarketReason.PRICE_TOO_LOW),
    (queue_too_deep, {"market": replace(MARKET, queue=("9" * 32,) * (DEEPEST + 1))}, False, MarketReason.QUEUE_TOO_DEEP),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "changes", "status", "reason"), POLICY_ROWS, ids=[r[0].__name__ for r in POLICY_ROWS]
)
def test_each_policy_applies_alone(
    policy: Policy, changes: dict[str, Any], status: bool, reason: str
) -> None:
    assert policy(view(), MARKET) is None
    made = view(**changes)
    market = made.market if isinstance(made.market, MarketFacts) else MARKET
    value = policy(made, market)
    assert value is not None
    assert (value.status, value.reason) == (status, reason)
    assert not_offering(made, market) == value


def test_the_first_policy_that_applies_is_reported() -> None:
    assert [row[0] for row in POLICY_ROWS] == list(NOT_OFFERING)
    changes: dict[str, Any] = {}
    for policy, more, _, reason in reversed(POLICY_ROWS):
        changes |= more
        made = view(**changes)
        market = made.market if isinstance(made.market, MarketFacts) else MARKET
        value = not_offering(made, market)
        assert value is not None, policy
        assert value.reason == reason, policy
