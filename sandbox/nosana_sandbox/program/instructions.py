"""The nineteen instructions: accounts in wire order, checks, effects (onchain.md §3, §3b).

Within one account the checks stand as Anchor runs them: signer, relations to other accounts (`has_one`),
free conditions in source order, owner, address.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nosana_sandbox.program import system, token
from nosana_sandbox.program.addresses import (
    JOBS_PROGRAM,
    MARKET_ADMIN,
    NOS_MINT,
    SYSTEM_PROGRAM,
    associated_token_account,
    market_vault,
    metadata_account,
    stake_account,
)
from nosana_sandbox.program.anchor import Context, Field, Kind, store_new
from nosana_sandbox.program.failure import Code, ProgramFailure, anchor_error, panic
from nosana_sandbox.program.layout import (
    I64_MAX,
    I64_MIN,
    JOB_TYPE_UNKNOWN,
    JOB_TYPES,
    NO_RESULT,
    QUEUE_EMPTY,
    QUEUE_JOB,
    QUEUE_NODE,
    STATE_DONE,
    STATE_QUEUED,
    STATE_STOPPED,
    U64_MAX,
    Job,
    Market,
    Run,
    verified_collection,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from solders.pubkey import Pubkey

    from nosana_sandbox.program.anchor import Check

    Predicate = Callable[[Context], bool]

Argument = int | bytes


@dataclass(frozen=True, slots=True)
class Spec:
    """One instruction. `arguments` are Borsh types in order; `handler` gets their values."""

    name: str
    arguments: tuple[str, ...]
    fields: tuple[Field, ...]
    handler: Callable[[Context, tuple[Argument, ...]], None]

    @property
    def discriminator(self) -> bytes:
        """The first 8 bytes of the instruction's data."""
        return hashlib.sha256(f"global:{self.name}".encode()).digest()[:8]

    @property
    def title(self) -> str:
        """The name as the program logs it."""
        return "".join(word.capitalize() for word in self.name.split("_"))


# Checks


def _has_one(attribute: str, code: Code, target: str | None = None) -> Check:
    """The account's own field names the account passed as `target`."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        held: Pubkey = getattr(context.stake if name == "stake" else context.state(name), attribute)
        passed = context.key(target or attribute)
        return None if held == passed else anchor_error(code, account=name, compared=(held, passed))

    return check


def _require(predicate: Predicate, code: Code) -> Check:
    """A free condition."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        return None if predicate(context) else anchor_error(code, account=name)

    return check


def _address(expected: Callable[[Context], Pubkey], code: Code) -> Check:
    """The account is passed at this address."""

    def check(context: Context, name: str) -> ProgramFailure | None:
        passed, wanted = context.key(name), expected(context)
        return None if passed == wanted else anchor_error(code, account=name, compared=(passed, wanted))

    return check


def _unused_key(context: Context, name: str) -> ProgramFailure | None:
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


def _own_nos_account(
    of: Callable[[Context], Pubkey], price: Callable[[Context], int]
) -> Callable[[str], Check]:
    """With a price, the token account has to be the wallet's associated one."""

    def named(name: str) -> Check:
        return _require(
            lambda c: price(c) == 0 or c.key(name) == associated_token_account(of(c)), Code.InvalidATA
        )

    return named


def _job_price(context: Context) -> int:
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

