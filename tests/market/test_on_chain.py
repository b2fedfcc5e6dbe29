"""What is done next for an ended job: each row is a situation that the chain can be in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.api import JobReason
from nosana_operator.market.facts import (
    DONE,
    GONE,
    NO_RESULT,
    QUEUED,
    STOPPED,
    UNKNOWN,
    Fate,
    JobFacts,
    Outcome,
    RunFacts,
)
from nosana_operator.market.runs.on_chain import (
    Accounts,
    ReadFinalized,
    Resend,
    Settled,
    Sign,
    Situation,
    Step,
    Wait,
    next_step,
)

KEY, OTHER = "host", "somebody"
RESULT, OTHER_RESULT = b"r" * 32, b"x" * 32
RUN = RunFacts(address="run", job="job", node=KEY, payer="payer", time=100)


def job(
    state: int = QUEUED, *, node: str = "1" * 32, result: bytes = NO_RESULT, start: int = 100
) -> JobFacts:
    return JobFacts(
        address="job",
        ipfs_job=b"d" * 32,
        ipfs_result=result,
        market="market",
        node=node,
        payer="payer",
        project="project",
        price=10,
        state=state,
        time_start=start if state == DONE else 0,
        time_end=start + 60 if state == DONE else 0,
        timeout=3600,
    )


OPEN = Accounts(RUN, job())
FINISHED = Accounts(GONE, job(DONE, node=KEY, result=RESULT))
OWNER_ENDED = Accounts(GONE, job(DONE, node=KEY))
QUIT = Accounts(GONE, job(STOPPED))
ADMIN_QUIT = Accounts(GONE, job(QUEUED))
CLEANED = Accounts(GONE, GONE)
TAKEN = Accounts(GONE, job(DONE, node=OTHER, result=OTHER_RESULT))
SECOND_RUN = Accounts(GONE, job(DONE, node=KEY, result=OTHER_RESULT, start=500))
"""Another run of the same job by the same key was paid: nothing of that is this run's."""
SECOND_ENDED = Accounts(GONE, job(DONE, node=KEY, start=500))
UNREAD = Accounts()


def at(
    confirmed: Accounts,
    finalized: Accounts = UNREAD,
    *,
    intent: str | None = None,
    fate: Fate = Fate.PENDING,
    quits: bool = False,
) -> Situation:
    return Situation(
        key=KEY,
        run_time=100,
        confirmed=confirmed,
        finalized=finalized,
        intent=intent,  # type: ignore[arg-type]
        outcome=Outcome(fate, "the chain's words" if fate is Fate.FAILED else ""),
        digest=None if quits else RESULT,
        give_up_unpaid=quits,
    )


WAIT = object()

