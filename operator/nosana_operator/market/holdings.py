"""The runs that the keys hold: whose they are, which are still open, and which lack their NosanaJob."""

from __future__ import annotations

from nosana_operator.market.effects import CreateJob, Effect, ReplaceJob
from nosana_operator.market.facts import UNKNOWN, Absent, JobFacts, RunFacts
from nosana_operator.market.verify import run_spec
from nosana_operator.market.view import MarketView


def own_runs(view: MarketView) -> list[RunFacts]:
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


def open_runs(view: MarketView) -> list[RunFacts]:
    """The runs of this market that are not done with: an abandoned one stays open on chain."""
    out = []
    for run in own_runs(view):
        known, job = view.known.get(run.address), view.jobs.get(run.job)
        if (
            known is None
            or not known.settled
            or not isinstance(job, JobFacts)
            or known.run != run_spec(run, job, view.ref)
        ):
            out.append(run)
    return out


def unserved(view: MarketView) -> tuple[tuple[str, str], ...]:
    """(run, market) of runs in markets that no NosanaMarket serves."""
    out = []
    for wallet in view.wallets:
        for run in () if isinstance(wallet.runs, Absent) else wallet.runs:
            job = view.jobs.get(run.job)
            if isinstance(job, JobFacts) and job.market not in view.served:
                out.append((run.address, job.market))
    return tuple(out)


def jobs(view: MarketView) -> list[Effect]:
    """A NosanaJob for each run, made at once: the paid clock runs."""
    out: list[Effect] = []
    for run in own_runs(view):
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
