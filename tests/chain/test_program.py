"""Our instructions against the recorded ones: data, accounts, order, signers, writable."""

from __future__ import annotations

from typing import Any

import pytest
from pyheck import snake
from solders.instruction import Instruction

from nosana_operator.chain import (
    DEVNET,
    MAINNET,
    SYSTEM,
    InvalidAddress,
    InvalidInstruction,
    Job,
    JobsProgram,
    Run,
)
from nosana_operator.chain.program import idl
from support.recordings import steps

PROGRAM = JobsProgram(DEVNET)


def rebuilt(name: str, role: dict[str, str], data: bytes) -> Instruction:
    """The recorded instruction, made by our builder from the roles that a caller knows."""

    def number(at: int, size: int = 8, signed: bool = True) -> int:
        return int.from_bytes(data[at : at + size], "little", signed=signed)

    match name:
        case "open":
            return PROGRAM.open(
                market=role["market"],
                authority=role["authority"],
                price=number(16),
                job_timeout=number(24),
                job_expiration=number(8),
                job_type=data[32],
                xnos_minimum=number(33, 16, signed=False),
                access_key=role["access_key"],
            )
        case "update":
            return PROGRAM.update(
                market=role["market"],
                authority=role["authority"],
                price=number(16),
                job_timeout=number(41),
                job_expiration=number(8),
                job_type=data[24],
                xnos_minimum=number(25, 16, signed=False),
                access_key=role["access_key"],
            )
        case "list":
            return PROGRAM.list(
                job=role["job"],
                run=role["run"],
                market=role["market"],
                payer=role["payer"],
                project=role["authority"],
                ipfs_job=data[8:40],
                timeout=number(40),
            )
        case "delist":
            return PROGRAM.delist(
                job=role["job"], market=role["market"], payer=role["payer"], project=role["authority"]
            )
        case "extend":
            return PROGRAM.extend(
                job=role["job"],
                market=role["market"],
                payer=role["payer"],
                project=role["authority"],
                timeout=number(8),
            )
        case "work":
            return PROGRAM.work(
                run=role["run"],
                market=role["market"],
                node=role["authority"],
                nft=role["nft"],
                metadata=role["metadata"],
            )
        case "stop":
            return PROGRAM.stop(market=role["market"], node=role["node"], authority=role["authority"])
        case "complete":
            return PROGRAM.complete(job=role["job"], node=role["authority"], ipfs_result=data[8:])
        case "finish":
            return PROGRAM.finish(
                job=role["job"],
                run=role["run"],
                market=role["market"],
                node=role["authority"],
                run_payer=role["payer_run"],
                job_payer=role["payer_job"],
                ipfs_result=data[8:],
                payout=role["user"],
                free=role["deposit"] == role["user"],
            )
        case "quit":
            return PROGRAM.quit(
                job=role["job"], run=role["run"], run_payer=role["payer"], node=role["authority"]
            )
    raise AssertionError(name)


# Steps that succeed, but which our builders make otherwise on purpose.
OTHERWISE = {
    "list/free-any-token-account": "we always give the payer's own NOS account",
    "finish/extra-account-at-the-end": "we send none",
    "work/job-queue-head-of-three": "the payer is another wallet; ours is the host itself",
    "extend/free-any-payer": "we always give the payer's own NOS account",
}


def matches(ours: Instruction, recorded: dict[str, Any]) -> bool:
    return bytes(ours.data).hex() == recorded["data"] and [
        (str(a.pubkey), a.is_signer, a.is_writable) for a in ours.accounts
    ] == [(a["pubkey"], a["isSigner"], a["isWritable"]) for a in recorded["accounts"]]


def succeeding() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, step)
        for name in (
            "open",
            "update",
            "list",
            "delist",
            "extend",
            "work",
            "stop",
            "complete",
            "finish",
            "quit",
        )
        for step in steps(name)
        if step["result"]["ok"]
    ]


