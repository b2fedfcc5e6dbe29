"""What the market host knows of the chain, as plain values: addresses are base58 text, amounts base units.

Three-valued everywhere: a fact that could not be read is `UNKNOWN`, which is neither there nor gone
(docs/architecture.md#fixed-choices). The edge (`chain/`) fills these; the decisions read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias, TypeVar

T = TypeVar("T")


class Absent(Enum):
    """The two ways in which an account is not here."""

    GONE = "gone"
    """The chain answered: no such account."""
    UNKNOWN = "unknown"
    """Nobody answered, or not yet."""


GONE: Final = Absent.GONE
UNKNOWN: Final = Absent.UNKNOWN


Known: TypeAlias = T | Absent
"""An account, or why there is none."""

QUEUED: Final = 0
DONE: Final = 2
STOPPED: Final = 3
NO_RESULT: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A RunAccount (docs/protocol/jobs-program.md#runaccount)."""

    address: str
    job: str
    node: str
    payer: str
    time: int


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A JobAccount (docs/protocol/jobs-program.md#jobaccount).

    `state` is 0 queued (also while it runs), 2 done, 3 stopped.
    """

    address: str
    ipfs_job: bytes
    ipfs_result: bytes
    market: str
    node: str
    payer: str
    project: str
    price: int
    state: int
    time_start: int
    time_end: int
    timeout: int

    def tells_of(self, key: str, run_time: int) -> bool:
        """Whether this account holds the end of the key's run that began at `run_time`.

        `finish` and `end` copy the run's start into the job. A job may have several runs, and only the last
        one that was paid stands here.
        """
        return self.state == DONE and self.node == key and self.time_start == run_time

    @property
    def seconds_paid(self) -> int:
        """What the program paid for: price * min(end - start, timeout)."""
        return max(0, min(self.time_end - self.time_start, self.timeout))


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """A MarketAccount."""

    address: str
    price: int
    node_access_key: str | None
    """None: an open market."""
    xnos_minimum: int
    queue_type: Literal["Job", "Node", "Empty"]
    queue: tuple[str, ...]
    slot: int = 0
    """At which it was read."""

    @property
    def standing(self) -> frozenset[str]:
        """The keys that stand in the queue."""
        return frozenset(self.queue) if self.queue_type == "Node" else frozenset()


@dataclass(frozen=True, slots=True)
class Funds:
    """What one wallet has."""

    lamports: int
    nos: int
    nos_account: bool
    xnos: int | None
    """None: there is no stake account."""
    access_keys: frozenset[str] | None = None
    """Collections of which it holds a token that opens their markets; None: not looked for."""


class Fate(Enum):
    """What became of a signed transaction, as far as the signature alone tells."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"
    FAILED = "failed"
    """Landed with an error, at finalized: it cannot have an effect any more."""
    FAILING = "failing"
    """Landed with an error, not yet finalized: a fork might still undo that."""
    EXPIRED = "expired"
    """The finalized block height is past its last valid one and no block holds it: it cannot land."""
    UNKNOWN = "unknown"
    """Nobody answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transaction's fate, and for a failed one the chain's words."""

    fate: Fate
    error: str = ""
    slot: int | None = None
    """Of the block that holds it, for a confirmed or finalized one."""

    @property
    def dead(self) -> bool:
        """Whether it can have no effect any more, so that another may be signed in its place."""
        return self.fate in (Fate.FAILED, Fate.EXPIRED)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction, before it is durable. `raw` is base64 of the wire bytes."""

    kind: str
    key: str
    signature: str
    raw: str
    blockhash: str
    last_valid_block_height: int
    run: str | None = None
    """For `work`: the address of the run account it makes when jobs wait."""


@dataclass(frozen=True, slots=True)
class Past:
    """A transaction of a key's history on chain, at finalized."""

    signature: str
    slot: int
    failed: bool


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """What a `finish` wants besides run and job, as it is at confirmed (docs/protocol/jobs-program.md#finish)."""

    market: bool
    """The market account is there."""
    vault: int | None
    """NOS that the market's vault holds, base units; None: it is closed."""
    payer_account: bool
    """The job's payer has a NOS account, for what comes back to him."""
    account_rent: int
    """What making that account is worth, NOS base units, by the operator's settings."""
    payout_problem: str | None = None
    """Why the payout address is none to pay to."""


YOUNG = timedelta(seconds=30)
"""RPC nodes lag, finality by some 13 s: of a run as young as this, absence alone means nothing."""
