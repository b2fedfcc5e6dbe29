"""What is done next about a run: each row is something that the object, the chain or a stranger can show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nosana_operator.api import (
    Delivery,
    MarketRef,
    NosanaMarketSpec,
    Run,
    RunStatus,
    SecretRef,
    Settlement,
    Transaction,
    Wallet,
    find_condition,
    micro_timestamp,
    timestamp,
)
from nosana_operator.market.facts import (
    GONE,
    NO_RESULT,
    QUEUED,
    UNKNOWN,
    Fate,
    JobFacts,
    Outcome,
    PaymentFacts,
    RunFacts,
)
from nosana_operator.market.runs.decide import decide
from nosana_operator.market.runs.effects import (
    Delete,
    Deliver,
    DropResult,
    Pin,
    PrepareResult,
    Publish,
    ReadConfirmed,
    ReadOutcome,
    ReadPayment,
    ReadResult,
    ReadRunAtEnd,
    ReadWatchedRun,
    Release,
    RequestDefinition,
    RunDecision,
)
from nosana_operator.market.runs.on_chain import Accounts, Obstacle, Sign
from nosana_operator.market.runs.status import JobRecord
from nosana_operator.market.runs.view import (
    Attempts,
    Payment,
    PinState,
    PosterReply,
    Publication,
    PublishedResult,
    RunView,
    StoredResult,
    UnreadableResult,
)

KEY = "h" * 32
RESULT = b"r" * 32
RUN = RunFacts(address="run", job="job", node=KEY, payer="payer", time=100)
JOB = JobFacts(
    address="job", ipfs_job=b"d" * 32, ipfs_result=NO_RESULT, market="market", node="1" * 32, payer="payer",
    project="project", price=10, state=QUEUED, time_start=0, time_end=0, timeout=3600,
)  # fmt: skip
OPEN = Accounts(RUN, JOB)
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
CID = PublishedResult("Qm", RESULT)
NODE_RUN = Run(
    market_ref=MarketRef(namespace="n", name="m"),
    **dict.fromkeys(("market", "job", "run", "node", "project", "payer", "run_payer"), KEY),
    price=10,
    started_at=timestamp(NOW),
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def conditions(*kinds: str) -> list[dict[str, Any]]:
    """`Type`, `Type=Reason`, or with `!` in front a condition that is False."""
    found = []
    for kind in kinds:
        name, _, reason = kind.lstrip("!").partition("=")
        found.append(
            {"type": name, "status": "False" if kind[0] == "!" else "True", "reason": reason or "Any"}
        )
    return found


def intent(kind: str = "finish", *, failures: int | None = None, signed: float = 1000) -> Settlement:
    transaction = Transaction(
        kind=kind, key=KEY, signature="sig", raw="raw", blockhash="hash", last_valid_block_height=1,
        signed_at=timestamp(ago(signed)), epoch=1,
    )  # fmt: skip
    return Settlement(kind=kind, result_cid="Qm", transaction=transaction, failures=failures)


def market(**spec: Any) -> NosanaMarketSpec:
    wallets = (Wallet(secret_ref=SecretRef(name="wallet")),)
    return NosanaMarketSpec(address=KEY, network="localnet", job_namespace="jobs", wallets=wallets, **spec)


def view(
    *, ended: float = 5, record: JobRecord | None = None, kinds: tuple[str, ...] = (), **facts: Any
) -> RunView:
    facts.setdefault("attempts", Attempts())
    facts.setdefault("market", market())
    return RunView(
        now=NOW,
        run=NODE_RUN,
        run_time=100,
        ended_at=ago(ended),
        generation=1,
        conditions=conditions(*(kinds or ("Complete",))),
        record=record or JobRecord(),
        **facts,
    )


def says(decision: RunDecision) -> str | None:
    """The reason for which the run is not settled."""
    found = find_condition(decision.record.conditions, "Settled")
    return None if found is None else found["reason"]


READY: dict[str, Any] = {"result": StoredResult(), "published": CID}
PAYABLE = PaymentFacts(market=True, vault=10**9, payer_account=True, account_rent=1000)
NO_PAYER = replace(PAYABLE, payer_account=False, account_rent=10**6)
DEAD = Outcome(Fate.FAILED, "no such account")


def signing(payment: object = None, **facts: Any) -> RunView:
    facts.setdefault("outcome", None)
    return view(**READY, pin=PinState(True), confirmed=OPEN, payment=payment, **facts)


@pytest.mark.parametrize(
    ("now", "effect"),
    [
        (view(), ReadResult()),
        (view(result=StoredResult()), PrepareResult()),
        (view(**READY), Pin(timedelta(seconds=25))),
        (view(**READY, ended=100), Pin(timedelta(seconds=1))),
        (view(**READY, pin=PinState(True)), ReadConfirmed()),
        (signing(), ReadPayment()),
        (signing(Payment(PAYABLE, 60)), Sign("finish")),
        (view(record=JobRecord(settlement=intent(), result_cid="Qm"), published=CID), ReadOutcome()),
        (view(kinds=("Failed", "!Accepted"), market=market(on_bad_definition="Quit")), ReadConfirmed()),
        (view(kinds=("Failed=NoCapacity",), market=market(on_no_capacity="Quit")), ReadConfirmed()),
        (view(kinds=("Failed=NoCapacity",)), ReadResult()),
    ],
)  # fmt: skip
def test_what_is_done_first(now: RunView, effect: object) -> None:
    assert decide(now).effect == effect


@pytest.mark.parametrize(
    ("pin", "ended", "goes_on", "reason"),
    [
        (True, 5, True, None),
        (None, 5, False, None),
        (None, 10, False, "PinUnavailable"),
        (False, 5, False, "PinUnavailable"),
        (False, 29.9, False, "PinUnavailable"),
        (False, 30, True, None),
        (None, 30, True, None),
    ],
)
def test_a_pin_has_its_grace(pin: bool | None, ended: float, goes_on: bool, reason: str | None) -> None:
    decision = decide(view(**READY, pin=PinState(pin), ended=ended))
    assert (decision.effect == ReadConfirmed()) == goes_on
    assert says(decision) == reason
    assert goes_on or decision.again_in == 1
    assert [event.reason for event in decision.events] == ([reason] if reason else [])


def test_the_same_problem_is_announced_once() -> None:
    before = decide(view(**READY, pin=PinState(False))).record
    assert decide(view(**READY, pin=PinState(False), record=before)).events == ()


def test_a_message_is_never_longer_than_the_api_server_takes() -> None:
    decision = decide(view(result=UnreadableResult("x" * 10**6)))
    assert len(decision.record.conditions[0]["message"]) == 4096


def test_an_unreadable_result_is_reported() -> None:
    decision = decide(view(result=UnreadableResult("forbidden")))
    assert (says(decision), decision.effect, decision.again_in) == ("ResultLost", None, 1)


@pytest.mark.parametrize(
    ("failures", "since", "pause"),
    [(None, 1, 1), (None, 2, None), (1, 3, 1), (1, 4, None), (4, 30, 2), (20, 299, 1), (20, 300, None)],
)
@pytest.mark.parametrize("refusal", [None, "refused by the preflight"])
def test_after_each_failure_it_waits_longer(
    failures: int | None, since: float, pause: float | None, refusal: str | None
) -> None:
    record = JobRecord(settlement=intent(failures=failures, signed=since), result_cid="Qm")
    outcome = Outcome(Fate.EXPIRED) if refusal else DEAD
    decision = decide(
        view(
            record=record, published=CID, outcome=outcome, refusal=refusal, confirmed=OPEN, finalized=OPEN,
            payment=Payment(PAYABLE, 60),
        )
    )  # fmt: skip
    if pause is None:
        assert decision.effect == Sign("finish", failures=(failures or 0) + 1)
    else:
        assert (decision.effect, decision.again_in, says(decision)) == (None, pause, "TransactionFailed")
        assert (refusal or "no such account") in decision.events[0].note


def test_an_expired_transaction_is_no_failure() -> None:
    record = JobRecord(settlement=intent(failures=3, signed=1), result_cid="Qm")
    now = view(record=record, published=CID, outcome=Outcome(Fate.EXPIRED), confirmed=OPEN, finalized=OPEN,
               payment=Payment(PAYABLE, 60))  # fmt: skip
    assert decide(now).effect == Sign("finish", failures=3)


@pytest.mark.parametrize(
    ("payment", "ended", "effect", "reason"),
    [
        (Payment(PAYABLE, 60), 5, Sign("finish"), None),
        (Payment(replace(NO_PAYER, account_rent=1), 60), 5, Sign("finish", make_payer_account=True), None),
        (Payment(NO_PAYER, 60), 5, None, "SettlementImpossible"),
        (Payment(NO_PAYER, 60), 599, None, "SettlementImpossible"),
        (Payment(NO_PAYER, 60), 600, Sign("quit"), None),
        (Payment(replace(PAYABLE, vault=0), 60), 9999, None, "SettlementImpossible"),
        (UNKNOWN, 5, None, None),
    ],
)
def test_only_the_posters_own_obstacle_makes_a_finish_a_quit(
    payment: object, ended: float, effect: object, reason: str | None
) -> None:
    decision = decide(signing(payment, ended=ended))
    assert (decision.effect, says(decision)) == (effect, reason)


def test_a_job_account_that_is_gone_is_an_obstacle() -> None:
    now = replace(signing(), confirmed=Accounts(RUN, GONE))
    assert says(decide(now)) == "SettlementImpossible"


@pytest.mark.parametrize(("times", "pause"), [(1, 2), (2, 4), (11, 2048), (12, 3600), (40, 3600)])
def test_an_obstacle_is_read_more_and_more_rarely(times: int, pause: float) -> None:
    attempts = Attempts(blocked=times - 1, read_payment_at=ago(0))
    decision = decide(signing(Payment(replace(PAYABLE, vault=0), 60), attempts=attempts))
    assert (decision.again_in, decision.attempts.blocked) == (pause, times)
    assert decision.attempts.read_payment_at == NOW + timedelta(seconds=pause)


def test_an_obstacle_is_not_read_before_its_time() -> None:
    attempts = Attempts(obstacle=Obstacle("words"), blocked=3, read_payment_at=ago(-7))
    decision = decide(signing(attempts=attempts))
    assert (decision.effect, decision.again_in, decision.attempts) == (None, 7, attempts)


def test_a_posters_obstacle_is_read_once_more_at_the_end_of_their_time() -> None:
    attempts = Attempts(blocked=11, read_payment_at=ago(0))
    decision = decide(signing(Payment(NO_PAYER, 60), ended=590, attempts=attempts))
    assert decision.again_in == 10


# -- the poster


def confidential(posted: str | None = None, *, definition: str = "Stored", **facts: Any) -> RunView:
    record = JobRecord(delivery=Delivery(definition=definition, result=posted))
    facts.setdefault("result", StoredResult())
    return view(record=record, confidential=True, **facts)


@pytest.mark.parametrize(
    ("before", "posts", "ended", "limit"),
    [
        (None, 0, 5, 35),
        ("Posting", 0, 5, 35),
        (None, 0, 60, 10),
        ("Posting", 1, 35, 5),
        ("Posting", 1, 45, 0),
    ],
)
def test_the_status_says_that_the_result_is_posted_before_it_is(
    before: str | None, posts: int, ended: float, limit: float
) -> None:
    decision = decide(confidential(before, ended=ended, attempts=Attempts(posts=posts)))
    assert decision.effect == Deliver(timedelta(seconds=limit), posted_before=before == "Posting")
    assert decision.record.delivery is not None
    assert decision.record.delivery.result == "Posting"
    assert decision.attempts == Attempts(posts=posts + 1, poster_asked_at=NOW)


@pytest.mark.parametrize(
    ("reply", "posts", "ended", "result"),
    [
        (PosterReply(NOW), 1, 5, "Delivered"),
        (PosterReply(NOW), 4, 99, "Delivered"),
        (PosterReply(NOW, "down"), 1, 5, "Posting"),
        (PosterReply(NOW, "down"), 3, 5, "Posting"),
        (PosterReply(NOW, "down"), 4, 5, "Undelivered"),
        (PosterReply(NOW, "down"), 1, 30, "Undelivered"),
        (PosterReply(ago(-36), "down"), 1, 5, "Undelivered"),
        (PosterReply(NOW, "no", refused=True), 1, 5, "Undelivered"),
    ],
)
def test_a_delivery_is_tried_until_its_time_is_up(
    reply: PosterReply, posts: int, ended: float, result: str
) -> None:
    decision = decide(confidential("Posting", reply=reply, ended=ended, attempts=Attempts(posts=posts)))
    assert decision.record.delivery is not None
    assert decision.record.delivery.result == result
    if result == "Posting":
        assert (decision.effect, decision.again_in) == (None, 1)
    else:
        assert decision.effect == PrepareResult(), "what is published depends on the delivery"
        assert [event.reason for event in decision.events] == [f"Result{result}"]
        assert decision.record.delivery.result_problem == reply.problem


@pytest.mark.parametrize("result", ["Delivered", "Undelivered"])
def test_a_delivery_is_decided_once(result: str) -> None:
    assert decide(confidential(result)).effect == PrepareResult()


@pytest.mark.parametrize(
    ("facts", "reason", "again_in"),
    [
        ({"result": StoredResult(key_held=False)}, "WalletMissing", 1),
        ({"attempts": Attempts(poster_asked_at=ago(3))}, None, 1),
        ({"posters_busy": True}, None, 1),
    ],
)
def test_nothing_is_posted_without_the_key_or_out_of_turn(
    facts: dict[str, Any], reason: str | None, again_in: float
) -> None:
    decision = decide(confidential(**facts))
    assert (decision.effect, says(decision), decision.again_in) == (None, reason, again_in)


RUNNING = ("Ready",)


@pytest.mark.parametrize(
    ("facts", "effect", "again_in"),
    [
        ({}, RequestDefinition(), None),
        ({"attempts": Attempts(poster_asked_at=ago(3))}, None, 7),
        ({"attempts": Attempts(poster_asked_at=ago(10))}, RequestDefinition(), None),
        ({"posters_busy": True}, None, 1),
        ({"definition": "Stored"}, None, None),
        ({"definition": "Refused"}, None, None),
    ],
)
def test_the_definition_is_requested_until_it_is_there(
    facts: dict[str, Any], effect: object, again_in: float | None
) -> None:
    decision = decide(confidential(**{"definition": "Waiting", "kinds": RUNNING, **facts}))
    assert (decision.effect, decision.again_in) == (effect, again_in)


@pytest.mark.parametrize(
    ("reply", "definition", "again_in", "events"),
    [
        (PosterReply(NOW), "Stored", None, ["DefinitionReceived"]),
        (PosterReply(NOW, "down"), "Waiting", 10, []),
        (PosterReply(NOW, "too large", refused=True), "Refused", None, []),
    ],
)
def test_what_a_reply_with_the_definition_means(
    reply: PosterReply, definition: str, again_in: float | None, events: list[str]
) -> None:
    decision = decide(confidential(definition="Waiting", kinds=RUNNING, reply=reply))
    assert decision.record.delivery is not None
    assert decision.record.delivery.definition == definition
    assert decision.record.delivery.definition_problem == reply.problem
    assert (decision.again_in, [event.reason for event in decision.events]) == (again_in, events)


# -- a job that does not end


def overdue(
    expired: float, *, reported: float | None = None, watched: float | None = 1000, **status: Any
) -> RunView:
    """Over for so long, reported so long ago, and seen over by this process for so long; in seconds."""
    said = ({"type": "Settled", "status": "False", "reason": "RunPastExpiry",
             "lastTransitionTime": timestamp(ago(reported))},) if reported is not None else ()  # fmt: skip
    run = RunStatus(timeout=60, expires_at=micro_timestamp(ago(expired)), **status)
    attempts = Attempts(over_since=None if watched is None else ago(watched))
    return view(record=JobRecord(conditions=said, run=run), kinds=RUNNING, attempts=attempts)


@pytest.mark.parametrize(
    ("now", "reason", "settles", "again_in"),
    [
        (overdue(-60, watched=None), None, False, None),
        (overdue(1, watched=None), None, False, 479),
        (overdue(100, watched=99), None, False, 380),
        (overdue(480), "RunPastExpiry", False, 120),
        (overdue(3600, watched=None), None, False, 120),
        (overdue(3600, watched=60), None, False, 60),
        (overdue(3600, watched=120), "RunPastExpiry", False, 120),
        (overdue(490, reported=10), "RunPastExpiry", False, 710),
        (overdue(1199, reported=719), "RunPastExpiry", False, 1),
        (overdue(1200, reported=720), "RunPastExpiry", True, None),
        (overdue(9000, reported=900, watched=119), "RunPastExpiry", False, 1),
        (overdue(9000, reported=900, watched=None), "RunPastExpiry", False, 120),
        # Extended after the report.
        (overdue(-60, reported=9000), "RunPastExpiry", False, None),
        (overdue(10, reported=9000, watched=10), "RunPastExpiry", False, 1190),
        # Closed by others: counted from when it was seen, or from the report of an earlier process.
        (overdue(-60, watched=None, ended="OwnerEnded"), None, False, 480),
        (overdue(-60, watched=480, ended="OwnerEnded"), "RunPastExpiry", False, 120),
        (overdue(-60, watched=120, reported=720, ended="RunGone"), "RunPastExpiry", True, None),
        (overdue(-60, watched=120, reported=719, ended="RunGone"), "RunPastExpiry", False, 1),
    ],
)  # fmt: skip
def test_a_run_is_settled_without_the_end_of_its_job_only_after_both_graces(
    now: RunView, reason: str | None, settles: bool, again_in: float | None
) -> None:
    decision = decide(now)
    assert (decision.effect == ReadResult()) == settles
    assert (says(decision), decision.again_in) == (reason, again_in)


def test_the_settlement_of_an_overdue_run_goes_on_whatever_the_clock_says() -> None:
    record = JobRecord(settlement=intent(), result_cid="Qm", run=RunStatus(timeout=60))
    assert decide(view(record=record, published=CID, kinds=RUNNING)).effect == ReadOutcome()


@pytest.mark.parametrize(("ended", "effect"), [(599, None), (600, ReadResult(substitute=True))])
def test_an_unreadable_result_keeps_a_settlement_waiting_only_so_long(ended: float, effect: object) -> None:
    assert decide(view(result=UnreadableResult("forbidden"), ended=ended)).effect == effect


# -- after the settlement


def settled(
    settlement: Settlement | None, *, since: float = 60, reason: str = "Finished", **facts: Any
) -> RunView:
    record = JobRecord(
        conditions=({"type": "Settled", "status": "True", "reason": reason},),
        settlement=settlement,
        result_cid="Qm",
        settled=micro_timestamp(ago(since)),
    )
    return view(record=record, **facts)


PINNED = intent().model_copy(update={"pinned": True})
PUBLISHED = PINNED.model_copy(update={"published": True})
DAY = 24 * 3600.0


@pytest.mark.parametrize(
    ("now", "effect", "again_in"),
    [
        (settled(PUBLISHED), DropResult(), DAY - 60),
        (settled(None), DropResult(), DAY - 60),
        (settled(intent("quit")), DropResult(), DAY - 60),
        (settled(PINNED, abandoned=True), DropResult(), DAY - 60),
        (settled(PUBLISHED, since=DAY), Delete(), None),
        (settled(intent(), since=DAY), Delete(), None),
        (settled(PINNED), Publish(), None),
        (settled(PINNED, gateways_busy=True), None, 5),
        (settled(PINNED, attempts=Attempts(publish_at=ago(-9))), None, 9),
        (settled(PINNED, publishable=False), None, 1800),
        (settled(PINNED, since=DAY - 7, publishable=False), None, 7),
        (settled(PUBLISHED, deleting=True), ReadWatchedRun(), None),
        (settled(PUBLISHED, deleting=True, watched=True), DropResult(), 1),
        (settled(PUBLISHED, deleting=True, watched=False), Release(), None),
        (settled(intent(), deleting=True, attempts=Attempts(publish_at=ago(-9))), None, 9),
        (settled(PINNED, deleting=True, attempts=Attempts(publish_at=ago(-9))), ReadWatchedRun(), None),
        (settled(None, reason="Abandoned", deleting=True), ReadRunAtEnd(), None),
        (settled(None, reason="Abandoned", deleting=True, open_at_end=True), DropResult(), 15),
        (settled(None, reason="Abandoned", since=DAY, open_at_end=True), DropResult(), 3600),
        (settled(None, reason="Abandoned", since=DAY, open_at_end=False), Delete(), None),
    ],
)  # fmt: skip
def test_what_follows_the_settlement(now: RunView, effect: object, again_in: float | None) -> None:
    decision = decide(now)
    assert (decision.effect, decision.again_in) == (effect, again_in)


@pytest.mark.parametrize(
    ("publication", "before", "tries", "pinned", "published", "pause"),
    [
        (Publication(pinned=True, published=True), intent(), 0, True, True, None),
        (Publication(pinned=True, published=False), intent(), 0, True, None, 2),
        (Publication(pinned=False, published=False), PINNED, 3, True, None, 16),
        (Publication(pinned=False, published=False), intent(), 30, None, None, 1800),
        (Publication(pinned=False, published=False, lost=True), intent(), 0, None, None, None),
    ],
)
def test_publishing_is_tried_more_and_more_rarely(
    publication: Publication,
    before: Settlement,
    tries: int,
    pinned: bool | None,
    published: bool | None,
    pause: float | None,
) -> None:
    decision = decide(settled(before, publication=publication, attempts=Attempts(publish_tries=tries)))
    after = decision.record.settlement
    assert after is not None
    assert (bool(after.pinned), after.published) == (bool(pinned), published)
    if pause is None:
        assert (decision.effect, decision.again_in) == (DropResult(), DAY - 60)
    else:
        assert (decision.effect, decision.again_in) == (None, pause)
        assert decision.attempts.publish_at == NOW + timedelta(seconds=pause)
        again = decide(settled(after, publication=publication, attempts=decision.attempts, deleting=True))
        assert again.attempts == decision.attempts, "one attempt counts once"
