"""The runs that the wallets hold: whose they are, which are still open, and which lack their NosanaJob."""

from __future__ import annotations

from nosana_operator.market.facts import GONE, UNKNOWN, JobFacts, RunFacts
from nosana_operator.market.host.effects import CreateJob, Effect, ReplaceJob
from nosana_operator.market.host.view import JobObject, MarketView, runs_of
from nosana_operator.market.job_spec import is_run, run_spec


def own_runs(view: MarketView) -> list[RunFacts]:
    """The runs that are not known to belong to another market, or to none.

    A run counts while its job account could not be read or was not found yet: the node that answered may lag,
    and one run too many costs less than a slot given twice. A run without a job account can never be closed; it
    counts as long as this NosanaMarket serves it, until that is settled or given up.
    """
    out = []
    for run in runs_of(view.wallets):
        job = view.job_accounts.get(run.job)
        if isinstance(job, JobFacts):
            ours = job.market == view.spec.address
        elif job is GONE and run.address not in view.recent_runs:
            serving = _served_by(view, run)
            ours = (
                serving is not None
                and serving.run is not None
                and serving.run.market_ref == view.ref
                and not serving.settled
            )
        else:
            ours = True
        if ours:
            out.append(run)
    return out


def open_runs(view: MarketView) -> list[RunFacts]:
    """The runs of this market that are not settled; an abandoned run is settled here but open on chain."""
    out = []
    for run in own_runs(view):
        found, job = view.job_objects.get(run.address), view.job_accounts.get(run.job)
        if (
            found is None
            or not found.settled
            or not isinstance(job, JobFacts)
            or found.run != run_spec(run, job, view.ref)
        ):
            out.append(run)
    return out


def unserved(view: MarketView) -> tuple[tuple[str, str], ...]:
    """(run, message) of runs that nobody serves."""
    out = []
    for run in runs_of(view.wallets):
        job = view.job_accounts.get(run.job)
        if isinstance(job, JobFacts) and (job.market, run.node) not in view.served:
            message = (
                f"belongs to market {job.market}, which no NosanaMarket serves with the wallet {run.node}; give "
                "this wallet to a NosanaMarket of that market"
            )
            out.append((run.address, message))
        elif job is GONE and run.address not in view.recent_runs and _served_by(view, run) is None:
            message = f"is not served: its job account {run.job} is closed, and no host can close such a run"
            out.append((run.address, message))
    return tuple(out)


def job_effects(view: MarketView) -> list[Effect]:
    """A NosanaJob for each run, created at once: the paid clock runs."""
    out: list[Effect] = []
    for run in own_runs(view):
        job = view.job_accounts.get(run.job, UNKNOWN)
        if not isinstance(job, JobFacts):
            continue
        found = view.job_objects.get(run.address)
        if found is None:
            out.append(CreateJob(run, job))
        elif found.deleting or (found.run == run_spec(run, job, view.ref) and not found.refused):
            continue
        elif found.settled or not found.verified:
            # A verified NosanaJob of another run is settled first: its run is gone.
            out.append(ReplaceJob(found, run.address))
    return out


def _served_by(view: MarketView, run: RunFacts) -> JobObject | None:
    """The NosanaJob that served the run, of any NosanaMarket."""
    found = view.job_objects.get(run.address)
    if found is None or found.run is None or not found.verified or not is_run(found.run, run):
        return None
    return found
