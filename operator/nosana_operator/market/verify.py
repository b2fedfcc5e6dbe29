"""Is a NosanaJob's `spec.run` what the chain says? Anybody may have made the object (DESIGN 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nosana_operator.api import JobReason, MarketRef, Run, timestamp
from nosana_operator.market.facts import GONE, JobFacts, Known, RunFacts


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok=None`: not known yet, ask again."""

    ok: bool | None
    reason: str
    message: str


def run_spec(run: RunFacts, job: JobFacts, market_ref: MarketRef) -> Run:
    """`spec.run` as the chain's accounts dictate it."""
    return Run(
        market_ref=market_ref,
        market=job.market,
        job=job.address,
        run=run.address,
        node=run.node,
        project=job.project,
        payer=job.payer,
        run_payer=run.payer,
        price=job.price,
        started_at=timestamp(datetime.fromtimestamp(run.time, UTC)),
    )


def verify(
    spec: Run,
    definition_from: Mapping[str, Any],
    *,
    definition_cid: str | None,
    market_address: str,
    keys: Collection[str],
    run: Known[RunFacts],
    job: Known[JobFacts],
) -> Verdict:
    """Compare every field with the accounts; `definition_cid` is what the job account's hash names."""
    if run is GONE:
        return Verdict(
            False, JobReason.RUN_NOT_FOUND, f"there is no run {spec.run} on chain; this job will not be run"
        )
    if not isinstance(run, RunFacts) or not isinstance(job, JobFacts):
        if job is GONE:
            return Verdict(
                False,
                JobReason.RUN_NOT_FOUND,
                f"there is no job {spec.job} on chain; this job will not be run",
            )
        return Verdict(None, JobReason.CHAIN_UNAVAILABLE, "the chain has not answered yet")
    expected = run_spec(run, job, spec.market_ref)
    for name in Run.model_fields:
        if getattr(spec, name) != getattr(expected, name):
            return Verdict(
                False,
                JobReason.RUN_MISMATCH,
                f"spec.run.{name} is {getattr(spec, name)} but the chain says {getattr(expected, name)}; "
                "this job will not be run",
            )
    if run.job != job.address or job.market != market_address:
        return Verdict(
            False,
            JobReason.RUN_MISMATCH,
            f"the job's market is {job.market}, not the NosanaMarket's {market_address}",
        )
    if run.node not in keys:
        return Verdict(
            False, JobReason.RUN_MISMATCH, f"the run belongs to {run.node}, no wallet of the NosanaMarket"
        )
    if definition_from.get("ipfs") != definition_cid:
        return Verdict(
            False, JobReason.RUN_MISMATCH, f"spec.definitionFrom.ipfs has to be {definition_cid}, as on chain"
        )
    return Verdict(True, JobReason.VERIFIED, "run, key and definition are as on chain")
