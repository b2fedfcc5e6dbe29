"""Rules of the Jobs program beyond the recordings: order of checks, money, arithmetic, privileges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_sandbox.program import Account, Custom
from nosana_sandbox.program import addresses as at
from nosana_sandbox.program.layout import QUEUE_EMPTY, QUEUE_JOB, QUEUE_NODE
from support.program_world import RICH, START, World, key, wallet_account, with_meta

ADMIN, POSTER, PAYER, NODE, OTHER = (key(n) for n in ("admin", "poster", "payer", "node-a", "node-b"))
JOB, RUN, RESULT = key("job"), key("run"), b"r" * 32
CONTENT = b"c" * 32
I64_MAX = (1 << 63) - 1


@pytest.fixture
def world() -> World:
    return World()


def running(world: World, timeout: int = 1000, price: int = 100, market: str = "market") -> Any:
    """A job of POSTER, paid by PAYER, that NODE works on since 60 s after START."""
    where = world.open_market(market, price=price)
    world.must("list", CONTENT, timeout, market=where, job=JOB, run=RUN, authority=POSTER, payer=PAYER)
    world.clock += 60
    world.must("work", market=where, run=RUN, authority=NODE)
    return where


def finish(world: World, market: Any, **roles: Any) -> Any:
    given = {"market": market, "job": JOB, "run": RUN, "authority": NODE, "payer_job": PAYER}
    given |= {"user": wallet_account(NODE), "deposit": wallet_account(PAYER)} | roles
    return world.instruction("finish", RESULT, **given)


def test_a_job_travels_the_whole_way(world: World) -> None:
    market = running(world)
    vault = at.market_vault(market, at.NOS_MINT)[0]
    assert world.tokens(vault) == 100_000
    assert world.market(market).queue_type == QUEUE_EMPTY
    assert world.run_account(RUN).time == START + 60
    world.clock += 250
    assert world.run(finish(world, market)).ok
    assert world.tokens(wallet_account(NODE)) == RICH + 25_000
    assert world.tokens(wallet_account(PAYER)) == RICH - 25_000
    assert world.lamports(RUN) == 0
    assert world.lamports(NODE) == RICH
    job = world.job(JOB)
    assert (job.state, job.node, job.ipfs_result, job.time_start, job.time_end) == (
        2,
        NODE,
        RESULT,
        START + 60,
        START + 310,
    )
    again = world.run(finish(world, market))
    assert (again.error, again.log_error) == (
        Custom(3012),
        "Error Code: AccountNotInitialized. Error Number: 3012",
    )


def test_end_then_complete(world: World) -> None:
    market = running(world)
    world.clock += 5000
    roles = {"deposit": wallet_account(PAYER), "user": wallet_account(NODE), "payer": NODE}
    world.must("end", market=market, job=JOB, run=RUN, authority=POSTER, **roles)
    assert world.tokens(wallet_account(NODE)) == RICH + 100_000
    world.must("complete", RESULT, job=JOB, authority=NODE)
    assert world.job(JOB).ipfs_result == RESULT


def test_quit_claim_finish_and_recover(world: World) -> None:
    market = running(world)
    world.must("quit", job=JOB, run=RUN, authority=NODE)
    assert world.job(JOB).state == 3
    second = key("second run")
    world.must("claim", job=JOB, run=second, market=market, authority=OTHER)
    world.must("recover", market=market, job=JOB, authority=POSTER, payer=PAYER, user=wallet_account(PAYER))
    assert world.tokens(wallet_account(PAYER)) == RICH
    assert JOB not in world.accounts
    assert world.run_account(second).node == OTHER


def test_nodes_wait_and_are_matched_in_order(world: World) -> None:
    market = world.open_market()
    for node in (NODE, OTHER):
        world.must("work", market=market, run=key(f"unused {node}"), authority=node)
    assert (world.market(market).queue, world.market(market).queue_type) == ([NODE, OTHER], QUEUE_NODE)
    world.must("stop", market=market, node=NODE, authority=ADMIN)
    world.must("list", CONTENT, 10, market=market, job=JOB, run=RUN, authority=POSTER, payer=PAYER)
    assert world.run_account(RUN).node == OTHER
    assert world.run_account(RUN).payer == PAYER
    assert world.market(market).queue_type == QUEUE_EMPTY


def test_assign_takes_the_named_node(world: World) -> None:
    market = world.open_market()
    for node in (NODE, OTHER):
        world.must("work", market=market, run=key(f"unused {node}"), authority=node)
    roles = {"market": market, "job": JOB, "run": RUN, "node": OTHER, "authority": POSTER, "payer": PAYER}
    world.must("assign", CONTENT, 10, **roles)
    assert world.market(market).queue == [NODE]
    assert world.run_account(RUN).node == OTHER


def test_close_gives_tokens_and_rent_away(world: World) -> None:
    market = running(world)
    vault = at.market_vault(market, at.NOS_MINT)[0]
    world.must("close", market=market, authority=ADMIN, user=wallet_account(ADMIN))
    assert world.tokens(wallet_account(ADMIN)) == RICH + 100_000
    assert world.lamports(ADMIN) == RICH
    assert market not in world.accounts
    assert vault not in world.accounts


def test_clean_waits_for_the_expiration(world: World) -> None:
    market = running(world)
    assert world.run(finish(world, market)).ok
    clean = world.instruction("clean", job=JOB, market=market, payer=PAYER, authority=PAYER)
    world.clock += 3600
    assert world.run(clean).error == Custom(6005)
    world.clock += 1
    assert world.run(clean).ok
    assert world.lamports(PAYER) == RICH


# Order of checks


def test_reading_comes_before_creating_before_checking_before_the_handler(world: World) -> None:
    """Every fault is put in at once; taking away the first one shows the next (docs/protocol/jobs-program.md#order-of-checks)."""
    market = world.open_market()
    full = world.accounts[market]
    poor = key("poor")
    world.wallet(poor, tokens=1)
    roles = {"market": market, "job": JOB, "run": RUN, "authority": POSTER, "payer": poor}
    instruction = world.instruction("list", CONTENT, 1000, **roles)
    faulty = with_meta(instruction, "run", is_signer=False)
    faulty = with_meta(faulty, "user", pubkey=at.market_vault(market, at.NOS_MINT)[0])
    faulty = with_meta(faulty, "authority", is_signer=False)
    world.accounts[JOB] = Account(5, at.SYSTEM_PROGRAM, b"in use")

    assert world.run(faulty).error == Custom(3010)
    faulty = with_meta(faulty, "authority", is_signer=True)
    assert world.run(faulty).error == Custom(0)
    del world.accounts[JOB]
    assert world.run(faulty).error == Custom(2040)
    faulty = with_meta(faulty, "user", pubkey=wallet_account(PAYER))
    assert world.run(faulty).log_error == "Error Code: MissingSignature. Error Number: 6003"
    faulty = with_meta(faulty, "run", is_signer=True)
    assert world.run(faulty).log_error == "Error Code: InvalidATA. Error Number: 6011"
    faulty = with_meta(faulty, "user", pubkey=wallet_account(poor))
    failed = world.run(faulty)
    assert (failed.error, failed.log_error) == (Custom(1), None)
    assert world.accounts[market] == full


@pytest.mark.parametrize("role", ["job", "run", "vault", "deposit", "user", "payer_run", "payer_job"])
def test_finish_refuses_read_only_accounts(world: World, role: str) -> None:
    market = running(world)
    instruction = finish(world, market, payer_run=NODE)
    # The node's wallet stands twice: without a writable place it must not be paid.
    result = world.run(with_meta(instruction, role, is_writable=False))
    assert (result.error, result.changed) == (Custom(2000), {})


def test_the_315th_entry_does_not_fit(world: World) -> None:
    market = world.open_market(price=0)
    for number in range(314):
        labels = {"job": key(f"job {number}"), "run": key(f"run {number}")}
        world.must("list", CONTENT, 1, market=market, authority=POSTER, **labels)
    result = world.run(
        world.instruction("list", CONTENT, 1, market=market, job=JOB, run=RUN, authority=POSTER)
    )
    assert result.log_error == "Error Code: AccountDidNotSerialize. Error Number: 3004"
    assert len(world.market(market).queue) == 314


def test_sol_that_was_sent_ahead_counts_towards_the_rent(world: World) -> None:
    market = world.open_market()
    world.accounts[JOB] = Account(1_000_000, at.SYSTEM_PROGRAM)
    world.must("list", CONTENT, 1, market=market, job=JOB, run=RUN, authority=POSTER)
    assert world.lamports(JOB) == 2_561_280
    assert world.lamports(POSTER) == RICH - 1_561_280


@pytest.mark.parametrize(
    ("data", "owner", "error", "name"),
    [
        (b"", at.JOBS_PROGRAM, Custom(3001), "AccountDiscriminatorNotFound"),
        (b"12345678", at.JOBS_PROGRAM, Custom(3002), "AccountDiscriminatorMismatch"),
        (None, at.JOBS_PROGRAM, Custom(3003), "AccountDidNotDeserialize"),
        (b"", at.TOKEN_PROGRAM, Custom(3007), "AccountOwnedByWrongProgram"),
    ],
)
def test_accounts_that_cannot_be_read(
    world: World, data: bytes | None, owner: object, error: Custom, name: str
) -> None:
    market = running(world)
    data = world.accounts[JOB].data[:100] if data is None else data
    world.accounts[JOB] = Account(1, owner, data)  # type: ignore[arg-type]
    result = world.run(finish(world, market))
    assert (result.error, result.log_error) == (error, f"Error Code: {name}. Error Number: {error.code}")


def test_a_mint_is_no_token_account(world: World) -> None:
    market = running(world)
    result = world.run(finish(world, market, user=at.NOS_MINT))
    assert result.error == "InvalidAccountData"


def test_too_few_accounts(world: World) -> None:
    market = running(world)
    whole = finish(world, market)
    cut = type(whole)(whole.program_id, whole.accounts[:-1], whole.data)
    assert world.run(cut).error == Custom(3005)


# Arithmetic

PANIC = "ProgramFailedToComplete"


@pytest.mark.parametrize("timeout", [-1, I64_MAX])
def test_a_priced_time_that_does_not_fit_panics(world: World, timeout: int) -> None:
    market = world.open_market()
    result = world.run(
        world.instruction("list", CONTENT, timeout, market=market, job=JOB, run=RUN, authority=POSTER)
    )
    assert (result.error, result.log_error) == (PANIC, None)


def test_a_free_job_takes_any_timeout_but_not_any_extension(world: World) -> None:
    market = world.open_market(price=0)
    world.must("list", CONTENT, -2, market=market, job=JOB, run=RUN, authority=POSTER)
    assert world.market(market).queue_type == QUEUE_JOB
    too_far = world.instruction("extend", I64_MAX, market=market, job=JOB, authority=POSTER)
    assert world.run(too_far).error == PANIC
    world.must("extend", I64_MAX - 2, market=market, job=JOB, authority=POSTER)
    assert world.job(JOB).timeout == I64_MAX - 2


def test_a_clock_before_the_run_panics_only_when_money_is_at_stake(world: World) -> None:
    market = running(world)
    world.clock -= 100
    assert world.run(finish(world, market)).error == PANIC


@given(elapsed=st.integers(0, 10_000), timeout=st.integers(1, 5_000), price=st.integers(0, 10**6))
def test_a_node_is_paid_for_its_seconds_and_the_rest_goes_back(
    elapsed: int, timeout: int, price: int
) -> None:
    world = World()
    market = running(world, timeout=timeout, price=price)
    world.clock += elapsed
    assert world.run(finish(world, market)).ok
    earned = price * min(elapsed, timeout)
    assert world.tokens(wallet_account(NODE)) == RICH + earned
    assert world.tokens(wallet_account(PAYER)) == RICH - earned


def test_a_second_claim_is_paid_out_of_the_shared_vault(world: World) -> None:
    """A property of the real program: the vault is the market's, and finish does not look at the state."""
    market = running(world)
    world.must("quit", job=JOB, run=RUN, authority=NODE)
    for node in (NODE, OTHER):
        world.must("claim", job=JOB, run=key(f"claim {node}"), market=market, authority=node)
    world.clock += 1000
    for node, expected in ((NODE, None), (OTHER, Custom(1))):
        roles = {"run": key(f"claim {node}"), "authority": node, "payer_run": node}
        result = world.run(finish(world, market, user=wallet_account(node), **roles))
        assert result.error == expected
