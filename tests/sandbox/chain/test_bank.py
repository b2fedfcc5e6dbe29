"""The chain's own rules, without RPC."""

from __future__ import annotations

import hashlib

import pytest
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from spl.token.instructions import create_idempotent_associated_token_account

from nosana_sandbox.chain import Bank, Commitment
from nosana_sandbox.chain.errors import TransactionRejected
from nosana_sandbox.chain.tokens import parse_token_account
from nosana_sandbox.program import Account
from nosana_sandbox.program.addresses import (
    NOS_MINT,
    RENT_SYSVAR,
    STAKING_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_account,
    stake_account,
    stake_vault,
)
from nosana_sandbox.program.layout import Job, Market, Run, Stake, rent_exempt_minimum
from nosana_sandbox.world.genesis import Founded
from support.transactions import SOL, finish, pay, post, signed, wire, work

PROCESSED, CONFIRMED, FINALIZED = Commitment


def lamports(bank: Bank, key: Pubkey, commitment: Commitment = PROCESSED) -> int:
    account = bank.account(key, commitment)
    return account.lamports if account else 0


def tokens(bank: Bank, owner: Pubkey) -> int:
    held = parse_token_account(bank.account(associated_token_account(owner)))
    assert held is not None
    return held.amount


def test_a_state_is_processed_then_confirmed_then_finalized(founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    bank.submit(wire(signed(bank, [pay(founded.poster, to, SOL)], founded.poster)))
    seen = []
    for _ in range(5):
        seen.append([lamports(bank, to, each) // SOL for each in Commitment])
        bank.tick()
    assert seen == [[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_readers_see_each_version_at_its_own_commitment(founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    for _ in range(4):
        bank.submit(wire(signed(bank, [pay(founded.poster, to, SOL)], founded.poster)))
        bank.tick()
    assert [lamports(bank, to, each) // SOL for each in Commitment] == [4, 4, 2]


def test_block_height_is_not_the_slot(founded: Founded) -> None:
    bank = founded.bank
    assert bank.height_at(PROCESSED) < bank.slot_at(PROCESSED)
    before = bank.height_at(FINALIZED)
    bank.tick(7)
    assert bank.height_at(FINALIZED) == before + 7


@pytest.mark.parametrize(("blocks_later", "lands"), [(0, True), (150, True), (151, False)])
def test_a_block_hash_lives_150_blocks(founded: Founded, blocks_later: int, lands: bool) -> None:
    bank = founded.bank
    blockhash, last_valid = bank.blockhash_at(CONFIRMED)
    transaction = wire(
        signed(bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster, blockhash=blockhash)
    )
    # The hash is that of the confirmed block, one behind the one under way.
    bank.tick(max(0, blocks_later - 1))
    assert (bank.height_at(PROCESSED) <= last_valid) == lands
    if lands:
        assert bank.submit(transaction).outcome.error is None
    else:
        with pytest.raises(TransactionRejected) as rejected:
            bank.submit(transaction)
        assert rejected.value.error == "BlockhashNotFound"


def test_an_unknown_block_hash_is_refused(founded: Founded) -> None:
    stranger = Bank()
    transaction = signed(
        founded.bank,
        [pay(founded.poster, Keypair().pubkey(), SOL)],
        founded.poster,
        blockhash=stranger.blockhash_at(CONFIRMED)[0],
    )
    with pytest.raises(TransactionRejected, match="Blockhash not found"):
        founded.bank.submit(wire(transaction))


def test_the_same_bytes_land_once(founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    transaction = wire(signed(bank, [pay(founded.poster, to, SOL)], founded.poster))
    bank.submit(transaction)
    bank.tick(100)
    with pytest.raises(TransactionRejected) as rejected:
        bank.submit(transaction)
    assert rejected.value.error == "AlreadyProcessed"
    assert lamports(bank, to) == SOL


def test_a_forged_signature_is_refused(founded: Founded) -> None:
    transaction = signed(founded.bank, [pay(founded.poster, Keypair().pubkey(), SOL)], founded.poster)
    raw = bytearray(bytes(transaction))
    raw[5] ^= 1
    with pytest.raises(TransactionRejected) as rejected:
        founded.bank.submit(type(wire(transaction)).decode(bytes(raw)))
    assert rejected.value.error == "SignatureFailure"


def test_fee_and_priority_fee_are_taken_on_success_and_on_failure(founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    payer = founded.poster.pubkey()
    budget = [set_compute_unit_limit(30_000), set_compute_unit_price(500_001)]
    # 30,000 units at 500,001 micro-lamports: 15,000.03 lamports, rounded up.
    fee = 5_000 + 15_001
    before = lamports(bank, payer)
    done = bank.submit(wire(signed(bank, [*budget, pay(founded.poster, to, SOL)], founded.poster)))
    assert (done.outcome.error, done.outcome.fee) == (None, fee)
    assert lamports(bank, payer) == before - fee - SOL
    failed = bank.submit(wire(signed(bank, [*budget, pay(founded.poster, to, 10_000 * SOL)], founded.poster)))
    assert failed.outcome.error == {"InstructionError": [2, {"Custom": 1}]}
    assert lamports(bank, payer) == before - 2 * fee - SOL
    assert lamports(bank, to) == SOL


def test_each_signature_costs(founded: Founded) -> None:
    job, run = Keypair(), Keypair()
    landed = founded.bank.submit(
        wire(signed(founded.bank, [post(founded, job, run)], founded.poster, job, run))
    )
    assert landed.outcome.error is None
    assert landed.outcome.fee == 15_000


@pytest.mark.parametrize(
    ("balance", "error"),
    [
        (None, "AccountNotFound"),
        (4_999, "InsufficientFundsForFee"),
        (rent_exempt_minimum(0) + 4_999, {"InsufficientFundsForRent": {"account_index": 0}}),
    ],
)
def test_a_fee_payer_without_the_money_is_refused(
    founded: Founded, balance: int | None, error: object
) -> None:
    bank, payer = founded.bank, Keypair()
    if balance is not None:
        bank.place(payer.pubkey(), Account(balance, Pubkey.default()))
    with pytest.raises(TransactionRejected) as rejected:
        bank.submit(wire(signed(bank, [pay(payer, founded.market, 1)], payer)))
    assert rejected.value.error == error


def test_an_account_cannot_be_left_below_its_rent(founded: Founded) -> None:
    bank = founded.bank
    landed = bank.submit(wire(signed(bank, [pay(founded.poster, Keypair().pubkey(), 1_000)], founded.poster)))
    assert landed.outcome.error == {"InsufficientFundsForRent": {"account_index": 1}}


def test_a_missing_program_costs_the_fee(founded: Founded) -> None:
    bank = founded.bank
    before = lamports(bank, founded.poster.pubkey())
    nothing = Instruction(Keypair().pubkey(), b"", [])
    landed = bank.submit(wire(signed(bank, [nothing], founded.poster)))
    assert landed.outcome.error == "ProgramAccountNotFound"
    assert lamports(bank, founded.poster.pubkey()) == before - 5_000


def test_a_job_is_posted_worked_and_paid(founded: Founded) -> None:
    bank, job, run = founded.bank, Keypair(), Keypair()
    poster, host = founded.poster.pubkey(), founded.host.pubkey()
    start = tokens(bank, poster)
    stand = Keypair()
    founded.submit([work(founded, stand)], founded.host, stand)
    market = bank.account(founded.market)
    assert market is not None
    assert Market.decode(market.data).queue == [host]
    founded.submit([post(founded, job, run, timeout=60)], founded.poster, job, run)
    running = bank.account(run.pubkey())
    assert running is not None
    assert Run.decode(running.data).node == host
    assert tokens(bank, poster) == start - 60_000
    bank.clock.advance(25)
    bank.tick()
    founded.submit([finish(founded, job.pubkey(), run.pubkey())], founded.host)
    assert bank.account(run.pubkey()) is None
    done = bank.account(job.pubkey())
    assert done is not None
    assert Job.decode(done.data).time_end - Job.decode(done.data).time_start == 25
    assert tokens(bank, host) == 25_000
    assert tokens(bank, poster) == start - 25_000


def test_programs_of_both_kinds_share_one_transaction(founded: Founded) -> None:
    """An associated token account made by its real program is seen by the stand-in's next instruction."""
    bank, job, run, stand = founded.bank, Keypair(), Keypair(), Keypair()
    host = founded.host
    account = associated_token_account(host.pubkey())
    bank.place(account, None)
    make = create_idempotent_associated_token_account(host.pubkey(), host.pubkey(), NOS_MINT)
    landed = bank.submit(
        wire(signed(bank, [set_compute_unit_limit(80_000), make, work(founded, stand)], host, stand))
    )
    assert landed.outcome.error is None, landed.outcome.logs
    assert bank.account(account) is not None
    assert [index for index, _ in landed.outcome.inner] == [1]
    founded.submit([post(founded, job, run)], founded.poster, job, run)
    assert bank.account(run.pubkey()) is not None


def test_a_failed_instruction_undoes_those_before_it(founded: Founded) -> None:
    bank, stand, to = founded.bank, Keypair(), Keypair().pubkey()
    host = founded.host
    account = associated_token_account(host.pubkey())
    bank.place(account, None)
    make = create_idempotent_associated_token_account(host.pubkey(), host.pubkey(), NOS_MINT)
    market = bank.account(founded.market)
    before = lamports(bank, host.pubkey())
    instructions = [pay(host, to, SOL), make, work(founded, stand), pay(host, to, 10_000 * SOL)]
    landed = bank.submit(wire(signed(bank, instructions, host, stand)))
    assert landed.outcome.error == {"InstructionError": [3, {"Custom": 1}]}
    assert bank.account(account) is None
    assert bank.account(to) is None
    assert bank.account(founded.market) == market
    assert lamports(bank, host.pubkey()) == before - 10_000
    # The logs tell of all that was tried.
    assert sum("success" in line for line in landed.outcome.logs) >= 3


def test_too_small_a_compute_limit_fails_both_kinds_of_program(founded: Founded) -> None:
    bank, stand = founded.bank, Keypair()
    host = founded.host
    poor = bank.submit(
        wire(signed(bank, [set_compute_unit_limit(10_000), work(founded, stand)], host, stand))
    )
    assert poor.outcome.error == {"InstructionError": [1, "ProgramFailedToComplete"]}
    assert poor.outcome.logs[-1].endswith("exceeded CUs meter at BPF instruction")
    make = create_idempotent_associated_token_account(host.pubkey(), host.pubkey(), NOS_MINT)
    poor = bank.submit(wire(signed(bank, [set_compute_unit_limit(1_000), make], host)))
    assert poor.outcome.error == {"InstructionError": [1, "ProgramFailedToComplete"]}


def test_an_unknown_budget_instruction_does_not_land(founded: Founded) -> None:
    twice = [set_compute_unit_limit(1), set_compute_unit_limit(2)]
    with pytest.raises(TransactionRejected) as rejected:
        founded.bank.submit(wire(signed(founded.bank, twice, founded.poster)))
    assert rejected.value.error == {"DuplicateInstruction": 1}


def test_simulation_writes_nothing(founded: Founded) -> None:
    bank, to = founded.bank, Keypair().pubkey()
    before = lamports(bank, founded.poster.pubkey())
    simulation = bank.simulate(wire(signed(bank, [pay(founded.poster, to, SOL)], founded.poster)), CONFIRMED)
    assert simulation.outcome.error is None
    assert simulation.changed[to] == Account(SOL, Pubkey.default())
    assert bank.account(to) is None
    assert lamports(bank, founded.poster.pubkey()) == before


def test_time_moves_only_as_told(founded: Founded) -> None:
    bank = founded.bank
    start = bank.unix_time
    bank.tick(10)
    assert bank.unix_time == start
    bank.clock.advance(3600)
    assert bank.unix_time == start, "time shows in a new slot"
    bank.tick()
    assert bank.unix_time == start + 3600


def test_closed_accounts_leave_nothing_behind(founded: Founded) -> None:
    bank = founded.bank
    owner = hashlib.sha256(b"program").digest()
    key, program = Keypair().pubkey(), Pubkey(owner)
    bank.place(key, Account(rent_exempt_minimum(3), program, b"abc"))
    bank.tick(10)
    assert [each for each, _ in bank.accounts_of(program, FINALIZED)] == [key]
    bank.place(key, None)
    assert list(bank.accounts_of(program, PROCESSED)) == []
    assert [each for each, _ in bank.accounts_of(program, CONFIRMED)] == [key]
    bank.tick(10)
    assert list(bank.accounts_of(program, FINALIZED)) == []


def test_the_staking_program_answers_too(founded: Founded) -> None:
    staker = founded.poster
    stake, (vault, _) = stake_account(staker.pubkey()), stake_vault(staker.pubkey())
    data = hashlib.sha256(b"global:stake").digest()[:8] + (5_000).to_bytes(8, "little")
    accounts = [
        AccountMeta(NOS_MINT, False, False),
        AccountMeta(associated_token_account(staker.pubkey()), False, True),
        AccountMeta(vault, False, True),
        AccountMeta(stake, False, True),
        AccountMeta(staker.pubkey(), True, True),
        AccountMeta(SYSTEM_PROGRAM, False, False),
        AccountMeta(TOKEN_PROGRAM, False, False),
        AccountMeta(RENT_SYSVAR, False, False),
    ]
    year = (365 * 86_400).to_bytes(16, "little")
    founded.submit([Instruction(STAKING_PROGRAM, data + year, accounts)], staker)
    account = founded.bank.account(stake)
    assert account is not None
    assert Stake.decode(account.data).xnos == 20_000
