"""What to do next about a run whose NosanaJob is verified: one pure decision at a time.

(docs/architecture.md#one-job-followed, docs/architecture.md#why-it-cannot-pay-twice)

A reconcile is a chain of such decisions. Most need a fact that costs a request: they ask for it with an effect,
the fact joins the view, and `decide` is called again, until a decision says when to come back:

    job ended ──> ReadResult ──> Deliver ──> PrepareResult ──> Pin ──┐     (until the CID is in an intent)
                                 (confidential only)                 │
        ┌────────────────────────────────────────────────────────────┘
        └──> ReadOutcome ──> ReadConfirmed ──> ReadPayment ──> Sign         nothing signed, or it is dead
                        ├──> Resend                                         it may still land
                        └──> ReadFinalized ──> Settled ──> Publish ──> Delete / Release

The order is the safety: what is signed names a CID, so the result comes first; what is signed is durable before
it is sent, so `Sign` ends the reconcile; and another transaction needs an outcome that proves the last one dead.
Each pause is a pure function of the record (durable) or of the attempts (lost in a crash, which costs only time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from nosana_operator.api import (
    ANNOTATION_ABANDON,
    Delivery,
    JobCondition,
    JobReason,
    find_condition,
    parse_timestamp,
    timestamp,
)
from nosana_operator.market.facts import Absent, Fate, JobFacts, Outcome
from nosana_operator.market.intents import POLL, RETRY
from nosana_operator.market.runs.effects import (
    Announce,
    Delete,
    Deliver,
    DropResult,
    Effect,
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
from nosana_operator.market.runs.on_chain import (
    Accounts,
    Obstacle,
    ReadFinalized,
    Resend,
    Settled,
    Sign,
    Situation,
    next_step,
    obstacle,
)
from nosana_operator.market.runs.status import JobRecord
from nosana_operator.market.runs.view import (
    Attempts,
    PosterReply,
    RunView,
    UnreadableResult,
)

FINALITY_POLL = 2.0
"""Seconds between reads once a transaction is confirmed (finality takes some 13 s) or nobody answers."""
SLOW_POLL = 15.0
MAX_FAILURE_PAUSE = 300.0
"""Seconds that pass at most between a failed transaction and the next one."""
MAX_IMPOSSIBLE_PAUSE = 3600.0
"""Seconds between two reads of what keeps a run from being paid: each costs a request."""
POSTER_GRACE = timedelta(minutes=10)
"""A poster who closed their NOS account has this long to create it again; then the run is given back unpaid."""

PIN_GRACE = timedelta(seconds=30)
"""An outage of the pin service delays the settlement at most this long; the pin then goes on afterwards."""
SLOW_PIN = timedelta(seconds=10)
"""A pin that takes longer than this is reported."""
PIN_WAIT = timedelta(seconds=1)
"""A reconcile waits this long for a pin that it has begun: most are done by then, and pay waits for it."""
MAX_PUBLISH_PAUSE = 1800.0
"""Seconds between two attempts at publishing."""
GATEWAYS_BUSY = 5.0
"""Seconds until a run that waits to ask the gateways tries again."""

BETWEEN_REQUESTS = timedelta(seconds=10)
"""Between two requests to the same poster."""
POSTERS_BUSY = 1.0
"""Seconds until a run that waits to ask its poster tries again."""
RESULT_TRIES = 4
DELIVERY_LIMIT = timedelta(seconds=40)
"""After the job's end, for all tries together: the settlement waits for it, and nobody pays after the time-out."""

OVERDUE_NOTICE = timedelta(minutes=8)
"""A job that has not ended so long after its run is reported. When its job controller keeps failing, it stores a
minimal result after five minutes."""
OVERDUE_GRACE = timedelta(minutes=12)
"""Between that report and the settlement without the job's result."""
OVERDUE_WATCHED = timedelta(minutes=2)
"""The job controller of the same process gets this long before either: nobody may have worked for hours."""
UNREADABLE_GRACE = timedelta(minutes=10)
"""After the job's end, for a result that the API server refuses to show; then the run is settled without it."""

KEEP_SETTLED = timedelta(hours=24)
"""A settled job's object stays this long (docs/architecture.md#what-stays-and-for-how-long)."""

_NOT_PINNED: Final = (
    f"no pin service has taken the result yet; {PIN_GRACE.seconds} s after the job's end the run is settled "
    "without, and the pin is tried until it succeeds"
)


