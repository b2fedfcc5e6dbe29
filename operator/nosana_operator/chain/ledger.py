"""What a host's key did and earned, read from its transactions (docs/protocol/jobs-program.md#instructions).

The accounts of a run and, later, of its job are closed; the transactions stay. So this record of a host's money
needs no stored state: every installation reads the same.

Two histories name a key's earnings: its own (it signs `finish`), and that of its NOS account, because the `end`
of a job's owner names only that account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, NamedTuple

from solana.rpc.commitment import Finalized
from solders.transaction import VersionedTransaction

from nosana_operator.chain.accounts import Job, JobState
from nosana_operator.chain.addresses import TOKEN, Programs
from nosana_operator.chain.concurrency import gather_limited
from nosana_operator.chain.errors import AccountMalformed, ChainUnavailable
from nosana_operator.chain.program import read_instruction
from nosana_operator.chain.rpc.methods import MAX_HISTORY, Rpc
from nosana_operator.chain.rpc.wire import HistoryEntry, InnerInstruction, LandedTransaction
from nosana_operator.transactions import HOST_INSTRUCTIONS, PAYING_INSTRUCTIONS

_TRANSFER: Final = 3
_TRANSFER_CHECKED: Final = 12
_AMOUNT: Final = slice(1, 9)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One instruction of the Jobs program that the key signed, or that paid it.

    Amounts are NOS base units, fees lamports. None is *unknown*: the node does not keep it, or the account that
    held it is closed.
    """

    signature: str
    slot: int
    time: int | None
    """Of the block, unix seconds."""
    kind: str
    """work, claim, stop, finish, complete, quit, or end (by the job's owner)."""
    key: str
    market: str | None
    job: str | None
    run: str | None
    """For `work`, only when it took a job."""
    failed: bool
    """Rejected by the program: only the fee was spent."""
    earned: int | None
    refunded: int | None
    """Refunded to the poster."""
    seconds: int | None
    """Seconds paid; 0 where the kind pays nothing."""
    fee: int
    """The transaction fee, if the key paid it; an entry after the first of a transaction has 0."""


