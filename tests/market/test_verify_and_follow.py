"""A NosanaJob's run against the chain, and what the job controller is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nosana_operator.api import JobReason, MarketRef, Run, RunStatus
from nosana_operator.market.facts import (
    DONE,
    GONE,
    NO_RESULT,
    QUEUED,
    STOPPED,
    UNKNOWN,
    Absent,
    JobFacts,
    RunFacts,
)
from nosana_operator.market.follow import expires_at, follow
from nosana_operator.market.verify import run_spec, verify

A = {
    name: letter * 32 for name, letter in zip(("run", "job", "node", "payer", "market", "project"), "234567", strict=True)
}
RUN = RunFacts(address=A["run"], job=A["job"], node=A["node"], payer=A["payer"], time=1_750_000_000)
JOB = JobFacts(
    address=A["job"],
    ipfs_job=b"d" * 32,
    ipfs_result=NO_RESULT,
    market=A["market"],
    node="1" * 32,
    payer=A["payer"],
    project=A["project"],
    price=7,
    state=QUEUED,
    time_start=0,
    time_end=0,
    timeout=600,
)
REF = MarketRef(namespace="nosana-system", name="m")
SPEC = run_spec(RUN, JOB, REF)
CID = "Qm" + "a" * 44


def check(
    spec: Run = SPEC,
    *,
    run: RunFacts | Absent = RUN,
    job: JobFacts | Absent = JOB,
    cid: str = CID,
    keys: tuple[str, ...] = (A["node"],),
    address: str = A["market"],
) -> tuple[bool | None, str, str]:
    verdict = verify(
        spec, {"ipfs": cid}, definition_cid=CID, market_address=address, keys=keys, run=run, job=job
    )
    return verdict.ok, verdict.reason, verdict.message


def test_a_true_run_is_verified() -> None:
    assert check()[:2] == (True, JobReason.VERIFIED)


@pytest.mark.parametrize("field", [f for f in Run.model_fields if f != "market_ref"])
def test_every_field_is_compared(field: str) -> None:
    value = {"price": 8, "started_at": "2020-01-01T00:00:00Z"}.get(field, "9" * 32)
    ok, reason, message = check(SPEC.model_copy(update={field: value}))
    assert (ok, reason) == (False, JobReason.RUN_MISMATCH)
    assert field in message


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"run": GONE}, JobReason.RUN_NOT_FOUND),
        ({"job": GONE}, JobReason.RUN_NOT_FOUND),
        ({"keys": ()}, JobReason.RUN_MISMATCH),
        ({"address": "8" * 32}, JobReason.RUN_MISMATCH),
        ({"cid": "Qm" + "b" * 44}, JobReason.RUN_MISMATCH),
    ],
)
def test_what_is_not_as_on_chain_is_refused(kwargs: dict[str, object], reason: str) -> None:
    assert check(**kwargs)[:2] == (False, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize("kwargs", [{"run": UNKNOWN}, {"run": RUN, "job": UNKNOWN}])
def test_silence_is_neither_yes_nor_no(kwargs: dict[str, object]) -> None:
    assert check(**kwargs)[0] is None  # type: ignore[arg-type]


def ours(moment: float) -> datetime:
    return datetime.fromtimestamp(moment + 5, UTC)


def followed(run: RunFacts | Absent, job: JobFacts | Absent, before: RunStatus | None = None, settling: bool = False) -> RunStatus | None:  # fmt: skip
    return follow(
        before, key=A["node"], run_time=RUN.time, run=run, job=job, settling=settling, our_time=ours
    )


def test_expiry_is_by_our_clock_and_moves_with_an_extension() -> None:
    first = followed(RUN, JOB)
    assert first is not None
    assert first.expires_at == "2025-06-15T15:16:45.000000Z"
    later = followed(RUN, replace(JOB, timeout=1200), first)
    assert later is not None
    assert later.expires_at == "2025-06-15T15:26:45.000000Z"
    assert followed(RUN, JOB, first) is first, "the same time-out is not written again"


ENDED_ROWS = [
    ("owner ended", GONE, replace(JOB, state=DONE, node=A["node"]), False, "OwnerEnded"),
    ("quit by the admin", GONE, JOB, False, "RunGone"),
    ("stopped", GONE, replace(JOB, state=STOPPED), False, "RunGone"),
    ("cleaned", GONE, GONE, False, "RunGone"),
    ("closed by our own settlement", GONE, replace(JOB, state=DONE, node=A["node"]), True, None),
    ("job silent", GONE, UNKNOWN, False, None),
    ("run silent", UNKNOWN, JOB, False, None),
    ("open", RUN, JOB, False, None),
]


@pytest.mark.parametrize(
    ("run", "job", "settling", "ended"), [r[1:] for r in ENDED_ROWS], ids=[r[0] for r in ENDED_ROWS]
)
def test_who_closed_the_run(
    run: RunFacts | Absent, job: JobFacts | Absent, settling: bool, ended: str | None
) -> None:
    status = followed(run, job, settling=settling)
    assert (status.ended if status else None) == ended


@pytest.mark.parametrize("timeout", [-1, -(2**63), 2**63 - 1, 0])
def test_no_time_out_of_a_poster_breaks_the_clock(timeout: int) -> None:
    moment = expires_at(RUN.time, timeout, ours)
    assert moment >= datetime.fromtimestamp(RUN.time, UTC)
