"""How an ended run is settled on chain: pure decisions over the intent and the accounts.

(docs/architecture.md#why-it-cannot-pay-twice, docs/architecture.md#what-ends-a-job)

The outcome of a transaction is read from accounts, never from a reply. Another one is signed only when the
last one can no longer have an effect. `finish` closes the run exactly once, so it can be paid exactly once.

Two races shape `next_step`. In each, time runs downwards:

    our finish loses to the owner's end            our finish wins, but the node we ask lags
    ------------------------------------           -----------------------------------------
    intent: finish, sent                           intent: finish, sent
    the owner's `end` closes the run and pays      it lands: run gone, job done with our result
    run gone, job done, result still zeros         a lagging node answers: run open
    finish fails, because its run is gone          "run open" must not lead to a second finish
    => `complete` posts the result                 => wait: the transaction may still land

So an intent is given up only when its transaction is dead at finalized, and the accounts that decide what
comes next are then read at finalized too. A confirmed reading counts only while nothing is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nosana_operator.api import JobReason
from nosana_operator.market.facts import (
    GONE,
    NO_RESULT,
    QUEUED,
    STOPPED,
    UNKNOWN,
    Fate,
    JobFacts,
    Known,
    Outcome,
    PaymentFacts,
    RunFacts,
)
from nosana_operator.transactions import SettlementKind


@dataclass(frozen=True, slots=True)
class Accounts:
    """Run and job at one commitment.

    `run` is GONE when another run stands at its address. At finalized, GONE means gone for good: what is not
    there *yet* is UNKNOWN.
    """

    run: Known[RunFacts] = UNKNOWN
    job: Known[JobFacts] = UNKNOWN


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything that `next_step` reads."""

    key: str
    run_time: int
    """When the run began, which tells its payment from that of another run of the same job."""
    confirmed: Accounts
    finalized: Accounts
    """Both are UNKNOWN until something calls for reading them."""
    intent: SettlementKind | None
    outcome: Outcome
    """Of the intent's transaction."""
    digest: bytes | None
    """The result's 32 bytes; None when nothing will be published (quit)."""
    give_up_unpaid: bool = False
    """The NosanaMarket wants this run given back with `quit`."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign this kind now, make the intent durable, then send it."""

    kind: SettlementKind
    failures: int = 0
    """How many transactions of this settlement have failed so far."""
    make_payer_account: bool = False
    """`finish` first creates the NOS account of the job's payer."""


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the durable bytes again: harmless, because the chain takes a signature once."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before the chain answers, or finalizes."""


@dataclass(frozen=True, slots=True)
class ReadFinalized:
    """The decision needs run and job at finalized."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Finality shows that nothing more will come of this run: record that."""

    reason: str
    message: str
    paid: JobFacts | None = None
    """The job account with the amounts, when the run was paid to us and the account still shows it."""


Step = Sign | Resend | Wait | ReadFinalized | Settled


_SEE_EARNINGS: Final = "`nosana-operator earnings` shows what was paid"
_REASONS: Final = {"finish": JobReason.FINISHED, "complete": JobReason.COMPLETED, "quit": JobReason.QUIT}


def _effect(now: Situation, at: Accounts) -> Settled | None:
    """The settlement that the intent brought about, when the accounts show it."""
    run, job = at.run, at.job
    if run is UNKNOWN or job is UNKNOWN or isinstance(run, RunFacts):
        return None
    if now.intent == "quit":
        if job is GONE or (isinstance(job, JobFacts) and job.state == STOPPED):
            return Settled(JobReason.QUIT, "the run was given back; nothing was paid")
        return None
    if isinstance(job, JobFacts) and job.tells_of(now.key, now.run_time) and job.ipfs_result == now.digest:
        if now.intent == "finish":
            return Settled(JobReason.FINISHED, "finished on chain; the host is paid", paid=job)
        return Settled(JobReason.COMPLETED, "result posted; the owner's end had paid the host", paid=job)
    return None


def _by_others(now: Situation, at: Accounts) -> Settled:
    """The settlement of a run that somebody else closed."""
    job = at.job
    if isinstance(job, JobFacts) and job.tells_of(now.key, now.run_time):
        if job.ipfs_result == NO_RESULT:
            message = "the owner's end had paid the host; no result was published"
        else:
            message = "the run had been paid and a result posted before"
        return Settled(JobReason.COMPLETED, message, paid=job)
    if job is GONE:
        # Anybody may `clean` a job that is done, so this run may have been paid before.
        return Settled(JobReason.ENDED_BY_OTHERS, f"the job account is closed; {_SEE_EARNINGS}")
    if isinstance(job, JobFacts) and job.state == QUEUED:
        message = "the run was closed without a settlement (quit_admin, or a fork took it back)"
    else:
        message = "others ended the job"
    return Settled(JobReason.ENDED_BY_OTHERS, f"{message}; there is nothing to settle")


