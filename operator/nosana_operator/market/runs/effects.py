"""What a decision about a run asks for, as values; `settle.py` carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from nosana_operator.market.runs.on_chain import ReadFinalized, Resend, Settled, Sign
from nosana_operator.market.runs.status import JobRecord
from nosana_operator.market.runs.view import Attempts

# -- facts that the decision needs


@dataclass(frozen=True, slots=True)
class ReadResult:
    """Read the stored result, and whether we hold the key that signs for the run."""

    substitute: bool = False
    """The result was unreadable for long enough: take the substitute."""


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """Make the bytes to publish and compute their CID."""


@dataclass(frozen=True, slots=True)
class ReadOutcome:
    """Ask the chain what became of the intent's transaction."""


@dataclass(frozen=True, slots=True)
class ReadConfirmed:
    """Read run and job at confirmed."""


@dataclass(frozen=True, slots=True)
class ReadPayment:
    """Read the accounts that a `finish` pays from and to."""


@dataclass(frozen=True, slots=True)
class ReadRunAtEnd:
    """Find out whether the abandoned run may still be open on chain."""


@dataclass(frozen=True, slots=True)
class ReadWatchedRun:
    """Find out whether the watcher still lists the closed run."""


# -- the poster, the pin service and the gateways


@dataclass(frozen=True, slots=True)
class RequestDefinition:
    """Request the confidential definition from the poster and store it in its Secret."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Post the confidential result to the poster's endpoint."""

    limit: timedelta
    posted_before: bool
    """An earlier try may have delivered it."""


@dataclass(frozen=True, slots=True)
class Pin:
    """Pin the result; a pin that takes longer than a moment goes on beside the reconciles."""

    limit: timedelta


@dataclass(frozen=True, slots=True)
class Publish:
    """Pin the result if necessary, then ask the gateways for it."""


# -- the object


@dataclass(frozen=True, slots=True)
class DropResult:
    """Forget the cached bytes of the result: nothing needs them any more."""


@dataclass(frozen=True, slots=True)
class Release:
    """Remove our finalizer from a NosanaJob that somebody has deleted."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the NosanaJob: it was kept long enough."""


Effect = (
    Sign
    | Resend
    | Settled
    | ReadResult
    | PrepareResult
    | ReadOutcome
    | ReadConfirmed
    | ReadFinalized
    | ReadPayment
    | ReadRunAtEnd
    | ReadWatchedRun
    | RequestDefinition
    | Deliver
    | Pin
    | Publish
    | DropResult
    | Release
    | Delete
)


@dataclass(frozen=True, slots=True)
class Announce:
    """An Event of the NosanaJob."""

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The one thing to do next.

    The record is written before the effect is carried out. `Sign` and `Settled` are the exceptions: they add
    to the record, and write it themselves. An effect that brings a fact is followed by another decision.
    """

    record: JobRecord
    attempts: Attempts
    effect: Effect | None = None
    again_in: float | None = None
    """Seconds until the next reconcile, once the effect is carried out; None: nothing is left to do."""
    events: tuple[Announce, ...] = ()
