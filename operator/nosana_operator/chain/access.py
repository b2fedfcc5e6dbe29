"""Access keys: the NFT or SFT of a market's collection that a host needs in a market that is not open.

The Jobs program requires that the host holds it, and that its Metaplex metadata names the collection as verified
(docs/protocol/jobs-program.md#work).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nosana_operator.chain.addresses import address_of

_KEY_LENGTH: Final = 32
_CREATOR_LENGTH: Final = 34
"""Address, verified, share."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A token that opens a market to its holder."""

    token_account: str
    mint: str
    metadata: str
    """Address of the mint's Metaplex metadata."""


def verified_collection(metadata: bytes) -> str | None:
    """The verified collection that a metadata account names; None: it names none, or cannot be read."""
    try:
        return _Reader(metadata).verified_collection()
    except _Unreadable:
        return None


class _Unreadable(Exception):
    """The bytes end early, or a flag is neither 0 nor 1."""


class _Reader:
    """Reads Metaplex' Borsh: the strings and options before the collection vary in length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def verified_collection(self) -> str | None:
        self._take(1 + 2 * _KEY_LENGTH)  # kind, update authority, mint
        for _text in ("name", "symbol", "uri"):
            self._take(self._number())
        self._take(2)  # seller's fee
        if self._flag():
            self._take(_CREATOR_LENGTH * self._number())
        self._flag()  # primary sale happened
        self._flag()  # mutable
        for _option in ("edition nonce", "token standard"):
            if self._flag():
                self._take(1)
        if not self._flag():
            return None
        verified, collection = self._flag(), self._take(_KEY_LENGTH)
        return address_of(collection) if verified else None

    def _take(self, length: int) -> bytes:
        piece = self._data[self._at : self._at + length]
        if len(piece) != length:
            raise _Unreadable
        self._at += length
        return piece

    def _number(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def _flag(self) -> bool:
        value = self._take(1)[0]
        if value > 1:
            raise _Unreadable
        return value == 1