ROWS = [
    ("run open, nothing signed", at(OPEN), Sign("finish")),
    ("run open, bad definition is quit", at(OPEN, quits=True), Sign("quit")),
    ("the owner ended first", at(OWNER_ENDED), Sign("complete")),
    ("chain silent, nothing signed", at(UNREAD), WAIT),
    ("run silent, job known", at(Accounts(UNKNOWN, job())), WAIT),
    ("gone by others: finality asked first", at(ADMIN_QUIT), ReadFinalized()),
    ("gone by others", at(ADMIN_QUIT, ADMIN_QUIT), JobReason.ENDED_BY_OTHERS),
    ("job account closed", at(CLEANED, CLEANED), JobReason.ENDED_BY_OTHERS),
    ("done by another node", at(TAKEN, TAKEN), JobReason.ENDED_BY_OTHERS),
    ("a fork took the run back, finality not there", at(ADMIN_QUIT, OPEN), WAIT),
    ("finish under way", at(OPEN, intent="finish"), Resend()),
    ("finish confirmed, not final", at(OPEN, intent="finish", fate=Fate.CONFIRMED), WAIT),
    ("its effect is confirmed: finality will tell", at(FINISHED, intent="finish", fate=Fate.CONFIRMED), WAIT),
    ("it is final: the accounts tell the rest", at(UNREAD, intent="finish", fate=Fate.FINALIZED), ReadFinalized()),
    ("effect confirmed, finality lags", at(FINISHED, OPEN, intent="finish", fate=Fate.CONFIRMED), WAIT),
    ("finished", at(FINISHED, FINISHED, intent="finish", fate=Fate.FINALIZED), JobReason.FINISHED),
    ("finished, status forgotten", at(FINISHED, FINISHED, intent="finish", fate=Fate.UNKNOWN), JobReason.FINISHED),
    ("finish final, job cleaned", at(CLEANED, CLEANED, intent="finish", fate=Fate.FINALIZED), JobReason.FINISHED),
    ("silence about the intent: the accounts are asked", at(UNREAD, intent="finish", fate=Fate.UNKNOWN), ReadFinalized()),
    ("silence about the intent, no effect to be seen", at(UNREAD, OPEN, intent="finish", fate=Fate.UNKNOWN), WAIT),
    ("silence about the intent, ended by others", at(UNREAD, ADMIN_QUIT, intent="finish", fate=Fate.UNKNOWN), WAIT),
    ("failing is not failed", at(OPEN, intent="finish", fate=Fate.FAILING), WAIT),
    ("expired: finality asked first", at(OPEN, intent="finish", fate=Fate.EXPIRED), ReadFinalized()),
    ("expired at finalized", at(OPEN, OPEN, intent="finish", fate=Fate.EXPIRED), Sign("finish")),
    ("expired but the effect is there", at(FINISHED, FINISHED, intent="finish", fate=Fate.EXPIRED), JobReason.FINISHED),
    ("failed: the owner was quicker", at(OWNER_ENDED, OWNER_ENDED, intent="finish", fate=Fate.FAILED), Sign("complete")),
    ("owner quicker, our finish may still land", at(OWNER_ENDED, intent="finish"), Resend()),
    ("completed", at(FINISHED, FINISHED, intent="complete", fate=Fate.FINALIZED), JobReason.COMPLETED),
    ("given back", at(QUIT, QUIT, intent="quit", fate=Fate.FINALIZED, quits=True), JobReason.QUIT),
    ("quit final, job cleaned", at(CLEANED, CLEANED, intent="quit", fate=Fate.FINALIZED, quits=True), JobReason.QUIT),
    ("complete final, job cleaned", at(CLEANED, CLEANED, intent="complete", fate=Fate.FINALIZED), JobReason.COMPLETED),
    ("a second run of the job was paid", at(SECOND_RUN, SECOND_RUN), JobReason.ENDED_BY_OTHERS),
    ("a second run of the job was ended by the owner", at(SECOND_ENDED, SECOND_ENDED), JobReason.ENDED_BY_OTHERS),
    ("a confirmed reading of a node that lags", at(OPEN, ADMIN_QUIT, intent="finish", fate=Fate.EXPIRED), JobReason.ENDED_BY_OTHERS),
    ("such a one, and the owner had ended", at(OPEN, OWNER_ENDED, intent="finish", fate=Fate.EXPIRED), Sign("complete")),
    ("gone at confirmed, not there yet at finalized", at(ADMIN_QUIT, Accounts(UNKNOWN, job())), ReadFinalized()),
    ("finish final, a node that lags has the job before it", at(FINISHED, ADMIN_QUIT, intent="finish", fate=Fate.FINALIZED), WAIT),
    ("complete final, a node that lags has the job before it", at(FINISHED, OWNER_ENDED, intent="complete", fate=Fate.FINALIZED), WAIT),
    ("owner ended a job that we quit", at(OWNER_ENDED, OWNER_ENDED, quits=True), JobReason.COMPLETED),
]  # fmt: skip


@pytest.mark.parametrize(("situation", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_next_step(situation: Situation, expected: object) -> None:
    step = next_step(situation)
    if expected is WAIT:
        assert isinstance(step, Wait)
    elif isinstance(expected, JobReason):
        assert isinstance(step, Settled)
        assert step.reason == expected
    else:
        assert step == expected


def test_amounts_come_from_the_job_account() -> None:
    step = next_step(at(FINISHED, FINISHED, intent="finish", fate=Fate.FINALIZED))
    assert isinstance(step, Settled)
    assert step.paid is not None
    assert step.paid.seconds_paid == 60


WORLDS = [
    SECOND_RUN,
    OPEN,
    FINISHED,
    OWNER_ENDED,
    QUIT,
    ADMIN_QUIT,
    CLEANED,
    TAKEN,
    UNREAD,
    Accounts(UNKNOWN, job()),
]


@given(
    confirmed=st.sampled_from(WORLDS),
    finalized=st.sampled_from(WORLDS),
    intent=st.sampled_from([None, "finish", "complete", "quit"]),
    fate=st.sampled_from(list(Fate)),
    quits=st.booleans(),
)
def test_nothing_is_signed_beside_a_transaction_that_may_still_land(
    confirmed: Accounts, finalized: Accounts, intent: str | None, fate: Fate, quits: bool
) -> None:
    step: Step = next_step(at(confirmed, finalized, intent=intent, fate=fate, quits=quits))
    if isinstance(step, Sign):
        assert intent is None or fate in (Fate.FAILED, Fate.EXPIRED)
        assert UNKNOWN not in (confirmed.run, confirmed.job)
        if step.kind in ("finish", "quit"):
            assert isinstance(confirmed.run, RunFacts)
            assert finalized.run is not GONE
    if isinstance(step, Settled):
        assert finalized.run is not UNKNOWN
        assert not isinstance(finalized.run, RunFacts), "a run that is open at finalized is never settled"
        if step.paid is not None:
            assert (step.paid.node, step.paid.time_start) == (KEY, 100), "paid for another run"