_TOKEN_PROGRAM: Final = Field("token_program", Kind.TOKEN_PROGRAM)
_SYSTEM_PROGRAM: Final = Field("system_program", Kind.SYSTEM_PROGRAM)
_REWARDS_PROGRAM: Final = Field("rewards_program", Kind.REWARDS_PROGRAM)
_AUTHORITY: Final = Field("authority", Kind.SIGNER)
_PAYING: Final = Field("payer", Kind.SIGNER, mut=True)
_PAYER: Final = Field("payer", Kind.UNCHECKED, mut=True)
_VAULT: Final = Field("vault", Kind.TOKEN, mut=True)
_USER: Final = Field("user", Kind.TOKEN, mut=True)
_REFLECTION: Final = Field("rewards_reflection", Kind.REFLECTION, mut=True)
_REWARDS_VAULT: Final = Field("rewards_vault", Kind.TOKEN, mut=True)
_ADMIN: Final = Field("authority", Kind.SIGNER, (_address(lambda _: MARKET_ADMIN, Code.Unauthorized),))
_OWN_VAULT: Final = _has_one("vault", Code.InvalidVault)
_MARKET: Final = Field("market", Kind.MARKET, (_OWN_VAULT,))
_OWN_MARKET: Final = _has_one("market", Code.InvalidMarketAccount)
_OWN_PAYER: Final = _has_one("payer", Code.InvalidPayer)
_OWN_JOB: Final = _has_one("job", Code.InvalidJobAccount)
_BY_PROJECT: Final = _require(lambda c: c.job.project == c.key("authority"), Code.Unauthorized)
_BY_NODE: Final = _require(lambda c: c.run.node == c.key("authority"), Code.Unauthorized)
_JOB_QUEUED: Final = _require(lambda c: c.job.state == STATE_QUEUED, Code.JobInWrongState)
_JOB_DONE: Final = _require(lambda c: c.job.state == STATE_DONE, Code.JobInWrongState)
_JOB_STOPPED: Final = _require(lambda c: c.job.state == STATE_STOPPED, Code.JobInWrongState)
_LISTING_USER: Final = Field(
    "user",
    Kind.TOKEN,
    (_own_nos_account(lambda c: c.key("payer"), _market_price)("user"),),
    mut=True,
)
_NODE_ENTRY: Final = (
    Field(
        "stake",
        Kind.STAKE,
        (
            _has_one("authority", Code.Unauthorized),
            _require(lambda c: c.stake.xnos >= c.market.node_xnos_minimum, Code.NodeNotEnoughStake),
            _address(lambda c: stake_account(c.key("authority")), Code.InvalidStakeAccount),
        ),
    ),
    Field(
        "nft",
        Kind.TOKEN,
        (
            _require(_access(lambda c: c.token("nft").owner == c.key("authority")), Code.NodeNftWrongOwner),
            _require(_access(lambda c: c.token("nft").amount >= 1), Code.NodeNftInvalidAmount),
        ),
    ),
    Field("metadata", Kind.UNCHECKED, (_require(_access(_holds_key), Code.NodeKeyInvalidCollection),)),
)


# Arithmetic that panics where Rust's does


def _deposit(price: int, seconds: int) -> int:
    """price · seconds as u64."""
    if seconds < 0:
        raise panic("a negative time does not fit into u64")
    if price * seconds > U64_MAX:
        raise panic("attempt to multiply with overflow")
    return price * seconds


def _minus(left: int, right: int) -> int:
    """A difference of two i64."""
    if not I64_MIN <= left - right <= I64_MAX:
        raise panic("attempt to subtract with overflow")
    return left - right


# The queue


def _enqueue(market: Market, entry: Pubkey, queue_type: int) -> None:
    # A market of unknown job type takes nobody in; the caller is not told (onchain.md §3).
    if market.job_type == JOB_TYPE_UNKNOWN:
        return
    if market.queue_type == QUEUE_EMPTY:
        market.queue_type = queue_type
    market.queue.append(entry)


def _dequeue(market: Market, entry: Pubkey) -> None:
    if entry not in market.queue:
        raise anchor_error(Code.NotInMarketQueue)
    market.queue.remove(entry)
    if not market.queue:
        market.queue_type = QUEUE_EMPTY


def _pop(market: Market) -> Pubkey:
    entry = market.queue.pop(0)
    if not market.queue:
        market.queue_type = QUEUE_EMPTY
    return entry


def _start_run(context: Context, job: Pubkey, node: Pubkey) -> None:
    """Create the run at the key that was passed for it, paid by `payer`."""
    key, payer = context.key("run"), context.key("payer")
    system.create_account(context.frame, payer, key, Run.SPACE, JOBS_PROGRAM)
    store_new(context.frame, key, Run(job=job, node=node, payer=payer, time=context.clock))


# Payments


