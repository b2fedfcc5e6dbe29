"""What can go wrong with Solana: the `ChainError` branch of the error tree.

    ChainError
    ├── ChainUnavailable     no answer, 429, 5xx: the outcome is unknown (Unavailable)
    │   └── NodeBehind       the node that answered lags behind what is known already
    ├── RpcError             the node answered with an error of its own (Refused)
    │   └── MethodRefused    that node does not offer the method, or not with this API key
    ├── TransactionFailed    the transaction ran, or was simulated, and failed (Refused)
    ├── BlockhashNotFound    the node does not know the blockhash: expired, or the node lags (Unavailable)
    ├── AccountMissing       the account does not exist (NotFound)
    ├── AccessKeyMissing     the wallet holds no token that opens the market (Refused)
    ├── AccountMalformed     the account has another owner or layout (Refused)
    ├── InvalidInstruction   an argument does not fit the instruction (Refused)
    ├── InvalidAddress       the text is not an address (Refused)
    └── InvalidWallet        the Secret's bytes are not a key (Refused)

`solders` raises `PanicException`, a BaseException, on some inputs
(docs/protocol/solana-rpc.md#error-replies-without-data). It never reaches a caller: every value is checked before
solders gets it, and replies are read as plain JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nosana_operator.errors import NosanaError, NotFound, Refused, Unavailable

LOG_TAIL: Final = 12
"""Program log lines kept in an error."""

_ANCHOR: Final = re.compile(r"Error Code: (?P<name>\w+)\. Error Number: (?P<number>\d+)\.")


class ChainError(NosanaError):
    """Solana refused, or cannot be reached."""


class ChainUnavailable(ChainError, Unavailable):
    """The node gave no usable answer; whether a transaction took effect is unknown.

    `limited`: the node limits our requests; `retry_after`: the seconds that it asked us to wait, None if it named
    none.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, limited: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.limited = limited


class NodeBehind(ChainUnavailable):
    """The node that answered is `slots` behind the slot that was required: its answer is too old."""

    def __init__(self, slots: int) -> None:
        super().__init__(f"The RPC node that answered is {slots} slots behind; the request is repeated.")
        self.slots = slots


class RpcError(ChainError, Refused):
    """The node answered with a JSON-RPC error. `code` is the JSON-RPC code, `data` its plain JSON."""

    def __init__(self, message: str, *, code: int, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class MethodRefused(RpcError):
    """The node does not offer the method: public nodes switch getProgramAccounts off."""


class TransactionFailed(ChainError, Refused):
    """A transaction ran or was simulated, and failed; it had no effect but the fee.

    Attributes:
        name: Anchor's error name from the log (`NodeAlreadyQueued`), or the runtime's
            (`InsufficientFundsForFee`); None when a program gave a bare number. Several
            of Nosana's enums share the numbers from 6000 on, so only the name identifies the error
            (docs/protocol/jobs-program.md#error-names).
        number: the custom error number, None for the runtime's own errors.
        instruction: index of the failing instruction, None for an error of the transaction as a whole.
        logs: the last program log lines.
    """

    def __init__(
        self, name: str | None, number: int | None, instruction: int | None, logs: Sequence[str] = ()
    ) -> None:
        shown = name or (f"custom error {number}" if number is not None else "an unknown error")
        where = f" (instruction {instruction})" if instruction is not None else ""
        super().__init__(f"The transaction failed with {shown}{where}.")
        self.name = name
        self.number = number
        self.instruction = instruction
        self.logs = tuple(logs[-LOG_TAIL:])

    @classmethod
    def from_rpc(cls, err: object, logs: Sequence[str] | None) -> TransactionFailed:
        """From a `TransactionError` as JSON (`{"InstructionError": [1, {"Custom": 6014}]}`) and the logs."""
        lines = [line for line in logs or () if isinstance(line, str)]
        name, number, instruction = _read_error(err)
        anchor = _anchor_error(lines)
        if anchor is not None and number == anchor[1]:
            name = anchor[0]
        return cls(name, number, instruction, lines)


class BlockhashNotFound(ChainError, Unavailable):
    """The node does not know the transaction's blockhash: it expired, or the node is behind.

    That proves nothing about the transaction: look up its outcome.
    """


class AccountMissing(ChainError, NotFound):
    """There is no such account at the commitment that was requested."""

    def __init__(self, what: str, address: str) -> None:
        super().__init__(f"There is no {what} {address} on chain; check the address and the network.")
        self.address = address


class AccessKeyMissing(ChainError, Refused):
    """The wallet holds no token of the collection that the market requires."""

    def __init__(self, wallet: str, collection: str) -> None:
        super().__init__(
            f"The wallet {wallet} holds no token of the collection {collection}, which the market requires; "
            "have Nosana issue one to it, or choose an open market."
        )
        self.wallet = wallet
        self.collection = collection


class AccountMalformed(ChainError, Refused):
    """The account exists, but belongs to another program or has another layout."""


class InvalidInstruction(ChainError, Refused):
    """An argument does not fit: a result of another length, a number out of range."""


class InvalidAddress(ChainError, Refused):
    """The text is not a base58 address of 32 bytes."""


class InvalidWallet(ChainError, Refused):
    """The bytes are not a key. The message never contains any of them."""


def _read_error(err: object) -> tuple[str | None, int | None, int | None]:
    """Name, number and instruction index of a `TransactionError` in JSON."""
    if isinstance(err, str):
        return err, None, None
    if not isinstance(err, Mapping) or len(err) != 1:
        return None, None, None
    kind, detail = next(iter(err.items()))
    if kind != "InstructionError" or not isinstance(detail, Sequence) or len(detail) != 2:
        return str(kind), None, None
    index, inner = detail
    instruction = index if isinstance(index, int) else None
    if isinstance(inner, Mapping) and isinstance(inner.get("Custom"), int):
        return None, inner["Custom"], instruction
    if isinstance(inner, Mapping) and len(inner) == 1:
        return str(next(iter(inner))), None, instruction
    return (inner if isinstance(inner, str) else None), None, instruction


def _anchor_error(lines: Sequence[str]) -> tuple[str, int] | None:
    for line in reversed(lines):
        found = _ANCHOR.search(line)
        if found is not None:
            return found["name"], int(found["number"])
    return None