def decide(view: RunView) -> RunDecision:
    """The next thing to do about a verified run."""
    if view.settled:
        return _after_settlement(view)
    if not view.ended and view.record.settlement is None:
        overdue = _overdue(view)
        if overdue is not None:
            return overdue
    announced = view.record.settlement is not None and view.record.result_cid is not None
    if not announced and not gives_back(view):
        decision = _result(view)
        if decision is not None:
            return decision
    return _on_chain(view)


def not_settled(
    record: JobRecord,
    attempts: Attempts,
    reason: JobReason,
    message: str,
    *,
    generation: int,
    now: datetime,
    again_in: float,
) -> RunDecision:
    """Record why the run is not settled yet; an Event announces a new reason."""
    before = find_condition(record.conditions, JobCondition.SETTLED)
    new = before is None or before["reason"] != reason
    return RunDecision(
        record.with_condition(JobCondition.SETTLED, False, reason, message, generation=generation, now=now),
        attempts,
        again_in=again_in,
        events=(Announce("Warning", reason, message),) if new else (),
    )


def key_missing(node: str) -> str:
    """The message when no Secret holds the key of a run."""
    return f"the key {node} is in no Secret of the NosanaMarket, so nothing is signed; put it back to be paid"


def _wait(view: RunView, again_in: float | None) -> RunDecision:
    return RunDecision(view.record, view.attempts, again_in=again_in)


def _need(view: RunView, effect: Effect) -> RunDecision:
    return RunDecision(view.record, view.attempts, effect)


def _problem(view: RunView, reason: JobReason, message: str, again_in: float) -> RunDecision:
    return not_settled(
        view.record,
        view.attempts,
        reason,
        message,
        generation=view.generation,
        now=view.now,
        again_in=again_in,
    )


def gives_back(view: RunView) -> bool:
    """Whether the run is given back with `quit`. The intent fixes that: a later edit must not contradict it."""
    if view.record.settlement is not None:
        return view.record.settlement.kind == "quit"
    market = view.market
    if market is None:
        return False
    accepted = find_condition(view.conditions, JobCondition.ACCEPTED)
    refused = accepted is not None and accepted.get("status") == "False"
    failed = find_condition(view.conditions, JobCondition.FAILED)
    unplaced = failed is not None and failed.get("reason") == JobReason.NO_CAPACITY
    return (refused and market.on_bad_definition == "Quit") or (unplaced and market.on_no_capacity == "Quit")


# -- a job that does not end


def over_at(view: RunView) -> datetime | None:
    """When the run was over, by the clock or because others closed it; None: it is not, or nobody knows."""
    status = view.record.run
    if status is None:
        return None
    expires_at = parse_timestamp(status.expires_at) if status.expires_at else None
    if expires_at is not None and expires_at <= view.now:
        return expires_at
    if not status.ended:
        return None
    # The status does not say when others closed it: count from when this process saw that, or from the report.
    seen = view.attempts.over_since or view.now
    reported = find_condition(view.record.conditions, JobCondition.SETTLED)
    return seen if reported is None else min(seen, _since(reported) - OVERDUE_NOTICE)


def _overdue(view: RunView) -> RunDecision | None:
    """Wait for the end of the job; None: the run is settled without it, because its job controller does not end it.

    The job controller ends every job at its expiry, and stops pods and stores a minimal result when all else
    fails. Only when even that does not come, for example because every write is refused, does the run go on alone:

        over ────── 8 min ──────> condition and Event ────── 12 min ──────> finish, with a substitute result
        └── this process watches for 2 min at least ──┘  └── and again ──┘

    Both moments survive a crash: the expiry in the status, the report as the condition's transition. A process that
    has just begun to lead gives its own job controller time first, so that an outage of the operator costs no result.
    """
    over = over_at(view)
    if over is None:
        return _definition(replace(view, attempts=replace(view.attempts, over_since=None)))
    since = view.attempts.over_since or view.now
    view = replace(view, attempts=replace(view.attempts, over_since=since))
    watched_until = since + OVERDUE_WATCHED
    reported = find_condition(view.record.conditions, JobCondition.SETTLED)
    due = max(over + OVERDUE_NOTICE, watched_until)
    if reported is not None:
        # A report from before an extension counts from the new expiry.
        due = max(_settles_at(over, reported), watched_until)
        return None if view.now >= due else _wait_for_end(view, due)
    if view.now < due:
        return _wait_for_end(view, due)
    message = (
        f"the run was over at {timestamp(over)} and its job has not ended: see its other conditions and the log; "
        f"{OVERDUE_GRACE.seconds // 60} minutes after this report it is settled without the job's result"
    )
    return _problem(view, JobReason.RUN_PAST_EXPIRY, message, OVERDUE_WATCHED.total_seconds())


