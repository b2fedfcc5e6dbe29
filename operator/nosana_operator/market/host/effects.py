"""What is decided about one NosanaMarket: its status, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from nosana_operator.api import SlotStatus, Transaction, WalletStatus
from nosana_operator.market.facts import JobFacts, RunFacts
from nosana_operator.market.host.view import JobObject


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create the NosanaJob of a run that has none, at once: the paid clock runs."""

    run: RunFacts
    job: JobFacts


@dataclass(frozen=True, slots=True)
class ReplaceJob:
    """Delete the object that has the name of a run's NosanaJob; the next reconcile creates the right one.

    The object is a forgery, or belongs to another run at the same address (after a fork, or when a poster used
    the run's key again). It has no pods, for it was never verified, or is settled.
    """

    job: JobObject
    run: str


@dataclass(frozen=True, slots=True)
class Work:
    """Sign `work`: join the queue, or take the job at its head."""

    address: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Sign `stop`: leave the queue."""

    address: str


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the durable bytes of a pending transaction again."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class StopJob:
    """Stop a job because a drain's deadline has come; it is settled as it then is."""

    job: JobObject


Effect = CreateJob | ReplaceJob | StopJob | Work | Stop | Resend


@dataclass(frozen=True, slots=True)
class ConditionValue:
    """Status (None: Unknown), reason and message of a condition."""

    status: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class MarketDecision:
    """The NosanaMarket's next status, and what is to be done."""

    ready: ConditionValue
    market_found: ConditionValue
    wallets_ready: ConditionValue
    nodes_available: ConditionValue
    slots: SlotStatus
    wallets: tuple[WalletStatus, ...]
    pending: tuple[Transaction, ...]
    """Transactions that stay in the status."""
    failed: tuple[tuple[Transaction, str], ...]
    """Transactions that ended with an error, with the chain's words, for an Event."""
    effects: tuple[Effect, ...]
    unserved: tuple[tuple[str, str], ...] = ()
    """(run, message) of runs that the wallets hold and nobody serves."""
    release: bool = False
    """The object is deleted, the queue left, every run settled: remove the finalizer."""
