"""What is decided about one NosanaMarket: what it is to say, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

from nosana_operator.api import SlotStatus, Transaction, WalletStatus
from nosana_operator.market.facts import JobFacts, RunFacts
from nosana_operator.market.host.view import KnownJob


@dataclass(frozen=True, slots=True)
class CreateJob:
    """A run without a NosanaJob: make it at once; the paid clock runs."""

    run: RunFacts
    job: JobFacts


@dataclass(frozen=True, slots=True)
class ReplaceJob:
    """Something else has the name of a run's NosanaJob: it goes, and the next look makes the right one.

    It is a forgery, or what is left of another run at the same address (a fork, or a poster who used the
    run's key again). It has no pods: it was never verified, or is settled.
    """

    job: KnownJob
    run: str


@dataclass(frozen=True, slots=True)
class Work:
    """Stand in the queue, or take the job at its head."""

    address: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the queue."""

    address: str


@dataclass(frozen=True, slots=True)
class Resend:
    """Send the durable bytes of a pending transaction again."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class StopJob:
    """The deadline of a drain has come: the job is stopped, and settled as it then is."""

    job: KnownJob


Effect = CreateJob | ReplaceJob | StopJob | Work | Stop | Resend


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition's value."""

    status: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class MarketDecision:
    """What the NosanaMarket is to say, and what is to be done."""

    ready: Verdict
    found: Verdict
    wallets_ready: Verdict
    slots: SlotStatus
    wallets: tuple[WalletStatus, ...]
    kept: tuple[Transaction, ...]
    """Pending transactions that stay in the status."""
    failed: tuple[tuple[Transaction, str], ...]
    """Those that ended with an error, with the chain's words: told in an Event."""
    effects: tuple[Effect, ...]
    unserved: tuple[tuple[str, str], ...] = ()
    """(run, what is to be said of it) of runs that the keys hold and nobody serves."""
    released: bool = False
    """Deleted, queues left, runs settled: the finalizer may go."""
