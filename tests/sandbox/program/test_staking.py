"""The staking program's stand-in: a stake's life, and everything that it refuses."""

from __future__ import annotations

import struct

import pytest
from solders.pubkey import Pubkey

from nosana_sandbox.program import Account, AccountMeta, Instruction, Result, execute_staking
from nosana_sandbox.program import addresses as at
from nosana_sandbox.program.anchor import Kind
from nosana_sandbox.program.layout import Stake, TokenAccount
from nosana_sandbox.program.staking import LONGEST, SHORTEST, STAKING_BY_DISCRIMINATOR, xnos_of
from support.program_world import RICH, START, World, key, wallet_account

SPECS = {spec.name: spec for spec in STAKING_BY_DISCRIMINATOR.values()}
OWNER = key("staker")
OTHER = key("poster")
VAULT = at.stake_vault(OWNER)[0]
STAKE = at.stake_account(OWNER)
DAY = 86_400


class Staking(World):
    """A world with a wallet that has no stake yet."""

    def __init__(self) -> None:
        super().__init__()
        self.accounts[OWNER] = Account(RICH, at.SYSTEM_PROGRAM)
        self.token_account(wallet_account(OWNER), OWNER, RICH)

    def act(self, name: str, *arguments: int, **roles: Pubkey) -> Result:
        spec = SPECS[name]
        data = spec.discriminator
        for kind, value in zip(spec.arguments, arguments, strict=True):
            data += value.to_bytes(16 if kind == "u128" else 8, "little")
        usual = {
            "mint": at.NOS_MINT,
            "user": wallet_account(OWNER),
            "vault": VAULT,
            "stake": STAKE,
            "authority": OWNER,
            "reward": at.reward_account(OWNER),
            "system_program": at.SYSTEM_PROGRAM,
            "token_program": at.TOKEN_PROGRAM,
            "rent": at.RENT_SYSVAR,
        }
        metas = [
            AccountMeta(
                roles.get(field.name, usual[field.name]),
                field.kind is Kind.SIGNER,
                field.mut or field.init_by is not None,
            )
            for field in spec.fields
        ]
        result = execute_staking(
            Instruction(at.STAKING_PROGRAM, tuple(metas), data), self.accounts, self.clock
        )
        for changed, account in result.changed.items():
            if account is None:
                del self.accounts[changed]
            else:
                self.accounts[changed] = account
        return result

    def done(self, name: str, *arguments: int, **roles: Pubkey) -> None:
        result = self.act(name, *arguments, **roles)
        assert result.ok, result.logs

    @property
    def stake(self) -> Stake:
        return Stake.decode(self.accounts[STAKE].data)


@pytest.fixture
def world() -> Staking:
    return Staking()


@pytest.mark.parametrize(
    ("name", "discriminator"),
    [
        ("stake", "ceb0ca12c8d1b36c"),
        ("topup", "7e2a314ee197634d"),
        ("unstake", "5a5f6b2acd7c32e1"),
        ("extend", "e47f0001e39a36a8"),
        ("withdraw", "b712469c946da122"),
        ("close", "62a5c9b16c41ce60"),
    ],
)
def test_discriminators(name: str, discriminator: str) -> None:
    assert SPECS[name].discriminator.hex() == discriminator