def overdue_end(view: RunView) -> datetime:
    """The moment that takes the place of the job's end in an overdue run."""
    over, reported = over_at(view), find_condition(view.record.conditions, JobCondition.SETTLED)
    return view.now if over is None or reported is None else _settles_at(over, reported)


def _settles_at(over: datetime, reported: Mapping[str, Any]) -> datetime:
    return max(_since(reported), over + OVERDUE_NOTICE) + OVERDUE_GRACE


def _since(reported: Mapping[str, Any]) -> datetime:
    return parse_timestamp(str(reported["lastTransitionTime"]))


def _wait_for_end(view: RunView, due: datetime) -> RunDecision:
    waiting = _definition(view)
    left = max((due - view.now).total_seconds(), RETRY)
    return replace(waiting, again_in=left if waiting.again_in is None else min(waiting.again_in, left))


# -- the poster of a confidential job


def _definition(view: RunView) -> RunDecision:
    """Request the definition until the poster gives it. The job controller decides when to stop waiting."""
    delivery = view.record.delivery or Delivery()
    if not view.confidential or delivery.definition != "Waiting":
        return _wait(view, None)
    reply = view.reply
    if reply is None:
        pause = _poster_pause(view)
        if pause > 0:
            return _wait(view, pause)
        return RunDecision(view.record, replace(view.attempts, poster_asked_at=view.now), RequestDefinition())
    if reply.problem is None:
        stored = delivery.model_copy(update={"definition": "Stored", "definition_problem": None})
        return RunDecision(
            replace(view.record, delivery=stored),
            replace(view.attempts, poster_asked_at=None),
            events=(Announce("Normal", "DefinitionReceived", "the poster gave the definition"),),
        )
    changes = {"definition_problem": reply.problem}
    if reply.refused:
        changes["definition"] = "Refused"
    return RunDecision(
        replace(view.record, delivery=delivery.model_copy(update=changes)),
        view.attempts,
        again_in=None if reply.refused else BETWEEN_REQUESTS.total_seconds(),
    )


def _poster_pause(view: RunView) -> float:
    """Seconds until the poster may be sent another request."""
    last = view.attempts.poster_asked_at
    if last is not None and view.now - last < BETWEEN_REQUESTS:
        return (last + BETWEEN_REQUESTS - view.now).total_seconds()
    return POSTERS_BUSY if view.posters_busy else 0.0


def _deliver(view: RunView, *, key_held: bool) -> RunDecision | None:
    """Give the poster their result; None once that is decided either way, and the status says so.

    What is published depends on it, so it is decided once. Every process tries at least once, even one that
    starts after the limit.
    """
    delivery = view.record.delivery or Delivery()
    if not view.confidential or delivery.result in ("Delivered", "Undelivered"):
        return None
    if view.reply is not None:
        return _delivered(view, delivery, view.reply)
    if not key_held:
        return _problem(view, JobReason.WALLET_MISSING, key_missing(view.run.node), RETRY)
    if _poster_pause(view) > 0:
        return _wait(view, RETRY)
    # The status says that we post before we do: if this process dies, the next one knows that the poster may
    # have the result.
    record = replace(view.record, delivery=delivery.model_copy(update={"result": "Posting"}))
    left = view.ended_at + DELIVERY_LIMIT - view.now
    least = timedelta(0) if view.attempts.posts else BETWEEN_REQUESTS
    attempts = replace(view.attempts, poster_asked_at=view.now, posts=view.attempts.posts + 1)
    posted_before = delivery.result == "Posting"
    return RunDecision(record, attempts, Deliver(max(left, least), posted_before=posted_before))


def _delivered(view: RunView, delivery: Delivery, reply: PosterReply) -> RunDecision:
    next_try = max(view.now + BETWEEN_REQUESTS, reply.at)
    more = view.attempts.posts < RESULT_TRIES and next_try < view.ended_at + DELIVERY_LIMIT
    if reply.problem is not None and not reply.refused and more:
        return _wait(view, RETRY)
    if reply.problem is None:
        result = "Delivered"
        event = Announce("Normal", "ResultDelivered", "the poster has the result; a blank one is published")
    else:
        result = "Undelivered"
        event = Announce("Warning", "ResultUndelivered", f"a blank result is published: {reply.problem}")
    done = delivery.model_copy(update={"result": result, "result_problem": reply.problem})
    return RunDecision(replace(view.record, delivery=done), view.attempts, PrepareResult(), events=(event,))


# -- the result