def _pay_in(context: Context, amount: int) -> None:
    """From the payer's account into the vault, signed by the payer. The network fee is 0 (onchain.md §3)."""
    token.transfer(context.frame, context.key("user"), context.key("vault"), context.key("payer"), amount)


def _pay_out(context: Context, target: str, amount: int) -> None:
    """From the vault, signed by the program for it."""
    vault = context.key("vault")
    token.transfer(context.frame, vault, context.key(target), vault, amount, signed_by=vault)


def _settle(context: Context) -> None:
    """Pay the node for the seconds worked, at most the timeout, and refund the rest."""
    job = context.job
    if job.price == 0:
        return
    total = _deposit(job.price, job.timeout)
    earned = _deposit(job.price, min(_minus(job.time_end, job.time_start), job.timeout))
    _pay_out(context, "user", earned)
    _pay_out(context, "deposit", total - earned)


def _require_result(result: Argument, source: str) -> bytes:
    if result == NO_RESULT:
        raise anchor_error(Code.JobResultNull, source=f"programs/nosana-jobs/src/instructions/{source}")
    assert isinstance(result, bytes)
    return result


def _integers(arguments: tuple[Argument, ...]) -> tuple[int, ...]:
    return tuple(value for value in arguments if isinstance(value, int))


# Handlers


def _open(context: Context, arguments: tuple[Argument, ...]) -> None:
    expiration, price, timeout, job_type, minimum = _integers(arguments)
    market = context.market
    market.authority = context.key("authority")
    market.job_expiration = expiration
    market.job_price = price
    market.job_timeout = timeout
    market.job_type = job_type if job_type in JOB_TYPES else JOB_TYPE_UNKNOWN
    market.vault, market.vault_bump = market_vault(context.key("market"), context.key("mint"))
    market.node_access_key = context.key("access_key")
    market.node_xnos_minimum = minimum
    market.queue_type = QUEUE_EMPTY


def _update(context: Context, arguments: tuple[Argument, ...]) -> None:
    expiration, price, job_type, minimum, timeout = _integers(arguments)
    market = context.market
    market.job_expiration = expiration
    market.job_price = price
    market.job_timeout = timeout
    market.job_type = job_type
    market.node_access_key = context.key("access_key")
    market.node_xnos_minimum = minimum


def _close(context: Context, _: tuple[Argument, ...]) -> None:
    vault = context.key("vault")
    _pay_out(context, "user", context.token("vault").amount)
    token.close_account(context.frame, vault, context.key("authority"), vault, signed_by=vault)


def _fill_job(context: Context, arguments: tuple[Argument, ...]) -> Job:
    ipfs_job, timeout = arguments
    assert isinstance(ipfs_job, bytes)
    assert isinstance(timeout, int)
    job = context.job
    job.ipfs_job = ipfs_job
    job.market = context.key("market")
    job.payer = context.key("payer")
    job.price = context.market.job_price
    job.project = context.key("authority")
    job.timeout = timeout
    return job


def _list(context: Context, arguments: tuple[Argument, ...]) -> None:
    job, market = _fill_job(context, arguments), context.market
    if market.queue_type == QUEUE_NODE:
        _start_run(context, context.key("job"), _pop(market))
    else:
        _enqueue(market, context.key("job"), QUEUE_JOB)
    if job.price:
        _pay_in(context, _deposit(job.price, job.timeout))


def _assign(context: Context, arguments: tuple[Argument, ...]) -> None:
    _dequeue(context.market, context.key("node"))
    job, run = _fill_job(context, arguments), context.run
    run.job = context.key("job")
    run.node = context.key("node")
    run.payer = context.key("payer")
    run.time = context.clock
    if job.price:
        _pay_in(context, _deposit(job.price, job.timeout))


def _delist(context: Context, _: tuple[Argument, ...]) -> None:
    _dequeue(context.market, context.key("job"))
    job = context.job
    if job.price:
        _pay_out(context, "deposit", _deposit(job.price, job.timeout))


def _recover(context: Context, _: tuple[Argument, ...]) -> None:
    _pay_out(context, "user", _deposit(context.job.price, context.job.timeout))