def test_xnos_grow_with_the_time() -> None:
    assert xnos_of(1_000, LONGEST) == 4_000
    assert xnos_of(1_000, LONGEST // 3) == 2_000
    assert xnos_of(1_000_000, SHORTEST) == 1_115_068
    assert xnos_of(0, LONGEST) == 0


def test_a_stakes_whole_life_gives_everything_back(world: Staking) -> None:
    lamports, tokens = world.total_lamports(), world.total_tokens()
    world.done("stake", 1_000, 100 * DAY)
    assert (world.stake.amount, world.stake.duration, world.stake.authority) == (1_000, 100 * DAY, OWNER)
    assert (world.stake.vault, world.stake.time_unstake) == (VAULT, 0)
    assert world.stake.xnos == xnos_of(1_000, 100 * DAY)
    assert world.tokens(VAULT) == 1_000
    world.done("topup", 500)
    world.done("extend", 100 * DAY)
    assert world.stake.xnos == xnos_of(1_500, 200 * DAY)
    world.done("unstake")
    assert (world.stake.xnos, world.stake.time_unstake) == (0, START)

    world.clock += 50 * DAY
    world.done("withdraw")
    assert world.tokens(VAULT) == 1_500 - 375
    world.done("withdraw")
    assert world.tokens(VAULT) == 1_500 - 375, "nothing more is free yet"
    world.clock += 200 * DAY
    world.done("withdraw")
    assert world.tokens(VAULT) == 0
    world.done("close")
    assert STAKE not in world.accounts
    assert VAULT not in world.accounts
    assert (world.total_lamports(), world.total_tokens()) == (lamports, tokens)
    assert world.tokens(wallet_account(OWNER)) == RICH
    world.done("stake", 1, SHORTEST)


def refused(result: Result) -> str:
    assert not result.ok
    assert result.log_error is not None, result.error
    return result.log_error.removeprefix("Error Code: ").split(".")[0]


@pytest.mark.parametrize(
    ("duration", "name"), [(SHORTEST - 1, "DurationTooShort"), (LONGEST + 1, "DurationTooLong")]
)
def test_a_stake_has_its_bounds(world: Staking, duration: int, name: str) -> None:
    assert refused(world.act("stake", 1, duration)) == name
    assert STAKE not in world.accounts
    world.done("stake", 0, LONGEST)


def test_a_stake_needs_the_tokens_the_mint_and_its_own_addresses(world: Staking) -> None:
    assert world.act("stake", RICH + 1, LONGEST).error is not None
    assert refused(world.act("stake", 1, LONGEST, vault=key("elsewhere"))) == "ConstraintSeeds"
    assert refused(world.act("stake", 1, LONGEST, stake=key("elsewhere"))) == "ConstraintSeeds"
    world.accounts[key("coin")] = Account(
        1_461_600, at.TOKEN_PROGRAM, struct.pack("<I32sQBBI32s", 0, bytes(32), 1, 6, 1, 0, bytes(32))
    )
    assert refused(world.act("stake", 1, LONGEST, mint=key("coin"))) == "InvalidMint"
    world.done("stake", 1, LONGEST)
    assert not world.act("stake", 1, LONGEST).ok, "there is one already"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("topup", (1,)), ("extend", (1,)), ("unstake", ()), ("withdraw", ()), ("close", ())],
)
def test_only_the_owner_may(world: Staking, name: str, arguments: tuple[int, ...]) -> None:
    assert refused(world.act(name, *arguments)) == "AccountNotInitialized"
    world.done("stake", 5 if name != "close" else 0, SHORTEST)
    if name in ("withdraw", "close"):
        world.done("unstake")
        world.clock += SHORTEST + 1
    stranger = {"authority": OTHER, "reward": at.reward_account(OTHER)}
    assert refused(world.act(name, *arguments, **stranger)) == "Unauthorized"


def test_what_is_unstaked_changes_no_more(world: Staking) -> None:
    world.done("stake", 10, SHORTEST)
    assert refused(world.act("extend", 0)) == "DurationTooShort"
    assert refused(world.act("extend", LONGEST)) == "DurationTooLong"
    assert refused(world.act("withdraw")) == "NotUnstaked"
    assert refused(world.act("close")) == "VaultNotEmpty"
    world.done("unstake")
    for name, arguments in (("topup", (1,)), ("extend", (1,)), ("unstake", ())):
        assert refused(world.act(name, *arguments)) == "AlreadyUnstaked"


def test_a_reward_account_is_closed_before(world: Staking) -> None:
    world.done("stake", 10, SHORTEST)
    reward = at.reward_account(OWNER)
    world.accounts[reward] = Account(1_000_000, at.REWARDS_PROGRAM, bytes(80))
    assert refused(world.act("unstake")) == "HasReward"
    del world.accounts[reward]
    assert refused(world.act("unstake", reward=key("nothing"))) == "InvalidAccount"
    world.done("unstake")


def test_an_empty_vault_is_closed_only_when_the_time_is_over(world: Staking) -> None:
    world.done("stake", 0, SHORTEST)
    world.done("unstake")
    assert refused(world.act("withdraw")) == "VaultEmpty"
    world.clock += SHORTEST
    assert refused(world.act("close")) == "Locked"
    world.clock += 1
    world.done("close")


def test_the_vault_is_the_stakes_own(world: Staking) -> None:
    world.done("stake", 5, SHORTEST)
    world.token_account(key("vault"), OWNER, 5)
    assert refused(world.act("topup", 1, vault=key("vault"))) == "InvalidVault"
    assert TokenAccount.decode(world.accounts[VAULT].data).owner == VAULT
    assert refused(execute_staking(Instruction(at.STAKING_PROGRAM, (), b"12345678"), {}, START)) == (
        "InstructionFallbackNotFound"
    )


def test_the_jobs_program_takes_a_stake_made_here(world: Staking) -> None:
    world.done("stake", 1_000, LONGEST)
    market = world.open_market()
    world.must("work", run=key("run"), market=market, authority=OWNER)
    assert world.market(market).queue == [OWNER]
