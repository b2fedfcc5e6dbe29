"""Account layouts: little-endian Borsh behind an 8-byte discriminator; SPL Token's own.

(docs/protocol/jobs-program.md#account-layouts)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self

from solders.pubkey import Pubkey

NO_RESULT: Final = bytes(32)
U64_MAX: Final = (1 << 64) - 1
I64_MIN: Final = -(1 << 63)
I64_MAX: Final = (1 << 63) - 1

QUEUE_JOB: Final = 0
QUEUE_NODE: Final = 1
QUEUE_EMPTY: Final = 255

STATE_QUEUED: Final = 0
STATE_DONE: Final = 2
STATE_STOPPED: Final = 3

JOB_TYPE_UNKNOWN: Final = 255
JOB_TYPES: Final = frozenset({0, 1, 2, 3, 4})

_ZERO: Final = Pubkey.default()


class UnreadableError(ValueError):
    """The bytes are too short for the layout, or a token account's marker bytes are not ones it knows."""


def account_discriminator(name: str) -> bytes:
    """The first 8 bytes of an Anchor account."""
    return hashlib.sha256(f"account:{name}".encode()).digest()[:8]


def rent_exempt_minimum(length: int) -> int:
    """Lamports that an account of so many data bytes must hold."""
    return (128 + length) * 6960


def _unpack(layout: struct.Struct, data: bytes) -> tuple[Any, ...]:
    # The head of a padded account: what lies behind the layout is not looked at.
    if len(data) < layout.size:
        raise UnreadableError(f"{len(data)} bytes, {layout.size} expected")
    return layout.unpack_from(data)


