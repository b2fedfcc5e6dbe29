"""Account layouts against the recordings, and the struct readers against the IDL's coder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anchorpy.coder.accounts import AccountsCoder
from multiformats import multibase

from nosana_operator.chain import (
    DEVNET,
    SYSTEM,
    AccountMalformed,
    Job,
    JobState,
    Market,
    Run,
    Stake,
    TokenAccount,
)
from nosana_operator.chain.accounts import (
    JOB_DISCRIMINATOR,
    MARKET_DISCRIMINATOR,
    RUN_DISCRIMINATOR,
    RUN_DISCRIMINATOR_BASE58,
    RUN_NODE_OFFSET,
    STAKE_DISCRIMINATOR,
    decode_clock,
)
from nosana_operator.chain.program import idl
from support.recordings import data_of, instructions, steps

CODER = AccountsCoder(idl())


def recorded(owner: str) -> Iterator[tuple[str, bytes]]:
    for instruction in instructions():
        for step in steps(instruction):
            for state in (step["pre"], step["post"]):
                for address, account in state.items():
                    if account is not None and account["owner"] == owner:
                        yield address, data_of(account)


def test_every_recorded_account_reads_as_the_idl_says() -> None:
    seen = {"MarketAccount": 0, "JobAccount": 0, "RunAccount": 0}
    for address, data in recorded(DEVNET.jobs):
        known = CODER.parse(data)
        body = known.data
        seen[known.name] += 1
        if known.name == "MarketAccount":
            market = Market.decode(address, data)
            assert market.authority == str(body.authority)
            assert market.job_expiration == body.job_expiration
            assert (market.price, market.job_timeout) == (body.job_price, body.job_timeout)
            assert (market.job_type, market.xnos_minimum) == (body.job_type, body.node_xnos_minimum)
            assert market.vault == str(body.vault)
            assert (market.node_access_key or SYSTEM) == str(body.node_access_key)
            assert market.queue_type == {0: "Job", 1: "Node", 255: "Empty"}[body.queue_type]
            assert market.queue == tuple(str(key) for key in body.queue)
        elif known.name == "JobAccount":
            job = Job.decode(address, data)
            assert [*job.ipfs_job] == [*body.ipfs_job]
            assert [*job.ipfs_result] == [*body.ipfs_result]
            assert (job.market, job.node, job.payer) == (str(body.market), str(body.node), str(body.payer))
            assert (job.price, job.project, job.state) == (body.price, str(body.project), body.state)
            assert (job.time_start, job.time_end, job.timeout) == (
                body.time_start,
                body.time_end,
                body.timeout,
            )
        else:
            run = Run.decode(address, data)
            assert (run.job, run.node, run.payer) == (str(body.job), str(body.node), str(body.payer))
            assert run.time == body.time
    assert min(seen.values()) > 50, seen


def test_stakes_and_token_accounts_read() -> None:
    stakes = [Stake.decode(a, d) for a, d in recorded(DEVNET.staking) if d[:8] == STAKE_DISCRIMINATOR]
    assert any(stake.amount == 1_000_000 and stake.duration == 1_209_600 for stake in stakes)
    # Two weeks count 1 + 1209600/10512000 times (docs/protocol/jobs-program.md#staking).
    assert {stake.xnos for stake in stakes if stake.amount == 1_000_000} >= {1_000_000}
    vault = DEVNET.market_vault("GSjM63BjGznVHCm2gfHhrsowoCESAwNoVq1ipdEuHbYT")
    before = steps("finish")[0]["pre"][vault]
    account = TokenAccount.decode(vault, data_of(before))
    assert (account.mint, account.owner, account.amount) == (DEVNET.nos_mint, vault, 100_000)


def test_a_finished_job() -> None:
    step = next(s for s in steps("finish") if s["name"] == "finish/before-timeout")
    address = step["instruction"]["accounts"][0]["pubkey"]
    job = Job.decode(address, data_of(step["post"][address]))
    assert job.state is JobState.DONE
    assert job.ipfs_result == bytes.fromhex(step["instruction"]["data"])[8:]
    assert job.time_end - job.time_start == 250


@pytest.mark.parametrize("kind", [Market, Job, Run, Stake])
@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\0" * 300], ids=["empty", "short", "zeros"])
def test_other_data_is_refused(kind: type[Market | Job | Run | Stake], data: bytes) -> None:
    with pytest.raises(AccountMalformed, match="check the address"):
        kind.decode("somewhere", data)


def test_an_old_job_without_timeout_is_refused() -> None:
    with pytest.raises(AccountMalformed):
        Job.decode("old", JOB_DISCRIMINATOR + bytes(224))


@pytest.mark.parametrize(
    ("offset", "value"), [(146, 7), (147, 255)], ids=["unknown type", "longer than the account"]
)
def test_a_queue_that_cannot_be_is_refused(offset: int, value: int) -> None:
    data = bytearray(MARKET_DISCRIMINATOR + bytes(151 - 8))
    data[146] = 255
    Market.decode("m", bytes(data))
    data[offset] = value
    with pytest.raises(AccountMalformed, match="queue"):
        Market.decode("m", bytes(data))


def test_an_unknown_job_state_is_refused() -> None:
    data = bytearray(JOB_DISCRIMINATOR + bytes(232))
    data[208] = 1
    with pytest.raises(AccountMalformed, match="state 1"):
        Job.decode("j", bytes(data))


def test_the_filter_for_a_hosts_runs_points_at_its_key() -> None:
    address, data = next((a, d) for a, d in recorded(DEVNET.jobs) if d[:8] == RUN_DISCRIMINATOR)
    assert multibase.get("base58btc").encode(RUN_DISCRIMINATOR) == "z" + RUN_DISCRIMINATOR_BASE58
    node = multibase.get("base58btc").encode(data[RUN_NODE_OFFSET : RUN_NODE_OFFSET + 32])
    assert node == "z" + Run.decode(address, data).node


def test_the_clock_sysvar() -> None:
    data = b"".join(n.to_bytes(8, "little") for n in (77, 1, 2, 3, 1_750_000_000))
    assert decode_clock(data) == (77, 1_750_000_000)
    with pytest.raises(AccountMalformed):
        decode_clock(data[:-1])
