"""What the market host knows of the chain, as plain values: addresses are base58 text, amounts base units.

Every fact has three values: one that could not be read is `UNKNOWN`, which is neither present nor gone
(docs/architecture.md#fixed-choices). The edge (`chain/`) provides them; the decisions read nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias, TypeVar

T = TypeVar("T")


class Absent(Enum):
    """Why there is no account to read from."""

    GONE = "gone"
    """The chain answered that there is no such account."""
    UNKNOWN = "unknown"
    """No node has answered, or not yet."""


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
        """Whether this account records the end of the wallet's run that began at `run_time`.

        `finish` and `end` copy the run's start into the job. A job may have several runs, and the account records
        only the last one that was paid.
        """
        return self.state == DONE and self.node == key and self.time_start == run_time

    @property
    def seconds_paid(self) -> int:
        """Seconds that the program paid for: it pays price * min(end - start, timeout)."""
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
    """The slot at which it was read."""

    @property
    def standing(self) -> frozenset[str]:
        """The wallets in the queue."""
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
    """Collections of which it holds a token: access keys of markets. None: not read."""


class Fate(Enum):
    """What became of a signed transaction, as far as the signature alone tells."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"
    FAILED = "failed"
    """Landed with an error, at finalized: it can no longer have an effect."""
    FAILING = "failing"
    """Landed with an error, not yet finalized: a fork might still undo that."""
    EXPIRED = "expired"
    """The finalized block height is past its last valid one and no block holds it: it can no longer land."""
    UNKNOWN = "unknown"
    """No node has answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transaction's fate, and for a failed one the chain's words."""

    fate: Fate
    error: str = ""
    slot: int | None = None
    """The slot of the block that holds it, if it is confirmed or finalized."""

    @property
    def dead(self) -> bool:
        """Whether it can no longer have an effect, so that another may be signed in its place."""
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
    """A finalized transaction in a wallet's history."""

    signature: str
    slot: int
    failed: bool


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """The accounts that a `finish` needs besides run and job, at confirmed (docs/protocol/jobs-program.md#finish)."""

    market: bool
    """The market account exists."""
    vault: int | None
    """NOS that the market's vault holds, base units; None: it is closed."""
    payer_account: bool
    """The job's payer has a NOS account, which receives the refund."""
    account_rent: int
    """What creating that account costs, in NOS base units, by the operator's settings."""
    payout_problem: str | None = None
    """Why the payout address cannot receive the payout."""


YOUNG = timedelta(seconds=30)
"""RPC nodes lag, and finality takes some 13 s: for a run as young as this, absence alone proves nothing."""