def _moved_on(now: Situation) -> bool:
    """Whether the job account at finalized is newer than the intent's effect: no lagging node shows it."""
    job = now.finalized.job
    if not isinstance(job, JobFacts):
        return job is GONE
    before_complete = (
        now.intent == "complete" and job.tells_of(now.key, now.run_time) and job.ipfs_result == NO_RESULT
    )
    return job.state != QUEUED and not before_complete


def _next_kind(now: Situation, at: Accounts) -> SettlementKind | None:
    """The transaction that the accounts call for; None: no transaction would have an effect."""
    if isinstance(at.run, RunFacts):
        return "quit" if now.give_up_unpaid else "finish"
    job = at.job
    if isinstance(job, JobFacts) and job.tells_of(now.key, now.run_time) and job.ipfs_result == NO_RESULT:
        return None if now.digest is None else "complete"
    return None


def next_step(now: Situation) -> Step:
    """The one thing to do next for a job that has ended."""
    confirmed, finalized = now.confirmed, now.finalized
    unread = finalized.run is UNKNOWN or finalized.job is UNKNOWN
    if now.intent is not None:
        if not unread and (done := _effect(now, finalized)):
            return done
        if now.outcome.fate is Fate.FINALIZED and not unread and finalized.run is GONE and _moved_on(now):
            # It succeeded, but the job account has changed since (cleaned, or finished again after a claim).
            message = f"{now.intent} is finalized; the job account has changed since"
            if now.intent != "quit":
                message = f"{message}; {_SEE_EARNINGS}"
            return Settled(_REASONS[now.intent], message)
        if not now.outcome.dead:
            # A node without history cannot say what became of it; the accounts can.
            if unread and now.outcome.fate in (Fate.FINALIZED, Fate.UNKNOWN):
                return ReadFinalized()
            if now.outcome.fate is Fate.PENDING:
                return Resend()
            return Wait()
        # The transaction is dead at finalized; only the accounts at finalized decide what comes next.
        if unread:
            return ReadFinalized()
    if confirmed.run is UNKNOWN or confirmed.job is UNKNOWN:
        return Wait()
    # Once finality shows the run closed, a confirmed reading that still has it comes from a lagging node.
    at = finalized if not unread and finalized.run is GONE else confirmed
    kind = _next_kind(now, at)
    if kind is not None:
        return Sign(kind)
    if unread:
        return ReadFinalized()
    if isinstance(finalized.run, RunFacts):
        # Confirmed and finalized disagree; finality decides.
        return Wait()
    return _by_others(now, finalized)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a `finish` cannot succeed now, in a sentence that names who can change that."""

    message: str
    by_poster: bool = False
    """The poster closed their own NOS account, and the pay is less than creating it again costs."""


def obstacle(job: JobFacts, seconds: float, payment: PaymentFacts) -> Obstacle | None:
    """Why a run of that job cannot be finished `seconds` after its start; None if it can.

    `finish` moves the whole deposit, price * time-out: the pay to the host, the rest to the payer, each to an
    account that has to exist. Whoever creates a NOS account pays a rent that its owner collects by closing
    it: created again for each job, it would cost more than a short one pays.
    """
    if payment.payout_problem is not None:
        return Obstacle(f"spec.payoutAddress: {payment.payout_problem}; set it to the address of a wallet")
    if not payment.market or payment.vault is None:
        return Obstacle(f"the market {job.market} was closed, and its vault with what this job deposited")
    deposit = job.price * max(job.timeout, 0)
    if payment.vault < deposit:
        return Obstacle(
            f"the market's vault holds {payment.vault} of the {deposit} NOS base units that this job deposited; "
            "the settlement continues when the vault has them"
        )
    pay = job.price * int(max(0, min(seconds, job.timeout)))
    if job.price and not payment.payer_account and pay < payment.account_rent:
        return Obstacle(
            f"the payer {job.payer} has closed their NOS account, and creating it again is worth "
            f"{payment.account_rent} NOS base units, more than the pay of {pay}; the settlement continues when "
            "they have one",
            by_poster=True,
        )
    return None
