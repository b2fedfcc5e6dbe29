"""What to do about one NosanaMarket now: a pure function from what was gathered to what is done.

**Slots.** A key takes a slot from the moment its `work` may land: as a transaction under way, then standing,
then as a run. The run's job holds the slot until its pods have ended *and* the run is closed at confirmed,
not until that is finalized: should a fork open the run again, it has only to be finished once more, which
takes no GPU. A run that cannot be finished keeps its slot, so that no unpaid runs pile up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nosana_operator.api import (
    MarketReason,
    MarketRef,
    NosanaMarketSpec,
    Run,
    SlotStatus,
    Transaction,
    WalletStatus,
)
from nosana_operator.market.facts import (
    GONE,
    UNKNOWN,
    Absent,
    Fate,
    Funds,
    JobFacts,
    Known,
    MarketFacts,
    Outcome,
    RunFacts,
)
from nosana_operator.market.verify import run_spec

SOL_RESERVE = 5_000_000
"""Lamports (0.005 SOL) below which a key does not stand: fees, rent of a run (node-behaviour.md 3.2)."""


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


@dataclass(frozen=True, slots=True)
class MarketView:
    """Everything that the decision reads."""

    ref: MarketRef
    spec: NosanaMarketSpec
    deleting: bool
    network_known: bool
    networks: tuple[str, ...]
    address_problem: str | None
    market: Known[MarketFacts]
    wallets: tuple[WalletView, ...]
    jobs: dict[str, Known[JobFacts]]
    """The job accounts of the wallets' runs."""
    known: Mapping[str, KnownJob]
    """By run: what stands under the name of its NosanaJob."""
    occupied: frozenset[str]
    """Runs whose NosanaJob needs its slot, whatever the chain says: its pods have not ended."""
    unsettled: frozenset[str]
    """Runs whose NosanaJob is not settled yet."""
    served: frozenset[str]
    """Market addresses that some NosanaMarket on this network serves."""
    refusal: str | None
    """Why the API server does not take NosanaJobs of this market, when it just said so."""
    pending: tuple[PendingTransaction, ...]
    total: int
    """Slots that the nodes hold for this market, its own jobs' included."""


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


Effect = CreateJob | ReplaceJob | Work | Stop | Resend


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
    """(run, market) of runs that the keys hold in markets which no NosanaMarket serves."""
    released: bool = False
    """Deleted, queues left, runs settled: the finalizer may go."""


def decide(view: MarketView) -> MarketDecision:
    """The one decision of a NosanaMarket."""
    found = _found(view)
    kept, failed, resends = _transactions(view)
    market = view.market if isinstance(view.market, MarketFacts) else None
    wallets = tuple(_wallet(view, wallet, market) for wallet in view.wallets)
    slots = _slots(view, market, kept)
    effects: list[Effect] = [*resends]
    if market is not None and found.status:
        # A key whose last transaction is not accounted for yet gets no other.
        seen = {p.transaction.signature for p in view.pending if p.seen}
        busy = {t.key for t in kept if t.signature not in seen}
        effects = [*_jobs(view), *resends, *_stops(view, slots, market, busy)]
        if not any(isinstance(effect, Stop) for effect in effects):
            effects += _works(view, slots, wallets, busy)
    return MarketDecision(
        ready=_ready(view, found, wallets, slots, market),
        found=found,
        wallets_ready=_wallets_ready(wallets),
        slots=slots,
        wallets=wallets,
        kept=kept,
        failed=failed,
        effects=tuple(effects),
        unserved=_unserved(view),
        released=view.deleting and _empty(view, market, kept),
    )