def _result(view: RunView) -> RunDecision | None:
    """Get the result out until a transaction may name it; None: it may."""
    if view.result is None:
        return _need(view, ReadResult())
    if isinstance(view.result, UnreadableResult):
        if view.now - view.ended_at >= UNREADABLE_GRACE:
            return _need(view, ReadResult(substitute=True))
        return _problem(view, JobReason.RESULT_LOST, view.result.message, RETRY)
    delivery = _deliver(view, key_held=view.result.key_held)
    if delivery is not None:
        return delivery
    if view.published is None:
        return _need(view, PrepareResult())
    waited = view.now - view.ended_at
    if view.pin is None:
        return _need(view, Pin(max(PIN_GRACE - waited, PIN_WAIT)))
    if view.pin.done or waited >= PIN_GRACE:
        return None
    if view.pin.done is False or waited >= SLOW_PIN:
        return _problem(view, JobReason.PIN_UNAVAILABLE, _NOT_PINNED, RETRY)
    return _wait(view, RETRY)


# -- the chain


def _on_chain(view: RunView) -> RunDecision:
    settlement = view.record.settlement
    intent = settlement.transaction if settlement else None
    outcome = view.outcome
    if outcome is None:
        if intent is not None:
            return _need(view, ReadOutcome())
        outcome = Outcome(Fate.PENDING)
    # While a transaction may still land nothing else can be done, whatever the accounts are.
    if view.confirmed is None and (intent is None or outcome.dead):
        return _need(view, ReadConfirmed())
    situation = Situation(
        key=view.run.node,
        run_time=view.run_time,
        confirmed=view.confirmed or Accounts(),
        finalized=view.finalized or Accounts(),
        intent=settlement.kind if settlement and intent else None,
        outcome=outcome,
        digest=view.published.digest if view.published else None,
        give_up_unpaid=gives_back(view),
    )
    step = next_step(situation)
    match step:
        case ReadFinalized() if view.finalized is None:
            return _need(view, step)
        case Sign():
            return _sign(view, step, situation)
        case Resend():
            return RunDecision(view.record, view.attempts, step, again_in=POLL)
        case Settled():
            return RunDecision(_announcing(view).record, view.attempts, step)
    return _wait(view, FINALITY_POLL if outcome.fate in (Fate.CONFIRMED, Fate.UNKNOWN) else POLL)


def _announcing(view: RunView) -> RunView:
    """The view with the CID that the next transaction names in its record.

    Only what is written anyway carries it there: a read must not cost a write.
    """
    if view.published is None:
        return view
    return replace(view, record=replace(view.record, result_cid=view.published.cid))


def _sign(view: RunView, step: Sign, situation: Situation) -> RunDecision:
    announcing, before = _announcing(view), view.record.settlement
    failures = (before.failures or 0) if before else 0
    failed = situation.outcome.fate is Fate.FAILED or view.refusal is not None
    if before is not None and before.transaction is not None and failed:
        failures += 1
        since = (view.now - parse_timestamp(before.transaction.signed_at)).total_seconds()
        pause = failure_pause(failures) - since
        if pause > 0:
            words = situation.outcome.error or view.refusal or ""
            return _problem(
                announcing, JobReason.TRANSACTION_FAILED, transaction_failed(before.kind, words), pause
            )
    sign = replace(step, failures=failures)
    if step.kind != "finish":
        return RunDecision(announcing.record, view.attempts, sign)
    blocked: Obstacle | None = None
    if not isinstance(situation.confirmed.job, JobFacts):
        # The job's address is its own key, so nobody can open another account there without that key.
        blocked = Obstacle(f"the job account {view.run.job} was closed though its run is open")
    elif view.attempts.read_payment_at is not None and view.now < view.attempts.read_payment_at:
        blocked = view.attempts.obstacle
    elif view.payment is None:
        return _need(view, ReadPayment())
    elif isinstance(view.payment, Absent):
        return _wait(view, RETRY)
    else:
        facts = view.payment.facts
        blocked = obstacle(situation.confirmed.job, view.payment.seconds, facts)
        sign = replace(sign, make_payer_account=not facts.payer_account)
    if blocked is None:
        return RunDecision(announcing.record, view.attempts, sign)
    if blocked.by_poster and view.now - view.ended_at >= POSTER_GRACE:
        # What is lost is less than collecting it would cost, and the run no longer holds a slot.
        return RunDecision(announcing.record, view.attempts, Sign("quit", failures=failures))
    return _blocked(announcing, blocked)


