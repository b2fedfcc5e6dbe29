"""What a decision about a run reads, as one frozen value.

A fact that costs a request is None until the decision asks for it (`effects.py`), so that no reconcile reads
more than it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from nosana_operator.api import (
    Condition,
    JobCondition,
    NosanaMarketSpec,
    Run,
    condition_is_true,
)
from nosana_operator.market.facts import Absent, Outcome, PaymentFacts
from nosana_operator.market.runs.on_chain import Accounts, Obstacle
from nosana_operator.market.runs.status import JobRecord


@dataclass(frozen=True, slots=True)
class Attempts:
    """What this process has tried so far. Losing it costs only time."""

    obstacle: Obstacle | None = None
    """Why the run could not be paid when that was last read."""
    blocked: int = 0
    """How many reads in a row found an obstacle."""
    read_payment_at: datetime | None = None
    """Before this moment the obstacle is not read again."""
    poster_asked_at: datetime | None = None
    """When the poster of a confidential job was last sent a request."""
    posts: int = 0
    """How often the poster was sent the result."""
    publish_at: datetime | None = None
    """Before this moment the gateways are not asked for the result again."""
    publish_tries: int = 0
    over_since: datetime | None = None
    """Since when this process has seen the run over and its job not ended."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """The job's result was read."""

    key_held: bool = True
    """We hold the key that signs for the run. Only read for a confidential job."""


@dataclass(frozen=True, slots=True)
class UnreadableResult:
    """The API server refuses the result's Secrets."""

    message: str


@dataclass(frozen=True, slots=True)
class PosterReply:
    """How a request to the poster went; no problem: they took or gave what they were asked to."""

    at: datetime
    """When it was over."""
    problem: str | None = None
    refused: bool = False
    """Another try would fail in the same way."""


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """The bytes to publish, by their CID and the 32 bytes that stand for it on chain."""

    cid: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class PinState:
    """`done=None`: the pin is still under way, or waits for others."""

    done: bool | None


@dataclass(frozen=True, slots=True)
class Publication:
    """How an attempt at publishing went."""

    pinned: bool
    published: bool
    lost: bool = False
    """The bytes that were announced are gone."""


@dataclass(frozen=True, slots=True)
class Payment:
    """What a `finish` would find, `seconds` after the run's start."""

    facts: PaymentFacts
    seconds: float


def has_ended(conditions: Sequence[Condition]) -> bool:
    """The job has ended and its result is fixed."""
    return any(condition_is_true(conditions, kind) for kind in (JobCondition.COMPLETE, JobCondition.FAILED))


@dataclass(frozen=True, slots=True)
class RunView:
    """One run at one moment."""

    now: datetime
    run: Run
    run_time: int
    """Unix time of the run's start by the chain's clock."""
    ended_at: datetime
    """By our clock; for an overdue run the moment from which it is settled without its job's end."""
    generation: int
    conditions: Sequence[Condition]
    """Of the NosanaJob, the job controller's included."""
    record: JobRecord
    attempts: Attempts
    market: NosanaMarketSpec | None
    """None: the NosanaMarket is gone, and this process never saw it."""
    confidential: bool = False
    """The definition comes from the poster, and the result goes to them."""
    deleting: bool = False
    abandoned: bool = False
    """An admin gave up the pay of this run by annotation."""
    publishable: bool = True
    """The settings have a way to publish results in the market's network."""
    posters_busy: bool = False
    """As many requests to posters are under way as may be."""
    gateways_busy: bool = False

    result: StoredResult | UnreadableResult | None = None
    reply: PosterReply | None = None
    published: PublishedResult | None = None
    pin: PinState | None = None
    outcome: Outcome | None = None
    refusal: str | None = None
    """The chain's words when it last refused to take the intent's transaction."""
    confirmed: Accounts | None = None
    finalized: Accounts | None = None
    payment: Payment | Absent | None = None
    """UNKNOWN: the chain did not answer."""
    publication: Publication | None = None
    open_at_end: bool | None = None
    """Whether the abandoned run may still be open on chain."""
    watched: bool | None = None
    """Whether the watcher still lists the closed run."""

    @property
    def ended(self) -> bool:
        """The job has ended and its result is fixed."""
        return has_ended(self.conditions)

    @property
    def settled(self) -> bool:
        """Nothing more will come of the run."""
        return condition_is_true(self.record.conditions, JobCondition.SETTLED)
