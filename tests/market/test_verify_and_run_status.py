"""A NosanaJob's run against the chain, and what the job controller is told of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nosana_operator.api import (
    JobReason,
    MarketRef,
    NosanaJobSpec,
    NosanaMarketSpec,
    Run,
    RunStatus,
    run_job_name,
)
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
from nosana_operator.market.job_spec import is_run, job_spec, run_spec
from nosana_operator.market.runs.run_status import expires_at, run_status
from nosana_operator.market.runs.verify import misplaced, verify

A = {
    name: letter * 32
    for name, letter in zip(("run", "job", "node", "payer", "market", "project"), "234567", strict=True)
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
MARKET = NosanaMarketSpec.model_validate(
    {
        "address": A["market"],
        "network": "localnet",
        "jobNamespace": "jobs",
        "wallets": [{"secretRef": {"name": "w"}}],
        "gpu": {"count": 2},
        "slots": {"resources": {"cpu": "4"}},
        "exposure": {"domain": "example.com"},
    }
)
WHOLE = job_spec(RUN, JOB, REF, MARKET, CID)


def check(
    spec: NosanaJobSpec = WHOLE,
    *,
    run: RunFacts | Absent = RUN,
    job: JobFacts | Absent = JOB,
    keys: tuple[str, ...] = (A["node"],),
    keys_complete: bool = True,
    market: NosanaMarketSpec = MARKET,
) -> tuple[bool | None, str, str]:
    assert spec.run is not None
    verdict = verify(
        spec,
        spec.run,
        market,
        definition_cid=CID,
        keys=keys,
        keys_complete=keys_complete,
        run=run,
        job=job,
    )
    return verdict.ok, verdict.reason, verdict.message


def test_a_true_run_is_verified() -> None:
    assert check()[:2] == (True, JobReason.VERIFIED)


def test_a_stop_may_be_asked_for_before_verification() -> None:
    assert check(WHOLE.model_copy(update={"stop": True}))[0] is True


@pytest.mark.parametrize("field", [f for f in Run.model_fields if f not in ("market_ref", "node")])
def test_every_field_of_the_run_is_compared(field: str) -> None:
    value = {"price": 8, "started_at": "2020-01-01T00:00:00Z"}.get(field, "9" * 32)
    ok, reason, message = check(WHOLE.model_copy(update={"run": SPEC.model_copy(update={field: value})}))
    assert (ok, reason) == (False, JobReason.RUN_MISMATCH)
    assert field in message


@pytest.mark.parametrize("field", [f for f in NosanaJobSpec.model_fields if f not in ("run", "stop")])
def test_every_field_of_the_spec_is_compared(field: str) -> None:
    other = NosanaJobSpec.model_validate(
        {
            "definition": {"version": "0.1"},
            "definitionFrom": {"ipfs": "Qm" + "b" * 44},
            "timeout": 5,
            "gpu": {"count": 8},
            "resources": {"cpu": "64"},
            "runtimeClassName": "privileged",
            "exposure": {"domain": "evil.example"},
            "nodeLossPolicy": "Fail",
            "suspend": True,
            "onNoCapacity": "Wait",
        }
    )
    forged = WHOLE.model_copy(update={field: getattr(other, field)})
    ok, reason, message = check(forged)
    assert (ok, reason) == (False, JobReason.RUN_MISMATCH)
    assert field.split("_")[0] in message


@pytest.mark.parametrize(
    ("kwargs", "ok", "reason"),
    [
        ({"run": GONE}, False, JobReason.RUN_NOT_FOUND),
        ({"job": GONE}, False, JobReason.RUN_NOT_FOUND),
        ({"keys": ()}, False, JobReason.RUN_MISMATCH),
        ({"keys": (), "keys_complete": False}, None, JobReason.WALLET_MISSING),
        ({"market": MARKET.model_copy(update={"address": "8" * 32})}, False, JobReason.RUN_MISMATCH),
        ({"run": replace(RUN, time=RUN.time + 1)}, False, JobReason.RUN_MISMATCH),
    ],
)
def test_what_is_not_as_on_chain_is_refused(kwargs: dict[str, object], ok: bool | None, reason: str) -> None:
    assert check(**kwargs)[:2] == (ok, reason)  # type: ignore[arg-type]


def test_a_copy_elsewhere_is_misplaced() -> None:
    name = run_job_name(SPEC.run)
    assert misplaced("jobs", name, SPEC, MARKET) is None
    assert "not in elsewhere" in str(misplaced("elsewhere", name, SPEC, MARKET))
    assert name in str(misplaced("jobs", "copy", SPEC, MARKET))


@pytest.mark.parametrize(
    "other",
    [
        replace(RUN, time=RUN.time + 1),
        replace(RUN, job="9" * 32),
        replace(RUN, node="9" * 32),
        replace(RUN, payer="9" * 32),
    ],
)
def test_another_run_at_the_same_address_is_another_run(other: RunFacts) -> None:
    assert is_run(SPEC, RUN)
    assert not is_run(SPEC, other)


@pytest.mark.parametrize("kwargs", [{"run": UNKNOWN}, {"run": RUN, "job": UNKNOWN}])
def test_silence_is_neither_yes_nor_no(kwargs: dict[str, object]) -> None:
    assert check(**kwargs)[0] is None  # type: ignore[arg-type]


def followed(run: RunFacts | Absent, job: JobFacts | Absent, before: RunStatus | None = None, young: bool = False, offset: float = 5) -> RunStatus | None:  # fmt: skip
    return run_status(
        before,
        key=A["node"],
        run_time=RUN.time,
        run=run,
        job=job,
        young=young,
        our_time=lambda moment: datetime.fromtimestamp(moment + offset, UTC),
    )


def test_expiry_is_by_our_clock_and_moves_with_an_extension() -> None:
    first = followed(RUN, JOB)
    assert first is not None
    assert first.expires_at == "2025-06-15T15:16:45.000000Z"
    later = followed(RUN, replace(JOB, timeout=1200), first)
    assert later is not None
    assert later.expires_at == "2025-06-15T15:26:45.000000Z"
    assert followed(RUN, JOB, first) == first, "the same time-out is not written again"
    assert followed(RUN, JOB, first, offset=7) == first, "nor for an offset that wobbles"
    jumped = followed(RUN, JOB, first, offset=-3600)
    assert jumped is not None
    assert jumped.expires_at == "2025-06-15T14:16:40.000000Z", "the chain's clock was moved"


DONE_BY_US = replace(JOB, state=DONE, node=A["node"], time_start=RUN.time)
ENDED_ROWS = [
    ("owner ended", GONE, DONE_BY_US, False, "OwnerEnded"),
    ("owner ended at once", GONE, DONE_BY_US, True, "OwnerEnded"),
    (
        "another run of the job was ended",
        GONE,
        replace(DONE_BY_US, time_start=RUN.time - 1),
        False,
        "RunGone",
    ),
    ("quit by the admin", GONE, JOB, False, "RunGone"),
    ("stopped", GONE, replace(JOB, state=STOPPED), False, "RunGone"),
    ("cleaned", GONE, GONE, False, "RunGone"),
    ("a node that lags has nothing yet", GONE, GONE, True, None),
    ("a node that lags has the job only", GONE, JOB, True, None),
    ("job silent", GONE, UNKNOWN, False, None),
    ("run silent", UNKNOWN, JOB, False, None),
    ("open", RUN, JOB, False, None),
]


@pytest.mark.parametrize(
    ("run", "job", "young", "ended"), [r[1:] for r in ENDED_ROWS], ids=[r[0] for r in ENDED_ROWS]
)
def test_who_closed_the_run(
    run: RunFacts | Absent, job: JobFacts | Absent, young: bool, ended: str | None
) -> None:
    status = followed(run, job, young=young)
    assert (status.ended if status else None) == ended


_LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("offset", [-100_000.0, 0.0, 100_000.0])
@pytest.mark.parametrize(
    "timeout", [-1, -(2**63), 2**63 - 1, 0, _LAST - RUN.time, _LAST - RUN.time - 1, 10**11]
)
def test_no_time_out_of_a_poster_breaks_the_clock(timeout: int, offset: float) -> None:
    moment = expires_at(RUN.time, timeout, lambda at: datetime.fromtimestamp(at + offset, UTC))
    assert moment >= datetime.fromtimestamp(RUN.time + min(offset, 0), UTC)
