"""IPFS in memory, as the market host uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from fakes.trouble import Silence
from nosana_operator.content import cid_from_digest, cid_of, digest_of

# Thousands of lives ask for the same few.
_cid_of = lru_cache(4096)(cid_of)
_digest_of = lru_cache(4096)(digest_of)
_cid_from_digest = lru_cache(4096)(cid_from_digest)


@dataclass
class FakePins:
    """IPFS: what was pinned, by CID; `down` is for how long it fails."""

    pinned: dict[str, bytes] = field(default_factory=dict)
    down: Callable[[], bool] = lambda: False
    gone: Callable[[], bool] = lambda: False
    """Whether the gateways do not give what is pinned."""

    def cid_of(self, data: bytes) -> str:
        return _cid_of(data)

    def digest_of(self, cid: str) -> bytes:
        return _digest_of(cid)

    def cid_from_digest(self, digest: bytes) -> str:
        return _cid_from_digest(digest)

    async def pin(self, data: bytes, *, name: str) -> None:
        if self.down():
            raise Silence("the pin service is away")
        self.pinned[_cid_of(data)] = data

    async def gives(self, cid: str) -> bool:
        return not self.gone() and cid in self.pinned
