"""A job's state and payments, from its accounts and the transactions that name it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from solders.pubkey import Pubkey

from nosana_operator.content import NO_RESULT, cid_from_digest
from nosana_sandbox.program.addresses import JOBS_PROGRAM
from nosana_sandbox.program.layout import STATE_DONE, STATE_QUEUED, STATE_STOPPED, Job, Run

_STATES: Final = {STATE_QUEUED: "Queued", STATE_DONE: "Done", STATE_STOPPED: "Stopped"}
_INSTRUCTION: Final = "Program log: Instruction: "
_INVOKED: Final = f"Program {JOBS_PROGRAM} invoke ["


@dataclass(frozen=True, slots=True)
class Transfer:
    """NOS base units that one token account gained (or lost, below zero) in a transaction."""

    account: str
    owner: str
    change: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One successful transaction that names the job, and the NOS it moved."""

    signature: str
    instructions: tuple[str, ...]
    """Names as the program logs them, such as `Finish`."""
    slot: int
    time: int
    transfers: tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """NOS base units over the job's life: what the poster put in and got back, what hosts got."""

    deposited: int
    earned: int
    refunded: int


@dataclass(frozen=True, slots=True)
class RunView:
    """A host at work on the job."""

    address: str
    node: str
    payer: str
    time: int


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as the chain shows it. Times in unix seconds (0: not yet), price in base units per second."""

    address: str
    state: str
    """Queued, Running, Done or Stopped."""
    market: str
    project: str
    payer: str
    node: str | None
    price: int
    timeout: int
    time_start: int
    time_end: int
    seconds: int
    """The paid time: the time it ran, at most its timeout."""
    definition_cid: str
    result_cid: str | None
    run: RunView | None
    totals: Totals
    payments: tuple[Payment, ...]

    def to_json(self) -> dict[str, Any]:
        """As `nosana-sandbox job --output json` prints it, without the result itself."""
        body = asdict(self)
        return {_camel(key): value for key, value in body.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join("CID" if part == "cid" else part.capitalize() for part in rest)


def view_of(
    address: Pubkey, job: Job, runs: Mapping[Pubkey, Run], history: Iterable[Mapping[str, Any]], vault: Pubkey
) -> JobView:
    """Put together a job's account, its runs' accounts and its transactions.

    `history` are `getTransaction` results (encoding json), oldest first. A transaction that names several
    jobs counts with all it moved.
    """
    payments = payments_of(history)
    run = next(iter(sorted(runs.items(), key=lambda item: item[1].time)), None)
    state = _STATES.get(job.state, f"Unknown {job.state}")
    running = state == "Queued" and run is not None
    nobody = Pubkey.default()
    return JobView(
        address=str(address),
        state="Running" if running else state,
        market=str(job.market),
        project=str(job.project),
        payer=str(job.payer),
        node=str(run[1].node) if run is not None else None if job.node == nobody else str(job.node),
        price=job.price,
        timeout=job.timeout,
        time_start=run[1].time if run is not None and running else job.time_start,
        time_end=job.time_end,
        seconds=max(0, min(job.time_end - job.time_start, job.timeout)),
        definition_cid=cid_from_digest(job.ipfs_job),
        result_cid=None if job.ipfs_result == NO_RESULT else cid_from_digest(job.ipfs_result),
        run=None if run is None else RunView(str(run[0]), str(run[1].node), str(run[1].payer), run[1].time),
        totals=totals_of(payments, payer=str(job.payer), vault=str(vault)),
        payments=payments,
    )


def totals_of(payments: Iterable[Payment], *, payer: str, vault: str) -> Totals:
    """Add up what moved: everything that left the vault went either to the payer or to a host."""
    deposited = earned = refunded = 0
    for payment in payments:
        for transfer in payment.transfers:
            if transfer.account == vault:
                deposited += max(0, transfer.change)
            elif transfer.owner == payer:
                refunded += max(0, transfer.change)
            else:
                earned += max(0, transfer.change)
    return Totals(deposited, earned, refunded)


def payments_of(history: Iterable[Mapping[str, Any]]) -> tuple[Payment, ...]:
    """The successful ones of `getTransaction` results (encoding json), in their order."""
    return tuple(
        Payment(
            signature=told["transaction"]["signatures"][0],
            instructions=tuple(_instructions(told["meta"]["logMessages"])),
            slot=told["slot"],
            time=told["blockTime"],
            transfers=tuple(_transfers(told)),
        )
        for told in history
        if told["meta"]["err"] is None
    )


def _instructions(logs: Iterable[str]) -> Iterable[str]:
    """Names of the Jobs program's instructions; other programs log such lines too."""
    invoked = False
    for line in logs:
        if invoked and line.startswith(_INSTRUCTION):
            yield line.removeprefix(_INSTRUCTION)
        invoked = line.startswith(_INVOKED)


def _transfers(told: Mapping[str, Any]) -> Iterable[Transfer]:
    keys = told["transaction"]["message"]["accountKeys"]
    before = {each["accountIndex"]: each for each in told["meta"]["preTokenBalances"]}
    after = {each["accountIndex"]: each for each in told["meta"]["postTokenBalances"]}
    for index in sorted(before.keys() | after.keys()):
        change = _amount(after.get(index)) - _amount(before.get(index))
        if change:
            owner = (after.get(index) or before[index])["owner"]
            yield Transfer(account=keys[index], owner=owner, change=change)


def _amount(balance: Mapping[str, Any] | None) -> int:
    return 0 if balance is None else int(balance["uiTokenAmount"]["amount"])
