"""What is known of one NosanaMarket when it is decided about: the frozen input of `decide`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from nosana_operator.api import MarketRef, NosanaMarketSpec, Run, Transaction
from nosana_operator.inventory import RefusingNode, Share
from nosana_operator.market.facts import Absent, Funds, JobFacts, Known, MarketFacts, Outcome, RunFacts


@dataclass(frozen=True, slots=True)
class WalletView:
    """One wallet of the market as gathered."""

    secret: str
    """Its name in the status: `name/key` of the Secret."""
    address: str | None
    problem: tuple[str, str] | None
    """Reason and message why it gets no new work. If its address is known, its runs are served all the same."""
    funds: Funds | Absent
    runs: Known[tuple[RunFacts, ...]]
    """All runs that the wallet holds, of any market."""
    unread: bool = False
    """Its Secret could not be read, so neither its address nor what it holds is known."""
    foreign: str | None = None
    """Signature of a transaction of this wallet that is not ours, and that no admin has acknowledged."""
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
class JobObject:
    """The NosanaJob that has the name of a run's, whoever created it."""

    namespace: str
    name: str
    uid: str
    run: Run | None
    """Its `spec.run`; None: absent or unreadable."""
    verified: bool = False
    refused: bool = False
    """It differs from what the chain dictates."""
    settled: bool = False
    deleting: bool = False
    stopping: bool = False
    """It has been asked to stop, or has ended."""


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
    """Why `spec.payoutAddress` cannot receive the payout."""
    market: Known[MarketFacts]
    wallets: tuple[WalletView, ...]
    job_accounts: dict[str, Known[JobFacts]]
    """The job accounts of the wallets' runs, by address."""
    job_objects: Mapping[str, JobObject]
    """By run: the object with the name of its NosanaJob."""
    runs_with_pods: frozenset[str]
    """Runs whose NosanaJob needs its slot whatever the chain says, because its pods have not ended."""
    job_uids: frozenset[str]
    """uids of the NosanaJobs of `runs_with_pods`: their pods are this market's own."""
    unsettled: frozenset[str]
    """Runs whose NosanaJob is not settled yet."""
    served: frozenset[tuple[str, str]]
    """(market, wallet): what some NosanaMarket on this network serves, or may, while a Secret is unread."""
    job_refusal: str | None
    """Why the API server refused a NosanaJob of this market a moment ago."""
    pending: tuple[PendingTransaction, ...]
    leave_until: datetime | None
    """`nosana-operator leave` asked the market to stay out of the queue until then."""
    unexplained: frozenset[str]
    """Wallets that left the queue for a reason not known yet: each may have been given a job."""
    held_back: frozenset[str]
    """Wallets that get no slot now: evicted a moment ago, with a transaction under way in another market, or with
    a history that is not examined to its end."""
    queued_by_us: frozenset[str]
    """Wallets that are in the queue because of a `work` of ours."""
    fee_cap: int
    """Lamports that one transaction may cost."""
    now: datetime
    share: Share
    """What the nodes hold for this market beside the others."""
    polls_pending: bool = False
    """This process has not polled yet what the wallets have, or the payout address."""
    recent_runs: frozenset[str] = frozenset()
    """Runs that have just begun: a node may lag and not have their job account yet."""
    refusing_nodes: tuple[RefusingNode, ...] = ()
    """Nodes for this market's jobs whose kubelet refused several pods in a row, and that are held back."""


def runs_of(wallets: Iterable[WalletView]) -> list[RunFacts]:
    """All runs that the wallets are known to hold."""
    return [run for wallet in wallets if not isinstance(wallet.runs, Absent) for run in wallet.runs]
