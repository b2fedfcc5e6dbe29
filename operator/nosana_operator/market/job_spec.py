"""What the chain dictates for a NosanaJob (its whole spec), and whether a run is the one that it names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nosana_operator.api import (
    DefinitionFrom,
    MarketRef,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
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
