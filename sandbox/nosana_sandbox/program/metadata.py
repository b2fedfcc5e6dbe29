"""Metaplex metadata, as far as an access key needs it: which collection an NFT belongs to."""

from __future__ import annotations

from solders.pubkey import Pubkey


def verified_collection(metadata: bytes) -> Pubkey | None:
    """The collection that an NFT's Metaplex metadata names and that has verified it, if any."""
    try:
        return _Reader(metadata).verified_collection()
    except IndexError:
        return None


def metadata_of(mint: Pubkey, collection: Pubkey, *, verified: bool = True, name: str = "Access") -> bytes:
    """An NFT's Metaplex metadata that names a collection, as an issuer writes it."""
    texts = b"".join(len(text).to_bytes(4, "little") + text for text in (name.encode(), b"KEY", b""))
    head = bytes([4]) + bytes(Pubkey.default()) + bytes(mint) + texts
    # No seller's fee, no creators, not sold, mutable, an edition nonce, a token standard, the collection.
    rest = bytes(2) + bytes([0, 0, 1]) + bytes([1, 255]) + bytes([1, 0]) + bytes([1, verified])
    return head + rest + bytes(collection) + bytes(2)


class _Reader:
    """Walks Metaplex' Borsh: strings and options in front of the collection have no fixed length."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, length: int) -> bytes:
        chunk = self._data[self._at : self._at + length]
        if len(chunk) < length:
            raise IndexError(length)
        self._at += length
        return chunk

    def _flag(self) -> bool:
        value = self._take(1)[0]
        if value > 1:
            raise IndexError(value)
        return bool(value)

    def _size(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def verified_collection(self) -> Pubkey | None:
        self._take(1 + 32 + 32)  # kind, update authority, mint
        for _ in ("name", "symbol", "uri"):
            self._take(self._size())
        self._take(2)  # seller fee
        if self._flag():
            self._take(34 * self._size())  # creators: key, verified, share
        self._flag()  # primary sale happened
        self._flag()  # mutable
        for _ in ("edition nonce", "token standard"):
            if self._flag():
                self._take(1)
        if not self._flag():
            return None
        verified = self._flag()
        key = Pubkey(self._take(32))
        return key if verified else None
