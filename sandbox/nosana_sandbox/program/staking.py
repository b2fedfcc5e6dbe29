"""The staking program, as far as a host uses it: a stake's life from `stake` to `close`.

(docs/protocol/jobs-program.md#staking)

Written from the facts; unlike the Jobs program there are no recordings to hold it against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nosana_sandbox.program import token
from nosana_sandbox.program.addresses import (
    NOS_MINT,
    SYSTEM_PROGRAM,
    reward_account,
    stake_account,
    stake_vault,
)
from nosana_sandbox.program.anchor import Context, Field, Kind
from nosana_sandbox.program.checks import (
    AUTHORITY,
    OWN_VAULT,
    SYSTEM_FIELD,
    TOKEN_FIELD,
    USER,
    VAULT,
    address,
    has_one,
    require,
)
from nosana_sandbox.program.failure import Code, anchor_error, panic
from nosana_sandbox.program.layout import U64_MAX
from nosana_sandbox.program.spec import Spec

if TYPE_CHECKING:
    from nosana_sandbox.program.layout import Stake
    from nosana_sandbox.program.spec import Argument

_DAY: Final = 86_400
SHORTEST: Final = 14 * _DAY
LONGEST: Final = 365 * _DAY
_PRECISION: Final = 10**15
_DIVISOR: Final = 4 * LONGEST // 12
"""A quarter more for each month: four times the amount for a year."""


def xnos_of(amount: int, duration: int) -> int:
    """What a stake of `amount` base units for `duration` seconds counts for."""
    return (duration * _PRECISION // _DIVISOR + _PRECISION) * amount // _PRECISION


def _revalue(stake: Stake) -> None:
    stake.xnos = 0 if stake.time_unstake else xnos_of(stake.amount, stake.duration)


def _number(arguments: tuple[Argument, ...], place: int = 0) -> int:
    value = arguments[place]
    assert isinstance(value, int)
    return value


def _u64(value: int) -> int:
    if value > U64_MAX:
        raise panic("attempt to add with overflow")
    return value


def _do_stake(context: Context, arguments: tuple[Argument, ...]) -> None:
    amount, duration = _number(arguments), _number(arguments, 1)
    if duration < SHORTEST:
        raise anchor_error(Code.DurationTooShort, source="programs/nosana-staking/src/instructions/stake.rs")
    if duration > LONGEST:
        raise anchor_error(Code.DurationTooLong, source="programs/nosana-staking/src/instructions/stake.rs")
    stake = context.stake
    stake.amount, stake.duration = amount, duration
    stake.authority = context.key("authority")
    stake.vault, stake.vault_bump = stake_vault(stake.authority)
    _revalue(stake)
    _pay_in(context, amount)


def _do_topup(context: Context, arguments: tuple[Argument, ...]) -> None:
    stake = context.stake
    stake.amount = _u64(stake.amount + _number(arguments))
    _revalue(stake)
    _pay_in(context, _number(arguments))


def _do_extend(context: Context, arguments: tuple[Argument, ...]) -> None:
    stake, more = context.stake, _number(arguments)
    if more == 0:
        raise anchor_error(Code.DurationTooShort, source="programs/nosana-staking/src/instructions/extend.rs")
    if _u64(stake.duration + more) > LONGEST:
        raise anchor_error(Code.DurationTooLong, source="programs/nosana-staking/src/instructions/extend.rs")
    stake.duration += more
    _revalue(stake)


def _do_unstake(context: Context, arguments: tuple[Argument, ...]) -> None:
    context.stake.time_unstake = context.clock
    _revalue(context.stake)


def _do_withdraw(context: Context, arguments: tuple[Argument, ...]) -> None:
    """What has been set free since unstaking, evenly over the duration, and is still there."""
    stake, held = context.stake, context.token("vault").amount
    elapsed = min(max(0, context.clock - stake.time_unstake), stake.duration)
    free = stake.amount * elapsed // stake.duration - (stake.amount - held)
    if free > 0:
        vault = context.key("vault")
        token.transfer(context.frame, vault, context.key("user"), vault, min(free, held), signed_by=vault)


def _do_close(context: Context, arguments: tuple[Argument, ...]) -> None:
    vault = context.key("vault")
    token.close_account(context.frame, vault, context.key("authority"), vault, signed_by=vault)


def _pay_in(context: Context, amount: int) -> None:
    token.transfer(context.frame, context.key("user"), context.key("vault"), context.key("authority"), amount)


_OWN = has_one("authority", Code.Unauthorized)
_STAKED = require(lambda c: c.stake.time_unstake == 0, Code.AlreadyUnstaked)
_UNSTAKED = require(lambda c: c.stake.time_unstake != 0, Code.NotUnstaked)
_UNLOCKED = require(lambda c: c.stake.time_unstake + c.stake.duration < c.clock, Code.Locked)
_OWNER = Field("authority", Kind.SIGNER, mut=True)


def _no_reward(context: Context) -> bool:
    account = context.frame.account(context.key("reward"))
    return account.lamports == 0 and account.owner == SYSTEM_PROGRAM


_SPECS: Final = (
    Spec(
        "stake",
        ("u64", "u128"),
        (
            Field("mint", Kind.MINT, (address(lambda _: NOS_MINT, Code.InvalidMint),)),
            USER,
            Field(
                "vault",
                Kind.TOKEN,
                init_by="authority",
                derived=lambda c: stake_vault(c.key("authority"))[0],
            ),
            Field(
                "stake", Kind.STAKE, init_by="authority", derived=lambda c: stake_account(c.key("authority"))
            ),
            _OWNER,
            SYSTEM_FIELD,
            TOKEN_FIELD,
            Field("rent", Kind.RENT),
        ),
        _do_stake,
    ),
    Spec(
        "topup",
        ("u64",),
        (
            USER,
            VAULT,
            Field("stake", Kind.STAKE, (OWN_VAULT, _OWN, _STAKED), mut=True),
            AUTHORITY,
            TOKEN_FIELD,
        ),
        _do_topup,
    ),
    Spec(
        "extend",
        ("u64",),
        (Field("stake", Kind.STAKE, (_OWN, _STAKED), mut=True), AUTHORITY),
        _do_extend,
    ),
    Spec(
        "unstake",
        (),
        (
            Field("stake", Kind.STAKE, (_OWN, _STAKED), mut=True),
            Field(
                "reward",
                Kind.UNCHECKED,
                (
                    require(_no_reward, Code.HasReward),
                    address(lambda c: reward_account(c.key("authority")), Code.InvalidAccount),
                ),
            ),
            AUTHORITY,
        ),
        _do_unstake,
    ),
    Spec(
        "withdraw",
        (),
        (
            USER,
            Field(
                "vault",
                Kind.TOKEN,
                (require(lambda c: c.token("vault").amount != 0, Code.VaultEmpty),),
                mut=True,
            ),
            Field("stake", Kind.STAKE, (OWN_VAULT, _OWN, _UNSTAKED), mut=True),
            _OWNER,
            TOKEN_FIELD,
        ),
        _do_withdraw,
    ),
    Spec(
        "close",
        (),
        (
            USER,
            Field(
                "vault",
                Kind.TOKEN,
                (require(lambda c: c.token("vault").amount == 0, Code.VaultNotEmpty),),
                mut=True,
            ),
            Field(
                "stake",
                Kind.STAKE,
                (OWN_VAULT, _OWN, _UNSTAKED, _UNLOCKED),
                mut=True,
                close_to="authority",
            ),
            _OWNER,
            TOKEN_FIELD,
        ),
        _do_close,
    ),
)

STAKING_BY_DISCRIMINATOR: Final = {spec.discriminator: spec for spec in _SPECS}
