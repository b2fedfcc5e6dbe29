"""Parameters of a request, read with their types; whatever does not fit is the client's error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature

from nosana_sandbox.chain.bank import Commitment
from nosana_sandbox.chain.errors import RpcError, invalid_params

T = TypeVar("T")

_U64_MAX: Final = 2**64 - 1
_MOST_SECONDS: Final = 10**12


def parse_pubkey(value: Any) -> Pubkey:
    """A 32-byte key in base58."""
    try:
        return Pubkey.from_string(value)
    except (TypeError, ValueError) as error:
        raise _misfit(error) from error


def parse_signature(value: Any) -> Signature:
    """A 64-byte signature in base58."""
    try:
        return Signature.from_string(value)
    except (TypeError, ValueError) as error:
        raise _misfit(error) from error


def parse_hash(value: Any) -> Hash:
    """A 32-byte hash in base58."""
    try:
        return Hash.from_string(value)
    except (TypeError, ParseHashError) as error:
        raise _misfit(error) from error


def _misfit(error: Exception) -> RpcError:
    return invalid_params(f"Invalid param: {'WrongSize' if 'size' in str(error) else 'Invalid'}")


def parse_number(value: Any, what: str) -> int:
    """An unsigned 64-bit number; a JSON true is not one."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _U64_MAX:
        raise invalid_params(f"Invalid params: {what} must be an unsigned 64-bit number.")
    return value


def parse_list(value: Any, most: int) -> list[Any]:
    """A list of at most `most` entries."""
    if not isinstance(value, list):
        raise invalid_params("Invalid params: expected a list.")
    if len(value) > most:
        raise invalid_params(f"Too many inputs provided; max {most}")
    return value


class Config:
    """The configuration object that most methods take last. What it does not name is None."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    @classmethod
    def of(cls, raw: Any) -> Config:
        """Read a parameter; one that is left out is an empty object."""
        if raw is None:
            return cls({})
        if not isinstance(raw, dict):
            raise invalid_params("Invalid params: expected a configuration object.")
        return cls(raw)

    @property
    def keys(self) -> frozenset[str]:
        """What it names."""
        return frozenset(self._values)

    def raw(self, key: str) -> Any:
        """The value as it came."""
        return self._values.get(key)

    def text(self, key: str) -> str | None:
        """A string."""
        return self._typed(key, str, "a string")

    def flag(self, key: str) -> bool:
        """A truth value, false when left out."""
        return bool(self._typed(key, bool, "true or false"))

    def whole(self, key: str) -> int | None:
        """An unsigned number."""
        value = self._values.get(key)
        return None if value is None else parse_number(value, key)

    def seconds(self, key: str) -> float | None:
        """A time or a length of time, maybe with a fraction."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _MOST_SECONDS:
            raise invalid_params(f"Invalid params: {key} must be a number of seconds.")
        return float(value)

    def inner(self, key: str) -> Config | None:
        """An object within."""
        value = self._values.get(key)
        return None if value is None else Config.of(value)

    def commitment(self, key: str = "commitment") -> Commitment:
        """The commitment; finalized when left out, as on a real node."""
        value = self.text(key)
        if value is None:
            return Commitment.FINALIZED
        try:
            return Commitment(value)
        except ValueError as error:
            raise invalid_params(f"Invalid params: unknown commitment `{value}`.") from error

    def _typed(self, key: str, kind: type[T], what: str) -> T | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, kind):
            raise invalid_params(f"Invalid params: {key} must be {what}.")
        return value