@pytest.mark.parametrize(("name", "step"), succeeding(), ids=lambda v: v if isinstance(v, str) else v["name"])
def test_what_the_program_accepted_is_what_we_build(name: str, step: dict[str, Any]) -> None:
    recorded = step["instruction"]
    role = {account["role"]: account["pubkey"] for account in recorded["accounts"]}
    data = bytes.fromhex(recorded["data"])
    ours = rebuilt(name, role, data)
    assert str(ours.program_id) == recorded["programId"]
    assert matches(ours, recorded) == (step["name"] not in OTHERWISE)


@pytest.mark.parametrize("step", [s for s in steps("end") if s["result"]["ok"]], ids=lambda s: s["name"])
def test_end_pays_the_node_that_runs_the_job(step: dict[str, Any]) -> None:
    """The node is no account of the instruction: it stands in the run."""
    recorded = step["instruction"]
    role = {account["role"]: account["pubkey"] for account in recorded["accounts"]}
    run = Run.decode(role["run"], bytes.fromhex(step["pre"][role["run"]]["data"]))
    job = Job.decode(role["job"], bytes.fromhex(step["pre"][role["job"]]["data"]))
    ours = PROGRAM.end(
        job=role["job"],
        market=role["market"],
        run=role["run"],
        node=run.node,
        job_payer=job.payer,
        run_payer=run.payer,
        project=job.project,
    )
    assert matches(ours, recorded)


def test_the_idl_has_all_nineteen_in_wire_order() -> None:
    listed = {snake(ix.name): [snake(a.name) for a in ix.accounts] for ix in idl().instructions}
    assert len(listed) == 19
    for name, roles in listed.items():
        step = next(s for s in steps(name) if s["result"]["ok"])
        assert roles == [account["role"] for account in step["instruction"]["accounts"]][: len(roles)]


# Computed from the real addresses (docs/protocol/jobs-program.md#derived-addresses).
def test_derived_addresses() -> None:
    assert DEVNET.rewards_reflection() == "6tjbAfNHnUusWLZqFznMKyBrjs1ZX92eyKwiUi2Bsg3x"
    assert DEVNET.rewards_vault() == "4wk8dRGWQSCdRzvVJxu1jawHkV9pfzrEfUxYwYfwbXuk"
    assert MAINNET.rewards_vault() == "37xZ4jY3bSMBgxwekwdALRZK1kAUCh7YkkPabA4P2tq8"
    rtx_4090 = "97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf"
    assert MAINNET.market_vault(rtx_4090) == "giLkCXycxMP9u2Z6jBQ7Hr4E7ui7WS49gDka1Yvqymn"


def test_the_default_stake_and_nft_are_the_hosts_own() -> None:
    step = steps("work")[0]
    role = {account["role"]: account["pubkey"] for account in step["instruction"]["accounts"]}
    ours = PROGRAM.work(run=role["run"], market=role["market"], node=role["authority"])
    assert [str(a.pubkey) for a in ours.accounts][3:6] == [role["stake"], role["nft"], SYSTEM]


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(32), b"\1" * 33])
def test_a_result_that_cannot_stand_is_refused_before_it_is_signed(digest: bytes) -> None:
    with pytest.raises(InvalidInstruction, match="ipfs_result"):
        PROGRAM.complete(job=SYSTEM, node=SYSTEM, ipfs_result=digest)


def test_a_number_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidInstruction, match="extend"):
        PROGRAM.extend(job=SYSTEM, market=SYSTEM, payer=SYSTEM, project=SYSTEM, timeout=2**63)


@pytest.mark.parametrize("address", ["", "abc", "0" * 44, SYSTEM + "1" * 20, "é" * 32])
def test_text_that_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidAddress, match="not a Solana address"):
        PROGRAM.stop(market=address, node=SYSTEM)


def test_the_compute_limit_covers_a_full_queue_and_stays_below_the_default() -> None:
    node = "HnLKtnNwF3nLf9Ym3K5ihLrB4urt17pfo5D2oJuBc8zc"
    work = PROGRAM.work(run=SYSTEM, market=SYSTEM, node=node)
    account = PROGRAM.create_nos_account(payer=node, owner=node)
    assert PROGRAM.compute_unit_limit([work]) >= 17_000 + 314 * 131
    assert PROGRAM.compute_unit_limit([account, work]) < 200_000
