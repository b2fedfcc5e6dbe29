"""Jobs to build for."""

from __future__ import annotations

from typing import Any

from nosana_operator.api import Exposure, Gpu, MarketRef, NosanaJobSpec, Resources, Run
from nosana_operator.definition import parse
from nosana_operator.workload import JobContext

UID = "3c9a3a52-7a4e-4c1c-9d53-0d0c1f7b6a11"
RUN = Run(
    market_ref=MarketRef(namespace="nosana-system", name="lab"),
    market="97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf",
    job="3EwUexRdXedDk2EL72py5FQd9fG2aVR9trD3EqEbGCDu",
    run="8Vr7oqCPNcbiKFFq9bqf6xQPPGVNGXSBq3nnR6T3kfSH",
    node="7rFPFnxjXHC2sfDy3qrDa9pEb4j49oivMuV7e8sYDPmB",
    project="FEEw3nDocYSyrLT4HPjibjYuaNekakWNmasNvEx3nHKi",
    payer="FEEw3nDocYSyrLT4HPjibjYuaNekakWNmasNvEx3nHKi",
    run_payer="7rFPFnxjXHC2sfDy3qrDa9pEb4j49oivMuV7e8sYDPmB",
    price=115,
    started_at="2026-01-02T03:04:05Z",
)


def run_op(id: str, args: dict[str, Any], **execution: Any) -> dict[str, Any]:
    body = {"type": "container/run", "id": id, "args": args}
    return body | ({"execution": execution} if execution else {})


def op(id: str = "x", *, group: str | None = None, image: str = "ubuntu", **args: Any) -> dict[str, Any]:
    execution = {"group": group} if group else {}
    return run_op(id, {"image": image} | args, **execution)


def context(
    *ops: dict[str, Any],
    name: str = "job",
    defaults: dict[str, Any] | None = None,
    domain: str | None = None,
    run: Run | None = None,
    gpu: Gpu | None = None,
    resources: Resources | None = None,
    top: dict[str, Any] | None = None,
) -> JobContext:
    definition: dict[str, Any] = {"version": "0.1", "type": "container", "ops": list(ops)} | (top or {})
    if defaults:
        definition["global"] = defaults
    return JobContext(
        name=name,
        namespace="jobs",
        uid=UID,
        spec=NosanaJobSpec(
            definition=definition,
            gpu=gpu or Gpu(),
            resources=resources or Resources(),
            exposure=Exposure(domain=domain),
            run=run,
        ),
        definition=parse(definition),
        cluster="here",
    )