async def read_ledger(
    rpc: Rpc,
    programs: Programs,
    key: str,
    *,
    since: int | None = None,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> list[LedgerEntry]:
    """All entries of a host's key at finalized, the oldest first.

    Args:
        rpc: the network's.
        programs: the network's.
        key: the host's address.
        since: unix seconds; older transactions are left out.
        progress: called with the transactions read so far, and their number.

    Raises:
        ChainUnavailable, RpcError: the histories could not be read completely.
    """
    nos_account = programs.nos_account(key)
    history: dict[str, HistoryEntry] = {}
    for address in (key, nos_account):
        history |= {entry.signature: entry for entry in await _history(rpc, address, since)}
    read: dict[str, list[LedgerEntry]] = {}

    async def one(signature: str) -> None:
        landed = await rpc.landed(signature, Finalized)
        if landed is None:
            raise ChainUnavailable(
                f"The RPC node lists the transaction {signature} but does not have it; use a node that keeps "
                "its whole history, or ask for a later time with --since."
            )
        read[signature] = _entries(signature, landed, programs, key, nos_account)
        progress(len(read), len(history))

    await gather_limited(one(signature) for signature in history)
    # Within a slot, too, the node lists the newest first.
    newest_first = sorted(history.values(), key=lambda entry: entry.slot, reverse=True)
    entries = [entry for each in reversed(newest_first) for entry in read[each.signature]]
    return await _with_seconds(rpc, programs, _with_markets(entries))


async def _history(rpc: Rpc, address: str, since: int | None) -> list[HistoryEntry]:
    """The transactions of an address, newest first, back to `since`."""
    found: list[HistoryEntry] = []
    seen: set[str] = set()
    before = None
    while True:
        page = await rpc.signatures_of(address, Finalized, before=before)
        for entry in page:
            if since is not None and entry.time is not None and entry.time < since:
                return found
            found.append(entry)
        if len(page) < MAX_HISTORY:
            return found
        if page[-1].signature in seen:
            raise ChainUnavailable(
                "The RPC node returns the same page of history again and again; use another one."
            )
        seen |= {entry.signature for entry in page}
        before = page[-1].signature


async def signed_by(rpc: Rpc, programs: Programs, signature: str, key: str) -> str | None:
    """The instruction of the Jobs program that the key signed in that transaction; None: it signed none.

    Incoming payments, a poster's `end` and an admin's own transfers therefore give None.

    Raises:
        ChainUnavailable: the node lists the transaction but does not have it (yet).
    """
    landed = await rpc.landed(signature, Finalized)
    if landed is None:
        raise ChainUnavailable(
            f"The RPC node does not have the transaction {signature} yet; it is asked again."
        )
    for kind, accounts, _ in _calls_of(landed, programs)[1]:
        if kind in HOST_INSTRUCTIONS and accounts["authority"] == key:
            return kind
    return None


async def paid_by(rpc: Rpc, programs: Programs, signature: str) -> tuple[int, int] | None:
    """NOS base units that the `finish` in that transaction paid the host and refunded to the payer.

    None: the node does not keep the transaction, or it has no `finish`.

    Raises:
        ChainUnavailable: no answer.
    """
    landed = await rpc.landed(signature, Finalized)
    if landed is None or landed.err is not None:
        return None
    keys, calls = _calls_of(landed, programs)
    for kind, accounts, inner in calls:
        if kind == "finish":
            earned, refunded = _payments(inner, keys, accounts)
            return None if earned is None or refunded is None else (earned, refunded)
    return None


class _Call(NamedTuple):
    """An instruction of the Jobs program."""

    kind: str
    accounts: Mapping[str, str]
    inner: tuple[InnerInstruction, ...] | None
    """The calls that it made in turn; None: the node does not keep them."""


def _entries(
    signature: str, landed: LandedTransaction, programs: Programs, key: str, nos_account: str
) -> list[LedgerEntry]:
    keys, calls = _calls_of(landed, programs)
    found: list[LedgerEntry] = []
    for kind, accounts, inner in calls:
        own = kind in HOST_INSTRUCTIONS and accounts["authority"] == key
        if not own and not (kind == "end" and accounts["user"] == nos_account):
            continue
        earned: int | None = 0
        refunded: int | None = 0
        if landed.err is None and kind in PAYING_INSTRUCTIONS:
            earned, refunded = _payments(inner, keys, accounts)
        found.append(
            LedgerEntry(
                signature=signature,
                slot=landed.slot,
                time=landed.time,
                kind=kind,
                key=key,
                market=accounts.get("market"),
                job=accounts.get("job"),
                run=None
                if kind == "work" and not _created(accounts["run"], inner, keys)
                else accounts.get("run"),
                failed=landed.err is not None,
                earned=earned,
                refunded=refunded,
                seconds=0,
                fee=landed.fee if keys[0] == key and not found else 0,
            )
        )
    return found


def _calls_of(landed: LandedTransaction, programs: Programs) -> tuple[list[str], list[_Call]]:
    """The transaction's keys and its calls of the Jobs program, direct ones and those through another program:
    an owner whose jobs belong to a multisig sends `end` through it.
    """
    try:
        message = VersionedTransaction.from_bytes(landed.raw).message
    except ValueError:
        # A transaction version that we do not know: Nosana's clients send none.
        return [], []
    keys = [*(str(key) for key in message.account_keys), *landed.loaded]
    found: list[_Call] = []
    for number, each in enumerate(message.instructions):
        outer = InnerInstruction(each.program_id_index, tuple(each.accounts), bytes(each.data))
        inner = None if landed.inner is None else landed.inner.get(number, ())
        line = (outer, *(inner or ()))
        ours = [at for at, each_call in enumerate(line) if _at(keys, each_call.program) == programs.jobs]
        for at, end in pairwise((*ours, len(line))):
            # The inner calls of a call follow it, up to the next call of ours.
            call = read_instruction(line[at].data, [_at(keys, one) for one in line[at].accounts])
            if call is not None:
                found.append(_Call(*call, None if inner is None else line[at + 1 : end]))
    return keys, found


def _at(keys: Sequence[str], index: int) -> str:
    return keys[index] if index < len(keys) else ""


def _payments(
    inner: tuple[InnerInstruction, ...] | None, keys: Sequence[str], accounts: Mapping[str, str]
) -> tuple[int | None, int | None]:
    """The amounts that went from the vault to the host's account and back to the payer's."""
    if inner is None:
        return None, None
    transfers = [
        (target, amount)
        for source, target, amount in (_transfer(call, keys) for call in inner)
        if source == accounts["vault"]
    ]
    # The host is paid first; both may be the same account (docs/protocol/jobs-program.md#finish).
    earned = next((at for at, (target, _) in enumerate(transfers) if target == accounts["user"]), None)
    paid = transfers.pop(earned)[1] if earned is not None else 0
    return paid, sum(amount for target, amount in transfers if target == accounts["deposit"])


def _created(run: str, inner: tuple[InnerInstruction, ...] | None, keys: Sequence[str]) -> bool:
    """Whether `work` took a job and created the run account; otherwise the host joined the queue."""
    return any(_at(keys, at) == run for call in inner or () for at in call.accounts)


def _transfer(call: InnerInstruction, keys: Sequence[str]) -> tuple[str, str, int]:
    """Source, target and amount of a token transfer; empty addresses and 0 for any other call."""
    tag = call.data[0] if len(call.data) >= _AMOUNT.stop and _at(keys, call.program) == TOKEN else None
    target = {_TRANSFER: 1, _TRANSFER_CHECKED: 2}.get(tag) if tag is not None else None
    if target is None or len(call.accounts) <= target:
        return "", "", 0
    amount = int.from_bytes(call.data[_AMOUNT], "little")
    return _at(keys, call.accounts[0]), _at(keys, call.accounts[target]), amount


def _with_markets(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    """Fill in markets: `complete` names only the job, `quit` only job and run; earlier entries name the market."""
    of_job: dict[str | None, str] = {e.job: e.market for e in entries if e.job and e.market}
    of_run: dict[str | None, str] = {e.run: e.market for e in entries if e.run and e.market}
    return [
        entry
        if entry.market is not None
        else replace(entry, market=of_job.get(entry.job) or of_run.get(entry.run))
        for entry in entries
    ]


async def _with_seconds(rpc: Rpc, programs: Programs, entries: list[LedgerEntry]) -> list[LedgerEntry]:
    """Fill in the paid seconds where the job's account is still open; a day after its end anybody may close it."""
    addresses = sorted(
        {
            entry.job
            for entry in entries
            if entry.kind in PAYING_INSTRUCTIONS and not entry.failed and entry.job
        }
    )
    accounts = (await rpc.accounts(addresses, Finalized)).value if addresses else {}
    jobs: dict[str, Job] = {}
    for address, info in accounts.items():
        if info is not None and info.owner == programs.jobs:
            try:
                jobs[address] = Job.decode(address, info.data)
            except AccountMalformed:
                continue

    def seconds(entry: LedgerEntry) -> int | None:
        job = jobs.get(entry.job or "")
        if job is None or job.state is not JobState.DONE or job.node != entry.key:
            return None
        if job.price and entry.earned is not None:
            return entry.earned // job.price
        return max(0, min(job.time_end - job.time_start, job.timeout))

    return [
        replace(entry, seconds=seconds(entry))
        if entry.kind in PAYING_INSTRUCTIONS and not entry.failed
        else entry
        for entry in entries
    ]
