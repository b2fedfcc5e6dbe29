"""What the instructions check of their accounts, and the accounts that several of them take.

Within one account the checks stand as Anchor runs them: signer, relations to other accounts (`has_one`),
free conditions in source order, owner, address (docs/protocol/jobs-program.md#order-of-checks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nosana_sandbox.program.addresses import (
    MARKET_ADMIN,
    SYSTEM_PROGRAM,
    associated_token_account,
    metadata_account,
    stake_account,
)
from nosana_sandbox.program.anchor import Context, Field, Kind
from nosana_sandbox.program.failure import Code, ProgramFailure, anchor_error
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED, STATE_STOPPED
from nosana_sandbox.program.metadata import verified_collection

if TYPE_CHECKING:
    from collections.abc import Callable

    from solders.pubkey import Pubkey

    from nosana_sandbox.program.anchor import Check

    Predicate = Callable[[Context], bool]


def has_one(target: str, code: Code) -> Check:
    """The account's own field `target` names the account passed under that name."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        held: Pubkey = getattr(context.state(name), target)
        passed = context.key(target)
        return None if held == passed else anchor_error(code, account=name, compared=(held, passed))

    return check


def require(predicate: Predicate, code: Code) -> Check:
    """A free condition."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        return None if predicate(context) else anchor_error(code, account=name)

    return check


def address(expected: Callable[[Context], Pubkey], code: Code) -> Check:
    """The account is passed at this address."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        passed, wanted = context.key(name), expected(context)
        return None if passed == wanted else anchor_error(code, account=name, compared=(passed, wanted))

    return check


def unused_key(context: Context, name: str) -> ProgramFailure | None:
    """A new key for a run: it signs, holds nothing, and belongs to nobody."""
    key = context.key(name)
    if not context.frame.is_signer(key):
        return anchor_error(Code.MissingSignature, account=name)
    account = context.frame.account(key)
    if account.lamports:
        return anchor_error(Code.LamportsNonNull, account=name)
    if account.owner != SYSTEM_PROGRAM:
        return anchor_error(Code.InvalidOwner, account=name, compared=(account.owner, SYSTEM_PROGRAM))
    return None


def own_nos_account(of: Callable[[Context], Pubkey], price: Callable[[Context], int]) -> Check:
    """With a price, the token account has to be the wallet's associated one."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        if price(context) == 0 or context.key(name) == associated_token_account(of(context)):
            return None
        return anchor_error(Code.InvalidATA, account=name)

    return check


def job_price(context: Context) -> int:
    """What the job's seconds cost, which is the market's price when it was listed."""
    return context.job.price


def _market_price(context: Context) -> int:
    return context.market.job_price


def _access(predicate: Predicate) -> Predicate:
    """A condition that holds by itself in a market that is open to every node."""
    return lambda c: c.market.node_access_key == SYSTEM_PROGRAM or predicate(c)


def _holds_key(context: Context) -> bool:
    metadata = context.key("metadata")
    return (
        metadata == metadata_account(context.token("nft").mint)
        and verified_collection(context.frame.account(metadata).data) == context.market.node_access_key
    )


# Accounts that several instructions take

TOKEN_FIELD: Final = Field("token_program", Kind.TOKEN_PROGRAM)
SYSTEM_FIELD: Final = Field("system_program", Kind.SYSTEM_PROGRAM)
REWARDS_FIELD: Final = Field("rewards_program", Kind.REWARDS_PROGRAM)
AUTHORITY: Final = Field("authority", Kind.SIGNER)
PAYING: Final = Field("payer", Kind.SIGNER, mut=True)
PAYER: Final = Field("payer", Kind.UNCHECKED, mut=True)
VAULT: Final = Field("vault", Kind.TOKEN, mut=True)
USER: Final = Field("user", Kind.TOKEN, mut=True)
REFLECTION: Final = Field("rewards_reflection", Kind.REFLECTION, mut=True)
REWARDS_VAULT: Final = Field("rewards_vault", Kind.TOKEN, mut=True)
ADMIN: Final = Field("authority", Kind.SIGNER, (address(lambda _: MARKET_ADMIN, Code.Unauthorized),))
OWN_VAULT: Final = has_one("vault", Code.InvalidVault)
MARKET: Final = Field("market", Kind.MARKET, (OWN_VAULT,))
OWN_MARKET: Final = has_one("market", Code.InvalidMarketAccount)
OWN_PAYER: Final = has_one("payer", Code.InvalidPayer)
OWN_JOB: Final = has_one("job", Code.InvalidJobAccount)
BY_PROJECT: Final = require(lambda c: c.job.project == c.key("authority"), Code.Unauthorized)
BY_NODE: Final = require(lambda c: c.run.node == c.key("authority"), Code.Unauthorized)
JOB_QUEUED: Final = require(lambda c: c.job.state == STATE_QUEUED, Code.JobInWrongState)
JOB_DONE: Final = require(lambda c: c.job.state == STATE_DONE, Code.JobInWrongState)
JOB_STOPPED: Final = require(lambda c: c.job.state == STATE_STOPPED, Code.JobInWrongState)
LISTING_USER: Final = Field(
    "user",
    Kind.TOKEN,
    (own_nos_account(lambda c: c.key("payer"), _market_price),),
    mut=True,
)
NODE_ENTRY: Final = (
    Field(
        "stake",
        Kind.STAKE,
        (
            has_one("authority", Code.Unauthorized),
            require(lambda c: c.stake.xnos >= c.market.node_xnos_minimum, Code.NodeNotEnoughStake),
            address(lambda c: stake_account(c.key("authority")), Code.InvalidStakeAccount),
        ),
    ),
    Field(
        "nft",
        Kind.TOKEN,
        (
            require(_access(lambda c: c.token("nft").owner == c.key("authority")), Code.NodeNftWrongOwner),
            require(_access(lambda c: c.token("nft").amount >= 1), Code.NodeNftInvalidAmount),
        ),
    ),
    Field("metadata", Kind.UNCHECKED, (require(_access(_holds_key), Code.NodeKeyInvalidCollection),)),
)