@dataclass(slots=True)
class Market:
    """A market: what it pays, who may stand in it, and its queue of jobs or nodes."""

    DISCRIMINATOR: ClassVar = account_discriminator("MarketAccount")
    SPACE: ClassVar = 10_224
    _HEAD: ClassVar = struct.Struct("<8s32sqQqB32sB32s16sBI")

    authority: Pubkey = _ZERO
    job_expiration: int = 0
    job_price: int = 0
    job_timeout: int = 0
    job_type: int = 0
    vault: Pubkey = _ZERO
    vault_bump: int = 0
    node_access_key: Pubkey = _ZERO
    node_xnos_minimum: int = 0
    queue_type: int = 0
    queue: list[Pubkey] = field(default_factory=list)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a market account, discriminator included."""
        (
            _,
            authority,
            expiration,
            price,
            timeout,
            job_type,
            vault,
            bump,
            key,
            minimum,
            queue_type,
            length,
        ) = _unpack(cls._HEAD, data)
        start = cls._HEAD.size
        if len(data) < start + 32 * length:
            raise UnreadableError(f"a queue of {length} entries does not fit")
        queue = [Pubkey(data[at : at + 32]) for at in range(start, start + 32 * length, 32)]
        return cls(
            authority=Pubkey(authority),
            job_expiration=expiration,
            job_price=price,
            job_timeout=timeout,
            job_type=job_type,
            vault=Pubkey(vault),
            vault_bump=bump,
            node_access_key=Pubkey(key),
            node_xnos_minimum=int.from_bytes(minimum, "little"),
            queue_type=queue_type,
            queue=queue,
        )

    def encode(self) -> bytes:
        """The bytes in front; what stands behind them in the account stays as it is."""
        head = self._HEAD.pack(
            self.DISCRIMINATOR,
            bytes(self.authority),
            self.job_expiration,
            self.job_price,
            self.job_timeout,
            self.job_type,
            bytes(self.vault),
            self.vault_bump,
            bytes(self.node_access_key),
            self.node_xnos_minimum.to_bytes(16, "little"),
            self.queue_type,
            len(self.queue),
        )
        return head + b"".join(bytes(entry) for entry in self.queue)


@dataclass(slots=True)
class Job:
    """A job; `node`, `time_start` and `time_end` stay zero until it ends.

    (docs/protocol/jobs-program.md#running-is-not-stored)
    """

    DISCRIMINATOR: ClassVar = account_discriminator("JobAccount")
    SPACE: ClassVar = 240
    _BODY: ClassVar = struct.Struct("<8s32s32s32s32s32sQ32sBqqq")

    ipfs_job: bytes = NO_RESULT
    ipfs_result: bytes = NO_RESULT
    market: Pubkey = _ZERO
    node: Pubkey = _ZERO
    payer: Pubkey = _ZERO
    price: int = 0
    project: Pubkey = _ZERO
    state: int = STATE_QUEUED
    time_end: int = 0
    time_start: int = 0
    timeout: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a job account, discriminator included."""
        (_, ipfs_job, ipfs_result, market, node, payer, price, project, state, end, start, timeout) = _unpack(
            cls._BODY, data
        )
        return cls(
            ipfs_job=ipfs_job,
            ipfs_result=ipfs_result,
            market=Pubkey(market),
            node=Pubkey(node),
            payer=Pubkey(payer),
            price=price,
            project=Pubkey(project),
            state=state,
            time_end=end,
            time_start=start,
            timeout=timeout,
        )

    def encode(self) -> bytes:
        """The bytes in front; what stands behind them in the account stays as it is."""
        return self._BODY.pack(
            self.DISCRIMINATOR,
            self.ipfs_job,
            self.ipfs_result,
            bytes(self.market),
            bytes(self.node),
            bytes(self.payer),
            self.price,
            bytes(self.project),
            self.state,
            self.time_end,
            self.time_start,
            self.timeout,
        )


@dataclass(slots=True)
class Run:
    """A node at work on a job; `state` is never written by the program."""

    DISCRIMINATOR: ClassVar = account_discriminator("RunAccount")
    SPACE: ClassVar = 120
    _BODY: ClassVar = struct.Struct("<8s32s32s32sBq")

    job: Pubkey = _ZERO
    node: Pubkey = _ZERO
    payer: Pubkey = _ZERO
    state: int = 0
    time: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a run account, discriminator included."""
        (_, job, node, payer, state, time) = _unpack(cls._BODY, data)
        return cls(Pubkey(job), Pubkey(node), Pubkey(payer), state, time)

    def encode(self) -> bytes:
        """The bytes in front; what stands behind them in the account stays as it is."""
        return self._BODY.pack(
            self.DISCRIMINATOR, bytes(self.job), bytes(self.node), bytes(self.payer), self.state, self.time
        )


@dataclass(slots=True)
class Stake:
    """A wallet's stake; `xnos` is what markets look at."""

    DISCRIMINATOR: ClassVar = account_discriminator("StakeAccount")
    SPACE: ClassVar = 120
    _BODY: ClassVar = struct.Struct("<8sQ32sQq32sB16s")

    amount: int = 0
    authority: Pubkey = _ZERO
    duration: int = 0
    time_unstake: int = 0
    vault: Pubkey = _ZERO
    vault_bump: int = 0
    xnos: int = 0

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a stake account, discriminator included."""
        (_, amount, authority, duration, unstaked, vault, bump, xnos) = _unpack(cls._BODY, data)
        return cls(
            amount,
            Pubkey(authority),
            duration,
            unstaked,
            Pubkey(vault),
            bump,
            int.from_bytes(xnos, "little"),
        )

    def encode(self) -> bytes:
        """The bytes in front; what stands behind them in the account stays as it is."""
        return self._BODY.pack(
            self.DISCRIMINATOR,
            self.amount,
            bytes(self.authority),
            self.duration,
            self.time_unstake,
            bytes(self.vault),
            self.vault_bump,
            self.xnos.to_bytes(16, "little"),
        )


@dataclass(slots=True)
class Reflection:
    """The rewards program's pool: passed to list and extend, read, never changed while the fee is 0."""

    DISCRIMINATOR: ClassVar = account_discriminator("ReflectionAccount")
    _BODY: ClassVar = struct.Struct("<8s16s16s16s32sB")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Check that the bytes are such an account."""
        _unpack(cls._BODY, data)
        return cls()


@dataclass(slots=True)
class Mint:
    """An SPL Token mint; only its address matters here."""

    _BODY: ClassVar = struct.Struct("<I32sQBBI32s")

    initialized: bool

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a mint; its length must be exact."""
        if len(data) != cls._BODY.size:
            raise UnreadableError(f"{len(data)} bytes, {cls._BODY.size} expected")
        (mint_option, _, _, _, initialized, freeze_option, _) = cls._BODY.unpack(data)
        if mint_option > 1 or freeze_option > 1 or initialized > 1:
            raise UnreadableError("not a mint")
        return cls(bool(initialized))


@dataclass(slots=True)
class TokenAccount:
    """An SPL Token account; optional keys are None where its marker says so."""

    SPACE: ClassVar = 165
    _BODY: ClassVar = struct.Struct("<32s32sQI32sBIQQI32s")

    mint: Pubkey
    owner: Pubkey
    amount: int = 0
    delegate: Pubkey | None = None
    state: int = 1
    native: int | None = None
    delegated_amount: int = 0
    close_authority: Pubkey | None = None

    @property
    def initialized(self) -> bool:
        """Whether the Token program has set the account up."""
        return self.state != 0

    @property
    def frozen(self) -> bool:
        """Whether the mint's freeze authority has stopped it."""
        return self.state == 2

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a token account; its length must be exact."""
        if len(data) != cls.SPACE:
            raise UnreadableError(f"{len(data)} bytes, {cls.SPACE} expected")
        (
            mint,
            owner,
            amount,
            has_delegate,
            delegate,
            state,
            is_native,
            native,
            delegated,
            has_close,
            close,
        ) = cls._BODY.unpack(data)
        if state > 2 or max(has_delegate, is_native, has_close) > 1:
            raise UnreadableError("not a token account")
        return cls(
            mint=Pubkey(mint),
            owner=Pubkey(owner),
            amount=amount,
            delegate=Pubkey(delegate) if has_delegate else None,
            state=state,
            native=native if is_native else None,
            delegated_amount=delegated,
            close_authority=Pubkey(close) if has_close else None,
        )

    def encode(self) -> bytes:
        """All 165 bytes."""
        return self._BODY.pack(
            bytes(self.mint),
            bytes(self.owner),
            self.amount,
            int(self.delegate is not None),
            bytes(self.delegate or _ZERO),
            self.state,
            int(self.native is not None),
            self.native or 0,
            self.delegated_amount,
            int(self.close_authority is not None),
            bytes(self.close_authority or _ZERO),
        )
