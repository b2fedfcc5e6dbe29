"""Is a NosanaJob what the chain and its NosanaMarket dictate? Anybody may have made the object.

(docs/architecture.md#one-job-followed)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nosana_operator.api import (
    JobReason,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    run_job_name,
)
from nosana_operator.market.facts import GONE, JobFacts, Known, RunFacts
from nosana_operator.market.job_spec import job_spec

_OTHERS_MAY_SET = frozenset({"stop"})
"""Fields that do not have to be as the market host wrote them: asking for a stop is an admin's right."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok=None`: not known yet, ask again."""

    ok: bool | None
    reason: str
    message: str


def misplaced(namespace: str, name: str, run: Run, market: NosanaMarketSpec) -> str | None:
    """Why a NosanaJob does not stand where the market host puts a run's, or None.

    One elsewhere is a copy, whatever it says: the run would be served twice.
    """
    if namespace != market.job_namespace:
        return f"jobs of this market are made in namespace {market.job_namespace}, not in {namespace}"
    wanted = run_job_name(run.run)
    if name != wanted:
        return f"the NosanaJob of run {run.run} is named {wanted}, not {name}"
    return None


def verify(
    spec: NosanaJobSpec,
    spec_run: Run,
    market: NosanaMarketSpec,
    *,
    definition_cid: str | None,
    keys: Collection[str],
    keys_complete: bool,
    run: Known[RunFacts],
    job: Known[JobFacts],
) -> Verdict:
    """Compare every field with the accounts and the NosanaMarket.

    `run` is whatever stands at the run's address; `definition_cid` is what the job account's hash names.
    `keys_complete=False`: not all Secrets could be read, so that a key that is not here may yet be ours.
    """
    if spec_run.node not in keys:
        if not keys_complete:
            message = f"no Secret that could be read holds the key {spec_run.node}; looked for again"
            return Verdict(None, JobReason.WALLET_MISSING, message)
        message = (
            f"the run belongs to {spec_run.node}, no wallet of the NosanaMarket; this job will not be run"
        )
        return Verdict(False, JobReason.RUN_MISMATCH, message)
    for what, address, found in (("run", spec_run.run, run), ("job", spec_run.job, job)):
        if found is GONE:
            message = f"there is no {what} {address} on chain; this job will not be run"
            return Verdict(False, JobReason.RUN_NOT_FOUND, message)
    if not isinstance(run, RunFacts) or not isinstance(job, JobFacts) or definition_cid is None:
        return Verdict(None, JobReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    if job.market != market.address:
        message = f"the job's market is {job.market}, not the NosanaMarket's; this job will not be run"
        return Verdict(False, JobReason.RUN_MISMATCH, message)
    wrong = _difference(spec, job_spec(run, job, spec_run.market_ref, market, definition_cid))
    if wrong is not None:
        return Verdict(False, JobReason.RUN_MISMATCH, f"{wrong}; this job will not be run")
    return Verdict(True, JobReason.VERIFIED, "run, key and definition are as on chain")


def _difference(spec: NosanaJobSpec, wanted: NosanaJobSpec) -> str | None:
    """The first field that is not as it has to be, as a clause."""
    for name in Run.model_fields:
        has, needs = getattr(spec.run, name), getattr(wanted.run, name)
        if has != needs:
            return f"spec.run.{name} is {has} but the chain says {needs}"
    for name, info in NosanaJobSpec.model_fields.items():
        if name not in _OTHERS_MAY_SET and getattr(spec, name) != getattr(wanted, name):
            return f"spec.{info.alias or name} is not as chain and NosanaMarket dictate it"
    return None
