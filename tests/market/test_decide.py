"""What is done about a NosanaMarket: standing, leaving, creating jobs, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from nosana_operator.api import MarketReason, MarketRef, NosanaMarketSpec, Transaction
from nosana_operator.market.decide import decide
from nosana_operator.market.effects import CreateJob, ReplaceJob, Resend, Stop, Work
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
from nosana_operator.market.keys import SOL_RESERVE
from nosana_operator.market.verify import run_spec
from nosana_operator.market.view import KnownJob, MarketView, PendingTransaction, WalletView

ADDRESS = "3" * 32
KEY, KEY2 = "4" * 32, "5" * 32
MARKET = MarketFacts(
    address=ADDRESS, price=10, node_access_key=None, xnos_minimum=0, queue_type="Empty", queue=()
)
RICH = Funds(lamports=10**9, nos=0, nos_account=True, xnos=0)


def run(name: str = "6", node: str = KEY) -> RunFacts:
    return RunFacts(address=name * 32, job="7" * 32, node=node, payer=KEY, time=1)


def job(market: str = ADDRESS) -> JobFacts:
    return JobFacts("7" * 32, b"d" * 32, NO_RESULT, market, "1" * 32, KEY, KEY, 10, QUEUED, 0, 0, 60)


REF = MarketRef(namespace="system", name="m")
LOST = ("SecretMissing", "create it")


def wallet(address: str | None = KEY, *, runs: Any = (), funds: Any = RICH, problem: Any = None, unread: bool = False) -> WalletView:  # fmt: skip
    name = address[0] if address else "none"
    return WalletView(f"secret-{name}/id.json", address, problem, funds, runs, unread)


def known(**changes: Any) -> dict[str, KnownJob]:
    base = KnownJob("jobs", "run-x", "uid-1", run_spec(run(), job(), REF), verified=True)
    return {"6" * 32: replace(base, **changes)}


def replaced(**changes: Any) -> ReplaceJob:
    return ReplaceJob(known(**changes)["6" * 32], "6" * 32)


EARLIER = run_spec(RunFacts("6" * 32, "7" * 32, KEY, KEY, 0), job(), REF)
"""Another run at the same address."""


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
        }
    )
    base = MarketView(
        ref=REF,
        spec=spec,
        deleting=False,
        network_known=True,
        networks=("localnet",),
        address_problem=None,
        market=MARKET,
        wallets=(wallet(),),
        jobs={},
        known={},
        occupied=frozenset(),
        unsettled=frozenset(),
        served=frozenset({ADDRESS}),
        refusal=None,
        pending=(),
        total=2,
    )
    return replace(base, **changes)


def standing(*keys: str) -> MarketFacts:
    return replace(MARKET, queue_type="Node", queue=keys)


LEFT_UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = {"wallets": (wallet(runs=(run(),)),), "jobs": {"7" * 32: job()}}

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
    ("a run under way counts against its slot", {**RUNNING, "total": 1, "known": known()}, []),
    ("a key with a run stands again", {**RUNNING, "known": known()}, [Work(KEY)]),
    ("a job whose pods run holds its slot", {"occupied": frozenset({"6" * 32}), "total": 1}, []),
    ("a job that has ended and whose run is closed holds none", {"unsettled": frozenset({"6" * 32}), "total": 1}, [Work(KEY)]),
    ("an abandoned run holds no slot", {**RUNNING, "known": known(settled=True), "total": 1}, [Work(KEY)]),
    ("an unverified job waits", {**RUNNING, "known": known(verified=False), "total": 1}, []),
    ("a forgery under the run's name goes", {**RUNNING, "known": known(verified=False, run=None), "total": 1}, [replaced(verified=False, run=None)]),
    ("a refused one goes", {**RUNNING, "known": known(verified=False, refused=True), "total": 1}, [replaced(verified=False, refused=True)]),
    ("one that goes already is waited for", {**RUNNING, "known": known(verified=False, refused=True, deleting=True), "total": 1}, []),
    ("a fork: the run began anew, the old one is not settled yet", {**RUNNING, "known": known(run=EARLIER), "total": 1}, []),
    ("a fork: the old one is settled", {**RUNNING, "known": known(run=EARLIER, settled=True), "total": 1}, [replaced(run=EARLIER, settled=True)]),
    ("the API server takes no jobs: no more runs", {"refusal": "create the namespace"}, []),
    ("Secret gone: leave", {"wallets": (wallet(problem=LOST),), "market": standing(KEY)}, [Stop(KEY)]),
    ("Secret gone: do not stand", {"wallets": (wallet(problem=LOST),)}, []),
    ("Secret gone: its runs are served", {"wallets": (wallet(runs=(run(),), problem=LOST),), "jobs": {"7" * 32: job()}, "total": 1}, [CreateJob(run(), job())]),
    ("Secret unread: what its key holds is not known", {"wallets": (wallet(None, unread=True), wallet(KEY2))}, []),
    ("runs of one key unknown: no key offers more", {"wallets": (wallet(runs=UNKNOWN), wallet(KEY2))}, []),
    ("jobs where the Secrets are: nothing is made", {**RUNNING, "ref": MarketRef(namespace="jobs", name="m")}, []),
    ("a run without a job gets one", {**RUNNING, "total": 1}, [CreateJob(run(), job())]),
    ("a run of another market is not ours", {**RUNNING, "jobs": {"7" * 32: job("2" * 32)}, "total": 1}, [Work(KEY)]),
    ("a run whose job is unknown waits and counts", {**RUNNING, "jobs": {}, "total": 1}, []),
    ("a run whose job a node that lags does not have counts", {**RUNNING, "jobs": {"7" * 32: GONE}, "total": 1}, []),
    ("capacity went: leave", {"market": standing(KEY), "total": 0}, [Stop(KEY)]),
    ("capacity went: one leaves", {"wallets": (wallet(), wallet(KEY2)), "market": standing(KEY, KEY2), "total": 1}, [Stop(KEY)]),
    ("paused: leave", {"market": standing(KEY), "paused": True}, [Stop(KEY)]),
    ("paused: do not stand", {"paused": True}, []),
    ("paused: runs still get their job", {**RUNNING, "paused": True}, [CreateJob(run(), job())]),
    ("asked to leave: leave", {"market": standing(KEY), "leaving": LEFT_UNTIL}, [Stop(KEY)]),
    ("asked to leave: do not stand", {"leaving": LEFT_UNTIL}, []),
    ("asked to leave: runs still get their job", {**RUNNING, "leaving": LEFT_UNTIL}, [CreateJob(run(), job())]),
    ("deleting: leave", {"market": standing(KEY), "deleting": True}, [Stop(KEY)]),
    ("deleting: stop under way", {"market": standing(KEY), "deleting": True, "pending": (work(kind="stop"),)}, [Resend(work(kind="stop").transaction)]),
    ("no money", {"wallets": (wallet(funds=replace(RICH, lamports=SOL_RESERVE - 1)),)}, []),
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
    ("NosanaJobs are refused", {"refusal": "create the namespace"}, False, MarketReason.JOB_REFUSED),
    ("no node", {"total": 0}, False, MarketReason.NO_FREE_SLOT),
    ("paused", {"paused": True}, True, MarketReason.PAUSED),
    ("asked to leave", {"leaving": LEFT_UNTIL}, True, MarketReason.LEAVING),
    ("deleting", {"deleting": True}, False, MarketReason.DELETING),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status", "reason"), [r[1:] for r in READY_ROWS], ids=[r[0] for r in READY_ROWS]
)
def test_ready_says_what_to_do(changes: dict[str, Any], status: bool | None, reason: str) -> None:
    ready = decide(view(**changes)).ready
    assert (ready.status, ready.reason) == (status, reason)
    assert ready.message


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
    ("an abandoned run", {**RUNNING, "known": known(settled=True)}, True),
    ("never was a market", {"market": GONE}, True),
]


@pytest.mark.parametrize(
    ("changes", "released"), [r[1:] for r in RELEASE_ROWS], ids=[r[0] for r in RELEASE_ROWS]
)
def test_a_deleted_market_goes_only_when_nothing_needs_it(changes: dict[str, Any], released: bool) -> None:
    assert decide(view(**changes, deleting=True)).released is released


def test_runs_that_nobody_serves_are_told() -> None:
    elsewhere = {**RUNNING, "jobs": {"7" * 32: job("2" * 32)}}
    assert decide(view(**elsewhere)).unserved == (("6" * 32, "2" * 32),)
    assert decide(view(**elsewhere, served=frozenset({ADDRESS, "2" * 32}))).unserved == ()


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
