"""What the chain dictates for a NosanaJob (its whole spec), and whether a run is the one that it names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nosana_operator.api import (
    JOB_KIND,
    ApiError,
    DefinitionFrom,
    MarketRef,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    parse_part,
    timestamp,
)
from nosana_operator.market.facts import JobFacts, RunFacts


def market_ref(body: Mapping[str, Any]) -> MarketRef:
    """The reference to a NosanaMarket, as `spec.run.marketRef` has it."""
    return MarketRef(namespace=body["metadata"]["namespace"], name=body["metadata"]["name"])


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


def job_spec(
    run: RunFacts, job: JobFacts, market_ref: MarketRef, market: NosanaMarketSpec, definition_cid: str
) -> NosanaJobSpec:
    """The whole spec of a run's NosanaJob: what the market host creates and verifies."""
    return NosanaJobSpec(
        definition_from=DefinitionFrom(ipfs=definition_cid),
        gpu=market.gpu,
        resources=market.slots.resources,
        exposure=market.exposure,
        runtime_class_name=market.runtime_class_name,
        on_no_capacity=market.on_no_capacity,
        run=run_spec(run, job, market_ref),
    )


def run_of_unreadable(body: Mapping[str, Any]) -> Run | None:
    """The run of a NosanaJob whose spec this version cannot read; None: the spec does not identify one.

    A newer version may have written fields that this one does not have. Those of the run that this one has are
    enough to follow and to settle it.
    """
    raw = (body.get("spec") or {}).get("run")
    if not isinstance(raw, Mapping):
        return None
    names = {info.alias or name for name, info in Run.model_fields.items()}
    try:
        return parse_part(Run, JOB_KIND, "spec.run", {key: raw[key] for key in raw if key in names})
    except ApiError:
        return None


def is_run(spec: Run, run: RunFacts) -> bool:
    """Whether that account is the run that `spec.run` names.

    The address alone does not prove it: once the run is closed, the holder of its key can create another one there.
    """
    return (
        run.address == spec.run
        and run.job == spec.job
        and run.node == spec.node
        and run.payer == spec.run_payer
        and timestamp(datetime.fromtimestamp(run.time, UTC)) == spec.started_at
    )
