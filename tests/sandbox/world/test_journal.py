"""What a job's accounts and transactions are told as."""

from __future__ import annotations

from typing import Any

import pytest
from solders.pubkey import Pubkey

from nosana_operator.content import cid_from_digest
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED, STATE_STOPPED, Job, Run
from nosana_sandbox.world.journal import Totals, view_of

VAULT, PAYER, HOST, MARKET, JOB, RUN = (Pubkey.new_unique() for _ in range(6))
DEFINITION, RESULT = b"d" * 32, b"r" * 32


def told(instruction: str, *moves: tuple[Pubkey, int, int], err: Any = None) -> dict[str, Any]:
    """A getTransaction answer in which token accounts (their owners' keys stand for them) change."""

    def balances(which: int) -> list[dict[str, Any]]:
        return [
            {"accountIndex": i, "owner": str(move[0]), "uiTokenAmount": {"amount": str(move[which])}}
            for i, move in enumerate(moves)
        ]

    return {
        "slot": 9,
        "blockTime": 1_000,
        "transaction": {
            "signatures": [f"signature of {instruction}"],
            "message": {"accountKeys": [str(move[0]) for move in moves]},
        },
        "meta": {
            "err": err,
            "preTokenBalances": balances(1),
            "postTokenBalances": balances(2),
            "logMessages": [
                f"Program {JOBS_PROGRAM} invoke [1]",
                f"Program log: Instruction: {instruction}",
                "Program TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA invoke [2]",
                "Program log: Instruction: Transfer",
            ],
        },
    }


def job(state: int = STATE_QUEUED, **fields: Any) -> Job:
    return Job(
        ipfs_job=DEFINITION,
        market=MARKET,
        payer=PAYER,
        project=PAYER,
        price=10,
        timeout=60,
        state=state,
        **fields,
    )


LIST = told("List", (PAYER, 5_000, 4_400), (VAULT, 0, 600))
FINISH = told("Finish", (VAULT, 600, 0), (HOST, 0, 250), (PAYER, 4_400, 4_750))


def test_a_finished_job() -> None:
    done = job(STATE_DONE, node=HOST, ipfs_result=RESULT, time_start=100, time_end=125)
    view = view_of(JOB, done, {}, [LIST, FINISH], VAULT)
    assert (view.state, view.seconds, view.node) == ("Done", 25, str(HOST))
    assert view.totals == Totals(deposited=600, earned=250, refunded=350)
    assert view.definition_cid == cid_from_digest(DEFINITION)
    assert view.result_cid == cid_from_digest(RESULT)
    assert [payment.instructions for payment in view.payments] == [("List",), ("Finish",)]


def test_a_job_paid_twice_shows_it() -> None:
    done = job(STATE_DONE, node=HOST, time_start=100, time_end=125)
    twice = [LIST, FINISH, told("Finish", (VAULT, 600, 0), (HOST, 250, 500), (PAYER, 4_750, 5_100))]
    assert view_of(JOB, done, {}, twice, VAULT).totals == Totals(deposited=600, earned=500, refunded=700)


def test_failed_transactions_moved_nothing() -> None:
    failed = told("Finish", (VAULT, 600, 600), err={"InstructionError": [0, {"Custom": 6006}]})
    view = view_of(JOB, job(), {}, [LIST, failed], VAULT)
    assert len(view.payments) == 1
    assert view.totals.earned == 0


@pytest.mark.parametrize(
    ("state", "has_run", "expected"),
    [
        (STATE_QUEUED, False, "Queued"),
        (STATE_QUEUED, True, "Running"),
        (STATE_STOPPED, False, "Stopped"),
        # A claimed job keeps its state (docs/protocol/jobs-program.md#claim).
        (STATE_STOPPED, True, "Stopped"),
        (STATE_DONE, False, "Done"),
    ],
)
def test_running_is_a_queued_job_with_a_run(state: int, has_run: bool, expected: str) -> None:
    runs = {RUN: Run(job=JOB, node=HOST, payer=PAYER, time=100)} if has_run else {}
    view = view_of(JOB, job(state), runs, [], VAULT)
    assert view.state == expected
    assert (view.run is not None) == has_run
    assert view.node == (str(HOST) if has_run else None)


def test_json_is_camel_case_with_cids_spelled_out() -> None:
    body = view_of(JOB, job(), {}, [], VAULT).to_json()
    assert {"definitionCID", "resultCID", "timeStart", "timeEnd"} <= set(body)
    assert not any("_" in key for key in body)
