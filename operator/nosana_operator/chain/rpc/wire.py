"""Values of Solana's JSON-RPC, and the functions that read them from plain JSON.

A reply of another shape says nothing about the chain, so every reader raises `ChainUnavailable` for it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from multiformats import multibase
from solana.rpc.commitment import Commitment, Finalized, Processed

from nosana_operator.chain.errors import ChainUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Slotted(Generic[T]):
    """A value and the slot it was read at."""

    slot: int
    value: T


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """An account as stored."""

    lamports: int
    owner: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Memcmp:
    """A filter of getProgramAccounts: the account's data at `offset` begins with base58 `value`."""

    offset: int
    value: str


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A blockhash and the last block height at which a transaction with it can land."""

    blockhash: str
    last_valid_block_height: int


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """The node's slot and block height at one commitment, read together."""

    slot: int
    block_height: int


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """The status of a transaction; `err` is the chain's `TransactionError` as JSON, None for success."""

    slot: int
    err: object | None
    commitment: Commitment


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A landed transaction that names an address; `err` None for success."""

    signature: str
    slot: int
    err: object | None
    time: int | None = None
    """Block time, unix seconds; None: the node does not know it."""


@dataclass(frozen=True, slots=True)
class InnerInstruction:
    """A call made by a program; numbers are indexes into the transaction's keys."""

    program: int
    accounts: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class LandedTransaction:
    """A transaction in a block, and its effects."""

    raw: bytes
    slot: int
    time: int | None
    """Block time, unix seconds."""
    fee: int
    """Lamports, paid by the first key."""
    err: object | None
    loaded: tuple[str, ...]
    """Keys from lookup tables; they follow those of the message."""
    inner: Mapping[int, tuple[InnerInstruction, ...]] | None
    """Calls by the index of the instruction that made them; None: the node does not keep them."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """The effects that a transaction would have."""

    err: object | None
    logs: tuple[str, ...]
    units_consumed: int | None


def _malformed() -> ChainUnavailable:
    return ChainUnavailable("The RPC node answered in an unknown form; use a Solana RPC node.")


def field(value: Any, key: str) -> Any:
    """A member of an object."""
    if not isinstance(value, Mapping) or key not in value:
        raise _malformed()
    return value[key]


def read_list(value: Any) -> list[Any]:
    """An array."""
    if not isinstance(value, list):
        raise _malformed()
    return value


def read_int(value: Any) -> int:
    """A number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed()
    return value


def read_text(value: Any, key: str) -> str:
    """A member that is text."""
    return read_string(field(value, key))


def read_string(value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise _malformed()
    return value


def read_slotted(result: Any, read: Callable[[Any], T]) -> Slotted[T]:
    """The `{context: {slot}, value}` of most answers and of every notification."""
    return Slotted(read_int(field(field(result, "context"), "slot")), read(field(result, "value")))


def read_base64(data: Any) -> bytes:
    """The `[text, "base64"]` of accounts and transactions."""
    if not isinstance(data, list) or len(data) != 2 or data[1] != "base64" or not isinstance(data[0], str):
        raise _malformed()
    try:
        return base64.b64decode(data[0], validate=True)
    except ValueError:
        raise _malformed() from None


def read_account(value: Any) -> AccountInfo:
    """An account in base64; answers and notifications have the same form."""
    data = read_base64(field(value, "data"))
    return AccountInfo(read_int(field(value, "lamports")), read_text(value, "owner"), data)


def read_blockhash(value: Any) -> Blockhash:
    """The value of getLatestBlockhash."""
    return Blockhash(read_text(value, "blockhash"), read_int(field(value, "lastValidBlockHeight")))


def read_epoch_info(value: Any) -> EpochInfo:
    """The answer of getEpochInfo."""
    return EpochInfo(read_int(field(value, "absoluteSlot")), read_int(field(value, "blockHeight")))


def read_status(value: Any) -> SignatureStatus:
    """One entry of getSignatureStatuses."""
    # Old nodes leave confirmationStatus out; None confirmations then means rooted.
    status = value.get("confirmationStatus") if isinstance(value, Mapping) else None
    if status is None:
        status = Finalized if field(value, "confirmations") is None else Processed
    return SignatureStatus(read_int(field(value, "slot")), field(value, "err"), Commitment(str(status)))


def read_history_entry(value: Any) -> HistoryEntry:
    """One entry of getSignaturesForAddress."""
    return HistoryEntry(
        read_text(value, "signature"),
        read_int(field(value, "slot")),
        field(value, "err"),
        _optional_int(value, "blockTime"),
    )


def read_landed(value: Any) -> LandedTransaction:
    """The answer of getTransaction in base64; a node may have dropped the effects."""
    meta = field(value, "meta")
    if not isinstance(meta, Mapping):
        raise _malformed()
    loaded, inner = meta.get("loadedAddresses"), meta.get("innerInstructions")
    return LandedTransaction(
        raw=read_base64(field(value, "transaction")),
        slot=read_int(field(value, "slot")),
        time=_optional_int(value, "blockTime"),
        fee=read_int(field(meta, "fee")),
        err=field(meta, "err"),
        loaded=()
        if loaded is None
        else tuple(str(key) for part in ("writable", "readonly") for key in read_list(field(loaded, part))),
        inner=None
        if inner is None
        else {
            read_int(field(calls, "index")): tuple(
                _inner_instruction(call) for call in read_list(field(calls, "instructions"))
            )
            for calls in read_list(inner)
        },
    )


def _inner_instruction(value: Any) -> InnerInstruction:
    try:
        data = multibase.decode("z" + read_text(value, "data"))
    except ValueError:
        raise _malformed() from None
    accounts = tuple(read_int(at) for at in read_list(field(value, "accounts")))
    return InnerInstruction(read_int(field(value, "programIdIndex")), accounts, data)


def _optional_int(value: Any, key: str) -> int | None:
    found = value.get(key) if isinstance(value, Mapping) else None
    return None if found is None else read_int(found)


def read_simulation(value: Any) -> Simulation:
    """The answer of simulateTransaction; nodes may leave out units and logs."""
    units = value.get("unitsConsumed") if isinstance(value, Mapping) else None
    return Simulation(
        field(value, "err"),
        read_logs(value.get("logs")),
        units if isinstance(units, int) and not isinstance(units, bool) else None,
    )


def read_logs(value: Any) -> tuple[str, ...]:
    """Program log lines; anything else reads as none."""
    return tuple(line for line in value if isinstance(line, str)) if isinstance(value, list) else ()
