"""A signing key from a Secret. It is never shown: not in `repr`, an error or a log."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from solders.keypair import Keypair

from nosana_operator.chain.errors import InvalidWallet

_REMEDY: Final = (
    "put a Solana CLI key file (a JSON array of 64 numbers), or its 64 bytes in base58, into the Secret."
)
_LONGEST: Final = 4096
"""Bytes: 64 numbers, one per line and indented, take fewer than a thousand."""


class Wallet:
    """A key that can sign; `address` is its public half in base58."""

    __slots__ = ("_keypair", "address")

    def __init__(self, keypair: Keypair) -> None:
        self._keypair = keypair
        self.address = str(keypair.pubkey())

    @classmethod
    def parse(cls, secret: bytes) -> Wallet:
        """Read what Solana tools write: a JSON array of 64 bytes, or 64 bytes in base58.

        Raises:
            InvalidWallet: it is neither, or the public half does not match the secret one.
        """
        if len(secret) > _LONGEST:
            raise InvalidWallet(f"The wallet has {len(secret)} bytes; {_REMEDY}")
        # `from None` throughout: an exception's context could carry the secret into a log.
        try:
            text = secret.decode("ascii").strip()
        except UnicodeDecodeError:
            raise InvalidWallet(f"The wallet is not text; {_REMEDY}") from None
        if not text:
            raise InvalidWallet(f"The wallet is empty; {_REMEDY}")
        raw = _from_json(text) if text.startswith("[") else None
        try:
            keypair = Keypair.from_base58_string(text) if raw is None else Keypair.from_bytes(raw)
        except ValueError:
            raise InvalidWallet(f"The wallet is not a Solana key; {_REMEDY}") from None
        return cls(keypair)

    @classmethod
    def generate(cls) -> Wallet:
        """A fresh key, for an account that signs its own creation, and for tests."""
        return cls(Keypair())

    def authorization(self, message: str, moment: datetime) -> str:
        """The `Authorization` header of Nosana's clients: message, signature over it, unix milliseconds.

        The time is not part of the signed message; readers refuse a header that is minutes old
        (docs/protocol/node.md#authorization-header). `message` holds no colon.
        """
        signature = self._keypair.sign_message(message.encode())
        return f"{message}:{signature}:{int(moment.timestamp() * 1000)}"

    @property
    def keypair(self) -> Keypair:
        """For signing, inside this package and in the sandbox only."""
        return self._keypair

    def __repr__(self) -> str:
        return f"Wallet({self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a Wallet cannot be pickled or copied: its secret stays in one place")


def _from_json(text: str) -> bytes:
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidWallet(f"The wallet is broken JSON; {_REMEDY}") from None
    if (
        not isinstance(numbers, list)
        or len(numbers) != Keypair.LENGTH
        or not all(type(number) is int and 0 <= number <= 255 for number in numbers)
    ):
        raise InvalidWallet(f"The wallet is not an array of 64 bytes; {_REMEDY}")
    return bytes(numbers)
