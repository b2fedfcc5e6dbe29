"""Whether a NosanaJob is what the chain and its NosanaMarket require: anybody may have created it.

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
"""Fields that may differ from what the market host wrote: an admin may stop a job."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok=None`: not known yet, read again."""

    ok: bool | None
    reason: str
    message: str


def misplaced(namespace: str, name: str, run: Run, market: NosanaMarketSpec) -> str | None:
    """Why a NosanaJob is not where the market host creates a run's, or None.

    An object elsewhere is a copy, whatever it contains: the run would be served twice.
    """
    if namespace != market.job_namespace:
        return f"jobs of this market are created in namespace {market.job_namespace}, not in {namespace}"
    expected = run_job_name(run.run)
    if name != expected:
        return f"the NosanaJob of run {run.run} is named {expected}, not {name}"
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

    `run` is the account at the run's address; `definition_cid` is what the job account's hash names.
    `keys_complete=False`: not all Secrets could be read, so a key that is missing in `keys` may still be ours.
    """
    if spec_run.node not in keys:
        if not keys_complete:
            message = f"no Secret that could be read holds the key {spec_run.node}; it is looked for again"
            return Verdict(None, JobReason.WALLET_MISSING, message)
        message = (
            f"the run belongs to {spec_run.node}, no wallet of the NosanaMarket; this job will not be run"
        )
        return Verdict(False, JobReason.RUN_MISMATCH, message)
    for account, address, facts in (("run", spec_run.run, run), ("job", spec_run.job, job)):
        if facts is GONE:
            message = f"there is no {account} {address} on chain; this job will not be run"
            return Verdict(False, JobReason.RUN_NOT_FOUND, message)
    if not isinstance(run, RunFacts) or not isinstance(job, JobFacts) or definition_cid is None:
        return Verdict(None, JobReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    if job.market != market.address:
        message = f"the job's market is {job.market}, not the NosanaMarket's; this job will not be run"
        return Verdict(False, JobReason.RUN_MISMATCH, message)
    difference = _difference(spec, job_spec(run, job, spec_run.market_ref, market, definition_cid))
    if difference is not None:
        return Verdict(False, JobReason.RUN_MISMATCH, f"{difference}; this job will not be run")
    return Verdict(True, JobReason.VERIFIED, "run, key and definition are as on chain")


def _difference(spec: NosanaJobSpec, expected: NosanaJobSpec) -> str | None:
    """A clause that names the first field which differs, or None."""
    for name in Run.model_fields:
        has, needs = getattr(spec.run, name), getattr(expected.run, name)
        if has != needs:
            return f"spec.run.{name} is {has} but the chain says {needs}"
    for name, info in NosanaJobSpec.model_fields.items():
        if name not in _OTHERS_MAY_SET and getattr(spec, name) != getattr(expected, name):
            return f"spec.{info.alias or name} is not what chain and NosanaMarket require"
    return None