def _extend(context: Context, arguments: tuple[Argument, ...]) -> None:
    (timeout,) = _integers(arguments)
    job = context.job
    if timeout <= job.timeout:
        source = "programs/nosana-jobs/src/instructions/extend.rs:41"
        raise anchor_error(Code.JobTimeoutNotGreater, source=source, compared=(timeout, job.timeout))
    added = _minus(timeout, job.timeout)
    job.timeout = timeout
    if job.price:
        _pay_in(context, _deposit(job.price, added))


def _end(context: Context, _: tuple[Argument, ...]) -> None:
    job, run = context.job, context.run
    job.state = STATE_DONE
    job.node = run.node
    job.time_start = run.time
    job.time_end = context.clock
    _settle(context)


def _work(context: Context, _: tuple[Argument, ...]) -> None:
    if context.market.queue_type == QUEUE_JOB:
        _start_run(context, _pop(context.market), context.key("authority"))
    else:
        _enqueue(context.market, context.key("authority"), QUEUE_NODE)


def _stop(context: Context, _: tuple[Argument, ...]) -> None:
    _dequeue(context.market, context.key("node"))


def _claim(context: Context, _: tuple[Argument, ...]) -> None:
    run = context.run
    run.job = context.key("job")
    run.node = context.key("authority")
    run.payer = context.key("payer")
    run.time = context.clock


def _complete(context: Context, arguments: tuple[Argument, ...]) -> None:
    context.job.ipfs_result = _require_result(arguments[0], "complete.rs:17")


def _finish(context: Context, arguments: tuple[Argument, ...]) -> None:
    job = context.job
    job.ipfs_result = _require_result(arguments[0], "finish.rs:52")
    job.state = STATE_DONE
    job.node = context.key("authority")
    job.time_start = context.run.time
    job.time_end = context.clock
    _settle(context)


def _quit(context: Context, _: tuple[Argument, ...]) -> None:
    context.job.state = STATE_STOPPED


def _nothing(_context: Context, _: tuple[Argument, ...]) -> None:
    """Closing the account is all there is to do, and that is declared."""