def _found(view: MarketView) -> Verdict:
    if not view.network_known:
        have = ", ".join(view.networks) or "none"
        return Verdict(
            False,
            MarketReason.NETWORK_UNKNOWN,
            f"spec.network {view.spec.network!r} is not in the operator's settings (it has: {have}); add it "
            "there, or make a NosanaMarket with one of those",
        )
    if view.spec.job_namespace == view.ref.namespace:
        return Verdict(
            False,
            MarketReason.SPEC_INVALID,
            "spec.jobNamespace is the namespace of the wallet Secrets; jobs have to run in another one",
        )
    if view.address_problem is not None:
        return Verdict(
            False,
            MarketReason.MARKET_ADDRESS_INVALID,
            f"spec.address: {view.address_problem.rstrip('.')}; make another NosanaMarket with the right one "
            "(this one cannot be corrected)",
        )
    if view.market is UNKNOWN:
        return Verdict(None, MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet; asked again")
    if view.market is GONE:
        return Verdict(
            False,
            MarketReason.MARKET_NOT_FOUND,
            f"there is no market at {view.spec.address} on network {view.spec.network}; make another "
            "NosanaMarket with the right spec.address and spec.network (these cannot be changed)",
        )
    return Verdict(True, MarketReason.READY, "the market is on chain")


def _transactions(
    view: MarketView,
) -> tuple[tuple[Transaction, ...], tuple[tuple[Transaction, str], ...], list[Resend]]:
    kept: list[Transaction] = []
    failed: list[tuple[Transaction, str]] = []
    resends: list[Resend] = []
    for pending in view.pending:
        fate = pending.outcome.fate
        if fate is Fate.EXPIRED:
            continue
        if fate is Fate.FAILED:
            failed.append((pending.transaction, pending.outcome.error))
            continue
        if fate is Fate.FINALIZED and pending.seen:
            continue
        kept.append(pending.transaction)
        if fate is Fate.PENDING:
            resends.append(Resend(pending.transaction))
    return tuple(kept), tuple(failed), resends


def _open_works(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> int:
    """`work`s that may still give a run or a standing that the view does not count yet."""
    runs = {run.address for run in _own_runs(view)}
    standing = market.standing if market else frozenset()
    settled = {p.transaction.signature for p in view.pending if p.seen}
    return sum(
        1
        for t in kept
        if t.kind == "work" and t.run not in runs and t.key not in standing and t.signature not in settled
    )


def _own_runs(view: MarketView) -> list[RunFacts]:
    """The runs that are not known to be of another market.

    One whose job account could not be read, or was not found, counts: the node that answered may lag, and a
    run too many costs less than a slot given twice.
    """
    out = []
    for wallet in view.wallets:
        for run in () if isinstance(wallet.runs, Absent) else wallet.runs:
            job = view.jobs.get(run.job)
            if not isinstance(job, JobFacts) or job.market == view.spec.address:
                out.append(run)
    return out


def _unserved(view: MarketView) -> tuple[tuple[str, str], ...]:
    out = []
    for wallet in view.wallets:
        for run in () if isinstance(wallet.runs, Absent) else wallet.runs:
            job = view.jobs.get(run.job)
            if isinstance(job, JobFacts) and job.market not in view.served:
                out.append((run.address, job.market))
    return tuple(out)


def _jobs(view: MarketView) -> list[Effect]:
    """A NosanaJob for each run, made at once: the paid clock runs."""
    out: list[Effect] = []
    for run in _own_runs(view):
        job = view.jobs.get(run.job, UNKNOWN)
        if not isinstance(job, JobFacts):
            continue
        known = view.known.get(run.address)
        if known is None:
            out.append(CreateJob(run, job))
        elif known.deleting or (known.run == run_spec(run, job, view.ref) and not known.refused):
            continue
        elif known.settled or not known.verified:
            # A verified one of another run settles first: its run is gone.
            out.append(ReplaceJob(known, run.address))
    return out


def _slots(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> SlotStatus:
    spec = view.spec.slots
    total = view.total if spec.max is None else min(view.total, spec.max)
    running = len({run.address for run in _open_runs(view)} | view.occupied)
    mine = {w.address for w in view.wallets}
    standing = len(market.standing & mine) if market else 0
    taken = running + standing + _open_works(view, market, kept)
    return SlotStatus(
        total=total, free=max(0, total - spec.reserve - taken), standing=standing, running=running
    )


def _open_runs(view: MarketView) -> list[RunFacts]:
    """The runs of this market that are not done with: an abandoned one stays open on chain."""
    out = []
    for run in _own_runs(view):
        known, job = view.known.get(run.address), view.jobs.get(run.job)
        if (
            known is None
            or not known.settled
            or not isinstance(job, JobFacts)
            or known.run != run_spec(run, job, view.ref)
        ):
            out.append(run)
    return out


def _stops(view: MarketView, slots: SlotStatus, market: MarketFacts, busy: set[str]) -> list[Effect]:
    """The keys that leave the queue: all when the market is left, those without a Secret, those too many."""
    standing = {w.address: w for w in view.wallets if w.address in market.standing and w.address not in busy}
    if view.deleting or view.spec.paused:
        return [Stop(address) for address in standing if address]
    lost = [address for address, wallet in standing.items() if address and wallet.problem is not None]
    over = slots.running + slots.standing - (slots.total - view.spec.slots.reserve)
    rest = [address for address in standing if address and address not in lost]
    return [Stop(address) for address in [*lost, *rest[: max(0, over - len(lost))]]]


def _works(
    view: MarketView, slots: SlotStatus, wallets: tuple[WalletStatus, ...], busy: set[str]
) -> list[Effect]:
    """The keys that offer a slot; none while it is not known what the keys hold, or jobs cannot be made."""
    unsure = any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets)
    if view.deleting or view.spec.paused or unsure or view.refusal is not None:
        return []
    willing = [w.address for w in wallets if w.state == "Ready" and w.address and w.address not in busy]
    return [Work(address) for address in willing[: slots.free]]


def _wallet(view: MarketView, wallet: WalletView, market: MarketFacts | None) -> WalletStatus:
    funds = wallet.funds if isinstance(wallet.funds, Funds) else None
    base = WalletStatus(
        secret=wallet.secret,
        address=wallet.address,
        lamports=funds.lamports if funds else None,
        nos=funds.nos if funds else None,
        xnos=str(funds.xnos) if funds and funds.xnos is not None else None,
    )

    def is_(
        state: Literal["Ready", "Standing", "Blocked", "Unknown"], reason: str, message: str
    ) -> WalletStatus:
        return base.model_copy(update={"state": state, "reason": str(reason), "message": message})

    if wallet.unread:
        said = wallet.problem[1] if wallet.problem else "its Secret could not be read yet"
        return is_("Unknown", MarketReason.SECRET_MISSING, said)
    if wallet.problem is not None:
        return is_("Blocked", *wallet.problem)
    if market is None or wallet.runs is UNKNOWN or funds is None:
        return is_("Unknown", MarketReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    if wallet.address in market.standing:
        return is_("Standing", MarketReason.STANDING, "stands in the market's queue")
    if market.node_access_key is not None:
        if funds.access_keys is None:
            return is_("Unknown", MarketReason.CHAIN_UNAVAILABLE, "its access keys have not been read yet")
        if market.node_access_key not in funds.access_keys:
            return is_(
                "Blocked",
                MarketReason.ACCESS_KEY_MISSING,
                f"holds no token of the verified collection {market.node_access_key}, which the market wants; "
                "have one issued to this key, or choose an open market",
            )
    if funds.lamports < SOL_RESERVE:
        return is_(
            "Blocked",
            MarketReason.SOL_TOO_LOW,
            f"has {funds.lamports / 1e9:.6f} SOL; send it at least {SOL_RESERVE / 1e9} SOL for fees and rent",
        )
    if funds.xnos is None:
        return is_(
            "Blocked",
            MarketReason.STAKE_MISSING,
            "has no stake account; stake NOS with this key (an amount of 0 is enough for a market "
            "without a minimum)",
        )
    if funds.xnos < market.xnos_minimum:
        return is_(
            "Blocked",
            MarketReason.STAKE_TOO_LOW,
            f"has {funds.xnos / 1e6:.6f} xNOS staked, the market wants {market.xnos_minimum / 1e6:.6f}; "
            "top up the stake or extend its duration",
        )
    return is_("Ready", MarketReason.READY, "may stand")


def _wallets_ready(wallets: tuple[WalletStatus, ...]) -> Verdict:
    blocked = [w for w in wallets if w.state == "Blocked"]
    if blocked:
        first = blocked[0]
        more = f" (and {len(blocked) - 1} more)" if len(blocked) > 1 else ""
        who = first.address or first.secret
        return Verdict(False, first.reason or "", f"wallet {who}: {first.message}{more}")
    unknown = next((w for w in wallets if w.state == "Unknown"), None)
    if unknown is not None:
        return Verdict(None, unknown.reason or "", f"wallet {unknown.secret}: {unknown.message}")
    return Verdict(True, MarketReason.READY, "every wallet may stand")


def _ready(
    view: MarketView,
    found: Verdict,
    wallets: tuple[WalletStatus, ...],
    slots: SlotStatus,
    market: MarketFacts | None,
) -> Verdict:
    if view.deleting:
        return Verdict(False, MarketReason.DELETING, "leaves the queue and settles its runs before it goes")
    if found.status is not True:
        return found
    if view.refusal is not None:
        return Verdict(False, MarketReason.JOB_REFUSED, view.refusal)
    usable = [w for w in wallets if w.state in ("Ready", "Standing")]
    if not usable:
        blocked = _wallets_ready(wallets)
        return Verdict(blocked.status, blocked.reason, blocked.message)
    if view.spec.paused:
        return Verdict(True, MarketReason.PAUSED, "paused: out of the queue; running jobs go on")
    if slots.total == 0:
        return Verdict(
            False,
            MarketReason.NO_FREE_SLOT,
            f"no node has room for a slot of {view.spec.gpu.count} {view.spec.gpu.resource_name} with the "
            "other resources that it needs; check spec.gpu, spec.slots (max, resources) and the nodes",
        )
    if slots.standing:
        return Verdict(True, MarketReason.STANDING, f"{slots.standing} of {slots.total} slots offered")
    if slots.free == 0:
        return Verdict(True, MarketReason.NO_FREE_SLOT, f"all {slots.total} slots are taken")
    return Verdict(True, MarketReason.READY, f"{slots.free} of {slots.total} slots free")


def _empty(view: MarketView, market: MarketFacts | None, kept: tuple[Transaction, ...]) -> bool:
    """Nothing on chain or in the cluster still needs this NosanaMarket; unknown is not nothing."""
    if kept or view.unsettled:
        return False
    if not view.network_known or view.address_problem is not None or view.market is GONE:
        return True
    if market is None:
        return False
    mine = {w.address for w in view.wallets}
    if any(w.unread or (w.address and w.runs is UNKNOWN) for w in view.wallets):
        return False
    return not (market.standing & mine) and not _open_runs(view)
