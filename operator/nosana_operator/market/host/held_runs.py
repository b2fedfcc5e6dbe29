"""The runs that the keys hold: whose they are, which are still open, and which lack their NosanaJob."""

from __future__ import annotations

from nosana_operator.market.facts import GONE, UNKNOWN, Absent, JobFacts, RunFacts
from nosana_operator.market.host.effects import CreateJob, Effect, ReplaceJob
from nosana_operator.market.host.view import KnownJob, MarketView
from nosana_operator.market.job_spec import is_run, run_spec


def own_runs(view: MarketView) -> list[RunFacts]:
    """The runs that are not known to be of another market, or of none.

    One whose job account could not be read, or was not found yet, counts: the node that answered may lag, and
    a run too many costs less than a slot given twice. Without its job account a run can never be closed: it
    counts where it is served, until that is settled or given up.
    """
    out = []
    for run in _runs(view):
        job = view.jobs.get(run.job)
        if isinstance(job, JobFacts):
            ours = job.market == view.spec.address
        elif job is GONE and run.address not in view.young:
            known = _served_by(view, run)
            ours = (
                known is not None
                and known.run is not None
                and known.run.market_ref == view.ref
                and not known.settled
            )
        else:
            ours = True
        if ours:
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
    """(run, what is to be said of it) of runs that nobody serves."""
    out = []
    for run in _runs(view):
        job = view.jobs.get(run.job)
        if isinstance(job, JobFacts) and (job.market, run.node) not in view.served:
            said = (
                f"is of market {job.market}, which no NosanaMarket serves with the key {run.node}; give one for "
                "it this key"
            )
            out.append((run.address, said))
        elif job is GONE and run.address not in view.young and _served_by(view, run) is None:
            said = f"is not served: its job account {run.job} is closed, and no host can close such a run"
            out.append((run.address, said))
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


def _runs(view: MarketView) -> list[RunFacts]:
    return [run for one in view.wallets if not isinstance(one.runs, Absent) for run in one.runs]


def _served_by(view: MarketView, run: RunFacts) -> KnownJob | None:
    """The NosanaJob that the run was served by, of whatever NosanaMarket."""
    known = view.known.get(run.address)
    if known is None or known.run is None or not known.verified or not is_run(known.run, run):
        return None
    return known