_SPECS: Final = (
    Spec(
        "open",
        ("i64", "u64", "i64", "u8", "u128"),
        (
            Field("mint", Kind.MINT, (_address(lambda _: NOS_MINT, Code.InvalidMint),)),
            Field("market", Kind.MARKET, init_by="authority"),
            Field("vault", Kind.TOKEN, init_by="authority"),
            Field("authority", Kind.SIGNER, mut=True),
            Field("access_key", Kind.UNCHECKED),
            Field("rent", Kind.RENT),
            _SYSTEM_PROGRAM,
            _TOKEN_PROGRAM,
        ),
        _open,
    ),
    Spec(
        "update",
        ("i64", "u64", "u8", "u128", "i64"),
        (
            Field("market", Kind.MARKET, (_has_one("authority", Code.Unauthorized),), mut=True),
            Field("access_key", Kind.UNCHECKED),
            _AUTHORITY,
        ),
        _update,
    ),
    Spec(
        "close",
        (),
        (
            Field(
                "market",
                Kind.MARKET,
                (_has_one("authority", Code.Unauthorized), _OWN_VAULT),
                mut=True,
                close_to="authority",
            ),
            _VAULT,
            _USER,
            _AUTHORITY,
            _TOKEN_PROGRAM,
        ),
        _close,
    ),
    Spec(
        "close_admin",
        (),
        (
            Field("market", Kind.MARKET, (_OWN_VAULT,), mut=True, close_to="authority"),
            _VAULT,
            _USER,
            _ADMIN,
            _TOKEN_PROGRAM,
        ),
        _close,
    ),
    Spec(
        "list",
        ("bytes32", "i64"),
        (
            Field("job", Kind.JOB, init_by="payer"),
            Field("market", Kind.MARKET, (_OWN_VAULT,), mut=True),
            Field("run", Kind.UNCHECKED, (_unused_key,), mut=True),
            _LISTING_USER,
            _VAULT,
            _PAYING,
            _REFLECTION,
            _REWARDS_VAULT,
            _AUTHORITY,
            _REWARDS_PROGRAM,
            _TOKEN_PROGRAM,
            _SYSTEM_PROGRAM,
        ),
        _list,
    ),
    Spec(
        "assign",
        ("bytes32", "i64"),
        (
            Field("job", Kind.JOB, init_by="payer"),
            Field(
                "market",
                Kind.MARKET,
                (
                    _OWN_VAULT,
                    _require(lambda c: c.market.queue_type == QUEUE_NODE, Code.MarketInWrongState),
                ),
                mut=True,
            ),
            Field("run", Kind.RUN, init_by="payer"),
            Field("node", Kind.UNCHECKED),
            _LISTING_USER,
            _VAULT,
            _PAYING,
            _REFLECTION,
            _REWARDS_VAULT,
            _AUTHORITY,
            _REWARDS_PROGRAM,
            _TOKEN_PROGRAM,
            _SYSTEM_PROGRAM,
        ),
        _assign,
    ),
    Spec(
        "delist",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (_OWN_PAYER, _OWN_MARKET, _BY_PROJECT, _JOB_QUEUED),
                mut=True,
                close_to="payer",
            ),
            Field(
                "market",
                Kind.MARKET,
                (
                    _OWN_VAULT,
                    _require(lambda c: c.market.queue_type == QUEUE_JOB, Code.MarketInWrongState),
                ),
                mut=True,
            ),
            Field(
                "deposit",
                Kind.TOKEN,
                (_own_nos_account(lambda c: c.key("payer"), _job_price)("deposit"),),
                mut=True,
            ),
            _PAYER,
            _VAULT,
            _TOKEN_PROGRAM,
            Field("authority", Kind.SIGNER, mut=True),
        ),
        _delist,
    ),
    Spec(
        "recover",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (_OWN_PAYER, _OWN_MARKET, _BY_PROJECT, _JOB_STOPPED),
                mut=True,
                close_to="payer",
            ),
            _MARKET,
            _VAULT,
            _USER,
            _PAYER,
            _AUTHORITY,
            _TOKEN_PROGRAM,
        ),
        _recover,
    ),
    Spec(
        "extend",
        ("i64",),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    _OWN_MARKET,
                    _BY_PROJECT,
                    _require(lambda c: c.job.price == 0 or c.job.payer == c.key("payer"), Code.Unauthorized),
                    _JOB_QUEUED,
                ),
                mut=True,
            ),
            _MARKET,
            Field(
                "user",
                Kind.TOKEN,
                (_own_nos_account(lambda c: c.key("payer"), _job_price)("user"),),
                mut=True,
            ),
            _VAULT,
            _REFLECTION,
            _REWARDS_VAULT,
            _AUTHORITY,
            Field("payer", Kind.SIGNER),
            _REWARDS_PROGRAM,
            _TOKEN_PROGRAM,
        ),
        _extend,
    ),
    Spec(
        "end",
        (),
        (
            Field("job", Kind.JOB, (_OWN_MARKET, _BY_PROJECT), mut=True),
            _MARKET,
            Field(
                "run",
                Kind.RUN,
                (
                    _OWN_PAYER,
                    _OWN_JOB,
                    _require(lambda c: c.run.job == c.key("job"), Code.JobInvalidRunAccount),
                ),
                mut=True,
                close_to="payer",
            ),
            Field(
                "deposit",
                Kind.TOKEN,
                (_own_nos_account(lambda c: c.job.payer, _job_price)("deposit"),),
                mut=True,
                shared=True,
            ),
            Field(
                "user",
                Kind.TOKEN,
                (_own_nos_account(lambda c: c.run.node, _job_price)("user"),),
                mut=True,
            ),
            _VAULT,
            _PAYER,
            Field("authority", Kind.SIGNER, mut=True),
            _TOKEN_PROGRAM,
        ),
        _end,
    ),
    Spec(
        "work",
        (),
        (
            Field("run", Kind.UNCHECKED, (_unused_key,), mut=True),
            Field(
                "market",
                Kind.MARKET,
                (
                    _require(
                        lambda c: (
                            c.market.queue_type == QUEUE_JOB or c.key("authority") not in c.market.queue
                        ),
                        Code.NodeAlreadyQueued,
                    ),
                ),
                mut=True,
            ),
            _PAYING,
            *_NODE_ENTRY,
            _AUTHORITY,
            _SYSTEM_PROGRAM,
        ),
        _work,
    ),
    Spec(
        "stop",
        (),
        (
            Field(
                "market",
                Kind.MARKET,
                (
                    _require(lambda c: c.market.queue_type == QUEUE_NODE, Code.MarketInWrongState),
                    _require(
                        lambda c: c.key("authority") in (c.market.authority, c.key("node")), Code.Unauthorized
                    ),
                ),
                mut=True,
            ),
            Field("node", Kind.UNCHECKED),
            _AUTHORITY,
        ),
        _stop,
    ),
    Spec(
        "claim",
        (),
        (
            Field("job", Kind.JOB, (_OWN_MARKET, _JOB_STOPPED), mut=True),
            Field("run", Kind.RUN, init_by="payer"),
            Field("market", Kind.MARKET),
            *_NODE_ENTRY,
            _PAYING,
            _AUTHORITY,
            _SYSTEM_PROGRAM,
        ),
        _claim,
    ),
    Spec(
        "complete",
        ("bytes32",),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    _JOB_DONE,
                    _require(lambda c: c.job.node == c.key("authority"), Code.Unauthorized),
                    _require(lambda c: c.job.ipfs_result == NO_RESULT, Code.JobResultsAlreadySet),
                ),
                mut=True,
            ),
            _AUTHORITY,
        ),
        _complete,
    ),
    Spec(
        "finish",
        ("bytes32",),
        (
            Field(
                "job",
                Kind.JOB,
                (_OWN_MARKET, _require(lambda c: c.job.payer == c.key("payer_job"), Code.InvalidPayer)),
                mut=True,
            ),
            Field(
                "run",
                Kind.RUN,
                (
                    _OWN_JOB,
                    _require(lambda c: c.run.payer == c.key("payer_run"), Code.InvalidPayer),
                    _BY_NODE,
                ),
                mut=True,
                close_to="payer_run",
            ),
            _MARKET,
            _VAULT,
            Field(
                "deposit",
                Kind.TOKEN,
                (_own_nos_account(lambda c: c.key("payer_job"), _job_price)("deposit"),),
                mut=True,
                shared=True,
            ),
            Field(
                "user",
                Kind.TOKEN,
                (_require(lambda c: c.job.price == 0 or c.token("user").mint == NOS_MINT, Code.InvalidATA),),
                mut=True,
            ),
            Field("payer_run", Kind.UNCHECKED, mut=True),
            Field("payer_job", Kind.UNCHECKED, mut=True),
            _AUTHORITY,
            _TOKEN_PROGRAM,
        ),
        _finish,
    ),
    Spec(
        "quit",
        (),
        (
            Field("job", Kind.JOB, mut=True),
            Field("run", Kind.RUN, (_OWN_JOB, _OWN_PAYER, _BY_NODE), mut=True, close_to="payer"),
            _PAYER,
            _AUTHORITY,
        ),
        _quit,
    ),
    Spec(
        "quit_admin",
        (),
        (Field("run", Kind.RUN, (_OWN_PAYER,), mut=True, close_to="payer"), _PAYER, _ADMIN),
        _nothing,
    ),
    Spec(
        "clean",
        (),
        (
            Field(
                "job",
                Kind.JOB,
                (
                    _OWN_PAYER,
                    _JOB_DONE,
                    _require(
                        lambda c: c.market.job_expiration < _minus(c.clock, c.job.time_end),
                        Code.JobNotExpired,
                    ),
                ),
                mut=True,
                close_to="payer",
            ),
            Field("market", Kind.MARKET),
            _PAYER,
        ),
        _nothing,
    ),
    Spec(
        "clean_admin",
        (),
        (Field("job", Kind.JOB, (_OWN_PAYER,), mut=True, close_to="payer"), _PAYER, _ADMIN),
        _nothing,
    ),
)

BY_DISCRIMINATOR: Final = {spec.discriminator: spec for spec in _SPECS}