def failure_pause(failures: int) -> float:
    """Seconds between a transaction that failed and the next one, by how many have failed."""
    return min(2.0 ** min(failures, 10), MAX_FAILURE_PAUSE)


def transaction_failed(kind: str, words: str) -> str:
    """The message when a transaction failed or was refused, in the chain's words."""
    return f"{kind} failed: {words}; it is tried again"


def _blocked(view: RunView, blocked: Obstacle) -> RunDecision:
    """Report why the run cannot be paid now, and read again: soon at first, then by the hour."""
    attempts, read_at = view.attempts, view.attempts.read_payment_at
    if read_at is None or view.now >= read_at:
        times = attempts.blocked + 1
        read_at = view.now + timedelta(seconds=min(2.0 ** min(times, 12), MAX_IMPOSSIBLE_PAUSE))
        if blocked.by_poster:
            # At the end of the poster's grace it is read once more before the pay is given up.
            read_at = min(read_at, view.ended_at + POSTER_GRACE)
        attempts = replace(attempts, blocked=times, obstacle=blocked, read_payment_at=read_at)
    message = f"{blocked.message}; or give up the pay by the annotation {ANNOTATION_ABANDON}: {view.run.run}"
    again_in = max((read_at - view.now).total_seconds(), RETRY)
    return _problem(replace(view, attempts=attempts), JobReason.SETTLEMENT_IMPOSSIBLE, message, again_in)


# -- after the settlement


def _after_settlement(view: RunView) -> RunDecision:
    """Publish what is not published yet, then let the object go: when somebody deletes it, or after a day.

    The object of an abandoned run stays for as long as the run is open on chain.
    """
    settled_at = parse_timestamp(view.record.settled) if view.record.settled else view.now
    remaining = (settled_at + KEEP_SETTLED - view.now).total_seconds()
    if remaining > 0 and _publishing(view):
        publish = _publish(view)
        if isinstance(publish.effect, Publish):
            return publish
        view = replace(view, record=publish.record, attempts=publish.attempts)
        settlement = view.record.settlement
        pinned = settlement is not None and bool(settlement.pinned)
        # Somebody who deletes it waits for its result to be pinned, not for slow gateways.
        if publish.again_in is not None and not (view.deleting and pinned):
            return replace(publish, again_in=min(publish.again_in, remaining))
    if not view.deleting and remaining > 0:
        return RunDecision(view.record, view.attempts, DropResult(), again_in=remaining)
    settled = find_condition(view.record.conditions, JobCondition.SETTLED)
    if settled is not None and settled["reason"] == JobReason.ABANDONED:
        if view.open_at_end is None:
            return _need(view, ReadRunAtEnd())
        if view.open_at_end:
            pause = SLOW_POLL if view.deleting else MAX_IMPOSSIBLE_PAUSE
            return RunDecision(view.record, view.attempts, DropResult(), again_in=pause)
    if not view.deleting:
        return _need(view, Delete())
    if view.watched is None:
        return _need(view, ReadWatchedRun())
    if view.watched:
        return RunDecision(view.record, view.attempts, DropResult(), again_in=RETRY)
    return _need(view, Release())


def _publishing(view: RunView) -> bool:
    """Whether the result still has to be published. It goes with the object, and its CID is on chain."""
    settlement = view.record.settlement
    return (
        settlement is not None
        and settlement.kind != "quit"
        and not settlement.published
        and view.record.result_cid is not None
        and not view.abandoned
    )


def _publish(view: RunView) -> RunDecision:
    """Pin until the gateways return the result: twice as long after each attempt."""
    settlement, attempts, done = view.record.settlement, view.attempts, view.publication
    if settlement is None or not view.publishable:
        return _wait(view, MAX_PUBLISH_PAUSE)
    if attempts.publish_at is not None and view.now < attempts.publish_at:
        return _wait(view, (attempts.publish_at - view.now).total_seconds())
    if done is None:
        return _wait(view, GATEWAYS_BUSY) if view.gateways_busy else _need(view, Publish())
    if done.lost:
        return _wait(view, None)
    record = view.record
    if done.pinned != settlement.pinned or done.published:
        changes = {"pinned": done.pinned or settlement.pinned, "published": done.published or None}
        record = replace(record, settlement=settlement.model_copy(update=changes))
    if done.published:
        return RunDecision(record, attempts)
    tries = attempts.publish_tries + 1
    pause = min(2.0 ** min(tries, 20), MAX_PUBLISH_PAUSE)
    attempts = replace(attempts, publish_tries=tries, publish_at=view.now + timedelta(seconds=pause))
    return RunDecision(record, attempts, again_in=pause)
