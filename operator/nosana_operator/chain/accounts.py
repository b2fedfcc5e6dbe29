"""The accounts that a host reads, as values (docs/protocol/jobs-program.md#account-layouts).

They are decoded with `struct`, seven times faster than by the IDL's coder; the tests compare the two. Accounts are
longer than their body; the rest is padding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from nosana_operator.chain.addresses import SYSTEM, address_of
from nosana_operator.chain.errors import AccountMalformed

QueueType = Literal["Job", "Node", "Empty"]

_QUEUE_TYPES: Final[dict[int, QueueType]] = {0: "Job", 1: "Node", 255: "Empty"}

MARKET_DISCRIMINATOR: Final = bytes.fromhex("c94ebbe1f0c6c9fb")
JOB_DISCRIMINATOR: Final = bytes.fromhex("5b10a2052dd27d41")
RUN_DISCRIMINATOR: Final = bytes.fromhex("c2a96ee6eb0be116")
STAKE_DISCRIMINATOR: Final = bytes.fromhex("509e437c32bdc0ff")

RUN_DISCRIMINATOR_BASE58: Final = "ZZTu8o6YwNM"
"""In the form that memcmp filters take."""
RUN_NODE_OFFSET: Final = 40
"""Where a RunAccount holds its node."""

_MARKET: Final = struct.Struct("<32sqQqB32sB32s16sBI")
_JOB: Final = struct.Struct("<32s32s32s32s32sQ32sBqqq")
_RUN: Final = struct.Struct("<32s32s32sBq")
_STAKE: Final = struct.Struct("<Q32sQq32sB16s")
_TOKEN: Final = struct.Struct("<32s32sQ")
_CLOCK: Final = struct.Struct("<QqQQq")
_TOKEN_LENGTH: Final = 165


class JobState(IntEnum):
    """`JobAccount.state`. Running is not stored: a running job is QUEUED and has a run account."""

    QUEUED = 0
    DONE = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Market:
    """A MarketAccount. Prices are NOS base units a second, times are seconds."""

    address: str
    authority: str
    job_expiration: int
    price: int
    job_timeout: int
    job_type: int
    vault: str
    node_access_key: str | None
    """The collection of which a host must hold a token; None: an open market."""
    xnos_minimum: int
    queue_type: QueueType
    queue: tuple[str, ...]
    """Waiting jobs or hosts (`queue_type` says which), head first."""

    @classmethod
    def decode(cls, address: str, data: bytes) -> Market:
        """Raises AccountMalformed."""
        body = _unpack(_MARKET, MARKET_DISCRIMINATOR, "market", address, data)
        authority, expiration, price, timeout, kind, vault, _bump, access, minimum, queue, length = body
        start = 8 + _MARKET.size
        if queue not in _QUEUE_TYPES or start + 32 * length > len(data):
            raise AccountMalformed(
                f"The market {address} has a queue that cannot be read; check the network."
            )
        access_key = address_of(access)
        return cls(
            address=address,
            authority=address_of(authority),
            job_expiration=expiration,
            price=price,
            job_timeout=timeout,
            job_type=kind,
            vault=address_of(vault),
            node_access_key=None if access_key == SYSTEM else access_key,
            xnos_minimum=int.from_bytes(minimum, "little"),
            queue_type=_QUEUE_TYPES[queue],
            queue=tuple(address_of(data[at : at + 32]) for at in range(start, start + 32 * length, 32)),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A JobAccount. Times are unix seconds of the chain's clock, zero while unset."""

    address: str
    ipfs_job: bytes
    """Digest of the definition's CIDv0."""
    ipfs_result: bytes
    """Digest of the result's CIDv0; zeros: none yet."""
    market: str
    node: str
    """Set by `finish` and `end`; the System address before."""
    payer: str
    price: int
    project: str
    state: JobState
    time_end: int
    time_start: int
    timeout: int

    @classmethod
    def decode(cls, address: str, data: bytes) -> Job:
        """Raises AccountMalformed."""
        body = _unpack(_JOB, JOB_DISCRIMINATOR, "job", address, data)
        definition, result, market, node, payer, price, project, state, time_end, time_start, timeout = body
        try:
            job_state = JobState(state)
        except ValueError:
            raise AccountMalformed(
                f"The job {address} has the unknown state {state}; check the network."
            ) from None
        return cls(
            address=address,
            ipfs_job=definition,
            ipfs_result=result,
            market=address_of(market),
            node=address_of(node),
            payer=address_of(payer),
            price=price,
            project=address_of(project),
            state=job_state,
            time_end=time_end,
            time_start=time_start,
            timeout=timeout,
        )


@dataclass(frozen=True, slots=True)
class Run:
    """A RunAccount: one match of a job and a host. The program never writes its state byte, so it is left out."""

    address: str
    job: str
    node: str
    payer: str
    time: int
    """When they were matched, unix seconds of the chain's clock."""

    @classmethod
    def decode(cls, address: str, data: bytes) -> Run:
        """Raises AccountMalformed."""
        job, node, payer, _state, started = _unpack(_RUN, RUN_DISCRIMINATOR, "run", address, data)
        return cls(address, address_of(job), address_of(node), address_of(payer), started)


@dataclass(frozen=True, slots=True)
class Stake:
    """A StakeAccount of the staking program. Amounts are NOS base units."""

    address: str
    amount: int
    authority: str
    duration: int
    """Seconds."""
    time_unstake: int
    """Unix seconds; zero: still staked."""
    xnos: int
    """What markets compare with their minimum; zero after unstaking."""

    @classmethod
    def decode(cls, address: str, data: bytes) -> Stake:
        """Raises AccountMalformed."""
        body = _unpack(_STAKE, STAKE_DISCRIMINATOR, "stake account", address, data)
        amount, authority, duration, unstaked, _vault, _bump, xnos = body
        return cls(address, amount, address_of(authority), duration, unstaked, int.from_bytes(xnos, "little"))


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """A classic SPL token account. `amount` is in base units."""

    address: str
    mint: str
    owner: str
    amount: int

    @classmethod
    def decode(cls, address: str, data: bytes) -> TokenAccount:
        """Raises AccountMalformed."""
        if len(data) != _TOKEN_LENGTH:
            raise AccountMalformed(f"{address} is not a token account; check the address.")
        mint, owner, amount = _TOKEN.unpack_from(data)
        return cls(address, address_of(mint), address_of(owner), amount)


def decode_clock(data: bytes) -> tuple[int, int]:
    """Slot and unix seconds of the Clock sysvar, the time that programs see."""
    if len(data) < _CLOCK.size:
        raise AccountMalformed("The chain's Clock sysvar cannot be read; use another RPC node.")
    slot, _epoch_start, _epoch, _leader_epoch, unix = _CLOCK.unpack_from(data)
    return slot, unix


def _unpack(
    layout: struct.Struct, discriminator: bytes, what: str, address: str, data: bytes
) -> tuple[Any, ...]:
    if len(data) < 8 + layout.size or data[:8] != discriminator:
        raise AccountMalformed(f"{address} is not a {what}; check the address and the network.")
    return layout.unpack_from(data, 8)
