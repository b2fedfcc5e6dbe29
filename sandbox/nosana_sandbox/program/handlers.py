"""What the instructions do once their accounts are found right (docs/protocol/jobs-program.md#instructions)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nosana_sandbox.program import system, token
from nosana_sandbox.program.addresses import JOBS_PROGRAM, market_vault
from nosana_sandbox.program.anchor import Context, store_new
from nosana_sandbox.program.failure import Code, anchor_error, panic
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
    STATE_STOPPED,
    U64_MAX,
    Job,
    Market,
    Run,
)

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

    from nosana_sandbox.program.spec import Argument

# Arithmetic that panics where Rust's does


def _deposit(price: int, seconds: int) -> int:
    """price · seconds as u64."""
    if seconds < 0:
        raise panic("a negative time does not fit into u64")
    if price * seconds > U64_MAX:
        raise panic("attempt to multiply with overflow")
    return price * seconds


def minus_i64(left: int, right: int) -> int:
    """A difference of two i64."""
    if not I64_MIN <= left - right <= I64_MAX:
        raise panic("attempt to subtract with overflow")
    return left - right


# The queue


def _enqueue(market: Market, entry: Pubkey, queue_type: int) -> None:
    # A market of unknown job type takes nobody in; the caller is not told (docs/protocol/jobs-program.md#list).
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
    """From the payer's account into the vault, signed by the payer.

    The network fee is 0 (docs/protocol/jobs-program.md#network-fee).
    """
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
    earned = _deposit(job.price, min(minus_i64(job.time_end, job.time_start), job.timeout))
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


def do_open(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Set up a new market; its vault has been made already."""
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


def do_update(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Change a market's terms; what waits in its queue stays."""
    expiration, price, job_type, minimum, timeout = _integers(arguments)
    market = context.market
    market.job_expiration = expiration
    market.job_price = price
    market.job_timeout = timeout
    market.job_type = job_type
    market.node_access_key = context.key("access_key")
    market.node_xnos_minimum = minimum


def do_close(context: Context, _: tuple[Argument, ...]) -> None:
    """Empty and close the vault; closing the market is declared."""
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


def do_list(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Post a job: match it with the first node that waits, or queue it, and take the deposit."""
    job, market = _fill_job(context, arguments), context.market
    if market.queue_type == QUEUE_NODE:
        _start_run(context, context.key("job"), _pop(market))
    else:
        _enqueue(market, context.key("job"), QUEUE_JOB)
    if job.price:
        _pay_in(context, _deposit(job.price, job.timeout))


def do_assign(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Post a job for one particular node that waits."""
    _dequeue(context.market, context.key("node"))
    job, run = _fill_job(context, arguments), context.run
    run.job = context.key("job")
    run.node = context.key("node")
    run.payer = context.key("payer")
    run.time = context.clock
    if job.price:
        _pay_in(context, _deposit(job.price, job.timeout))


def do_delist(context: Context, _: tuple[Argument, ...]) -> None:
    """Take a job that still waits out of the queue and refund its deposit."""
    _dequeue(context.market, context.key("job"))
    job = context.job
    if job.price:
        _pay_out(context, "deposit", _deposit(job.price, job.timeout))


def do_recover(context: Context, _: tuple[Argument, ...]) -> None:
    """Refund the whole deposit of a stopped job, to any NOS account."""
    _pay_out(context, "user", _deposit(context.job.price, context.job.timeout))


def do_extend(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Raise a job's timeout, to a new absolute value, and take the deposit for the seconds added."""
    (timeout,) = _integers(arguments)
    job = context.job
    if timeout <= job.timeout:
        source = "programs/nosana-jobs/src/instructions/extend.rs:41"
        raise anchor_error(Code.JobTimeoutNotGreater, source=source, compared=(timeout, job.timeout))
    added = minus_i64(timeout, job.timeout)
    job.timeout = timeout
    if job.price:
        _pay_in(context, _deposit(job.price, added))


def do_end(context: Context, _: tuple[Argument, ...]) -> None:
    """The project ends a job: the node is paid for its time and may post its result later."""
    job, run = context.job, context.run
    job.state = STATE_DONE
    job.node = run.node
    job.time_start = run.time
    job.time_end = context.clock
    _settle(context)


def do_work(context: Context, _: tuple[Argument, ...]) -> None:
    """A node takes the first job that waits, or stands in the queue."""
    if context.market.queue_type == QUEUE_JOB:
        _start_run(context, _pop(context.market), context.key("authority"))
    else:
        _enqueue(context.market, context.key("authority"), QUEUE_NODE)


def do_stop(context: Context, _: tuple[Argument, ...]) -> None:
    """Take a node out of the queue."""
    _dequeue(context.market, context.key("node"))


def do_claim(context: Context, _: tuple[Argument, ...]) -> None:
    """Start a run on a stopped job. The job stays stopped (docs/protocol/jobs-program.md#claim)."""
    run = context.run
    run.job = context.key("job")
    run.node = context.key("authority")
    run.payer = context.key("payer")
    run.time = context.clock


def do_complete(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Post the result of a job that its project has ended."""
    context.job.ipfs_result = _require_result(arguments[0], "complete.rs:17")


def do_finish(context: Context, arguments: tuple[Argument, ...]) -> None:
    """Post the result and settle. Whatever state the job is in (docs/protocol/jobs-program.md#finish)."""
    job = context.job
    job.ipfs_result = _require_result(arguments[0], "finish.rs:52")
    job.state = STATE_DONE
    job.node = context.key("authority")
    job.time_start = context.run.time
    job.time_end = context.clock
    _settle(context)


def do_quit(context: Context, _: tuple[Argument, ...]) -> None:
    """Give a job up: it is stopped, not queued again, and nothing is paid."""
    context.job.state = STATE_STOPPED


def do_nothing(_context: Context, _: tuple[Argument, ...]) -> None:
    """Closing the account is all there is to do, and that is declared."""
