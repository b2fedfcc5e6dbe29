"""How an ended job is settled on chain: pure decisions over intents and accounts.

(docs/architecture.md#why-it-cannot-pay-twice, docs/architecture.md#what-ends-a-job)

The outcome of a transaction is read from accounts, never from a reply. Another one is signed only when the
last one can have no effect any more. `finish` closes the run exactly once, so it can be paid exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

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

Kind = Literal["finish", "complete", "quit"]


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
    """All that the decision reads."""

    key: str
    run_time: int
    """When the run began: tells its payment in the job account from that of another run of the same job."""
    confirmed: Accounts
    finalized: Accounts
    """Both UNKNOWN where nothing called for reading them."""
    intent: Kind | None
    outcome: Outcome
    """Of the intent's transaction."""
    digest: bytes | None
    """The result's 32 bytes, None when nothing is to be published (quit)."""
    give_up_unpaid: bool = False
    """The definition is unusable and the NosanaMarket says Quit."""


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign this kind now, make it durable, send it."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the durable bytes again: harmless, the chain takes them once."""


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing to do but to look again."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ReadFinalized:
    """What is to be decided needs the accounts at finalized."""


@dataclass(frozen=True, slots=True)
class Settled:
    """At finalized: nothing more will come of this run."""

    reason: str
    message: str
    paid: JobFacts | None = None
    """The job account that tells the amounts, when the run was paid to us and it still does."""


Step = Sign | Resend | Look | ReadFinalized | Settled


_SEE_EARNINGS: Final = "`nosana-operator earnings` tells what was paid"
_REASONS: Final = {"finish": JobReason.FINISHED, "complete": JobReason.COMPLETED, "quit": JobReason.QUIT}


def _effect(now: Situation, at: Accounts) -> Settled | None:
    """Whether the accounts show that the intent has had its effect."""
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
    """The run is gone and nothing of ours did it."""
    job = at.job
    if isinstance(job, JobFacts) and job.tells_of(now.key, now.run_time):
        if job.ipfs_result == NO_RESULT:
            said = "the owner's end had paid the host; nothing was published"
        else:
            said = "the run was paid and a result posted before"
        return Settled(JobReason.COMPLETED, said, paid=job)
    if job is GONE:
        # By `clean`, which anybody may call once the job is done: it may have paid before.
        said = f"the job account is closed; {_SEE_EARNINGS}"
        return Settled(JobReason.ENDED_BY_OTHERS, said)
    if isinstance(job, JobFacts) and job.state == QUEUED:
        said = "the run was closed without a settlement (quit_admin, or a fork took it back)"
    else:
        said = "the job was ended by others"
    return Settled(JobReason.ENDED_BY_OTHERS, f"{said}; there is nothing to settle")


def _moved_on(now: Situation) -> bool:
    """Whether the job account at finalized is newer than the intent's effect, not from a node that lags."""
    job = now.finalized.job
    if not isinstance(job, JobFacts):
        return job is GONE
    before_complete = (
        now.intent == "complete" and job.tells_of(now.key, now.run_time) and job.ipfs_result == NO_RESULT
    )
    return job.state != QUEUED and not before_complete


def _wanted(now: Situation, at: Accounts) -> Kind | None:
    """The transaction that the accounts call for; None: no transaction can do anything."""
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
            # It succeeded, but the job account has moved on since (cleaned, or finished again by a claim).
            said = f"{now.intent} is finalized; the job account has changed since"
            return Settled(_REASONS[now.intent], said if now.intent == "quit" else f"{said}; {_SEE_EARNINGS}")
        if not now.outcome.dead:
            # A node that keeps no history does not tell what became of it; the accounts do.
            if unread and now.outcome.fate in (Fate.FINALIZED, Fate.UNKNOWN):
                return ReadFinalized()
            if now.outcome.fate is Fate.PENDING:
                return Resend()
            if now.outcome.fate is Fate.UNKNOWN:
                return Look(
                    JobReason.CHAIN_UNAVAILABLE, "the chain does not answer; the outcome is looked up"
                )
            return Look(JobReason.SETTLING, f"{now.intent} is {now.outcome.fate.value}; waiting for finality")
        # The transaction is dead at finalized; only the accounts at finalized may say what comes next.
        if unread:
            return ReadFinalized()
    if confirmed.run is UNKNOWN or confirmed.job is UNKNOWN:
        return Look(JobReason.CHAIN_UNAVAILABLE, "the chain does not answer; run and job are looked up again")
    # Where finality says that the run is closed, a confirmed reading that has it comes from a node that lags.
    at = finalized if not unread and finalized.run is GONE else confirmed
    kind = _wanted(now, at)
    if kind is not None:
        return Sign(kind)
    if unread:
        return ReadFinalized()
    if isinstance(finalized.run, RunFacts):
        # Confirmed and finalized disagree: finality will tell.
        return Look(JobReason.SETTLING, "waiting for the chain to finalize")
    return _by_others(now, finalized)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a `finish` cannot go through now, in a sentence that names who can change it."""

    message: str
    by_poster: bool = False
    """The poster took his own NOS account away, and the pay is less than making it again costs."""


def obstacle(job: JobFacts, seconds: float, payment: PaymentFacts) -> Obstacle | None:
    """What keeps a run of that job, `seconds` after its start, from being finished; None: nothing.

    `finish` moves the whole deposit, price * time-out: the pay to the host, the rest to the payer, each to an
    account that has to be there. Whoever makes a NOS account pays a rent that its owner takes when he closes
    it: made again for each job, it would cost more than a short one pays.
    """
    if payment.payout_problem is not None:
        return Obstacle(f"spec.payoutAddress: {payment.payout_problem}; set it to the address of a wallet")
    if not payment.market or payment.vault is None:
        return Obstacle(f"the market {job.market} was closed, and its vault with what this job deposited")
    deposit = job.price * max(job.timeout, 0)
    if payment.vault < deposit:
        return Obstacle(
            f"the market's vault holds {payment.vault} of the {deposit} NOS base units that this job deposited; "
            "it goes on when the vault has them"
        )
    pay = job.price * int(max(0, min(seconds, job.timeout)))
    if job.price and not payment.payer_account and pay < payment.account_rent:
        return Obstacle(
            f"the payer {job.payer} has closed his NOS account, and making it again is worth "
            f"{payment.account_rent} NOS base units, more than the pay of {pay}; it goes on when he has one",
            by_poster=True,
        )
    return None
