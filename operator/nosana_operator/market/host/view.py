"""What is known of one NosanaMarket when it is decided about: the frozen input of `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from nosana_operator.api import MarketRef, NosanaMarketSpec, Run, Transaction
from nosana_operator.inventory import Share
from nosana_operator.market.facts import Absent, Funds, JobFacts, Known, MarketFacts, Outcome, RunFacts


@dataclass(frozen=True, slots=True)
class WalletView:
    """One key of the market as gathered."""

    secret: str
    address: str | None
    problem: tuple[str, str] | None
    """Reason and message why it gets no new work. With an address its runs are served all the same."""
    funds: Funds | Absent
    runs: Known[tuple[RunFacts, ...]]
    """All runs that the key holds, of whatever market."""
    unread: bool = False
    """Its Secret could not be read: which key it is, and what that holds, is not known."""
    foreign: str | None = None
    """Signature of a transaction of this key that is not ours, and that no admin has acknowledged."""
    lost: bool = False
    """Its address is known from the status only: nothing can be signed with it."""


@dataclass(frozen=True, slots=True)
class PendingTransaction:
    """A `work` or `stop` that was signed, and what became of it.

    `seen`: runs and queue were read after its confirmation, so its effect is in this view.
    """

    transaction: Transaction
    outcome: Outcome
    seen: bool


@dataclass(frozen=True, slots=True)
class KnownJob:
    """The object that has the name of a run's NosanaJob, whoever made it."""

    namespace: str
    name: str
    uid: str
    run: Run | None
    verified: bool = False
    refused: bool = False
    """It is not what the chain dictates."""
    settled: bool = False
    deleting: bool = False
    stopping: bool = False
    """It was asked to stop, or has ended."""


@dataclass(frozen=True, slots=True)
class MarketView:
    """Everything that the decision reads."""

    ref: MarketRef
    spec: NosanaMarketSpec
    deleting: bool
    network_known: bool
    networks: tuple[str, ...]
    address_problem: str | None
    payout_problem: str | None
    """Why `spec.payoutAddress` is none to pay to."""
    market: Known[MarketFacts]
    wallets: tuple[WalletView, ...]
    jobs: dict[str, Known[JobFacts]]
    """The job accounts of the wallets' runs."""
    known: Mapping[str, KnownJob]
    """By run: what stands under the name of its NosanaJob."""
    occupied: frozenset[str]
    """Runs whose NosanaJob needs its slot, whatever the chain says: its pods have not ended."""
    job_uids: frozenset[str]
    """uids of the NosanaJobs of the occupied runs: their pods are this market's own."""
    unsettled: frozenset[str]
    """Runs whose NosanaJob is not settled yet."""
    served: frozenset[tuple[str, str]]
    """(market, key): what some NosanaMarket on this network serves, or may: not all Secrets may have been read."""
    refusal: str | None
    """Why the API server does not take NosanaJobs of this market, when it just said so."""
    pending: tuple[PendingTransaction, ...]
    leaving: datetime | None
    """The market is left until then: what `nosana-operator leave` asks for."""
    missing: frozenset[str]
    """Keys that have left the queue, it is not known yet by what: a job may have been given to them."""
    held_back: frozenset[str]
    """Keys that were put out of the queue a moment ago, have a transaction under way in another market, or have
    a history of which something is still to be judged."""
    ours: frozenset[str]
    """Keys that stand because of a `work` of ours."""
    fee_cap: int
    """Lamports that one transaction may cost."""
    now: datetime
    share: Share
    """What the nodes hold for this market beside the others."""
    early: bool = False
    """What the keys have, or who is to be paid, was not asked for yet since the start: it soon will be."""
    young: frozenset[str] = frozenset()
    """Runs that have just begun: that a node does not have their job account means nothing yet."""
