"""CIDs: computing the CID of some bytes, and converting CIDs to and from the form on chain.

The chain keeps 32 bytes per document: the sha-256 digest of a CIDv0 (docs/protocol/jobs-program.md#cids-on-chain).
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from multiformats import CID

from nosana_operator.content.dagpb import Link, encode_inner, encode_leaf
from nosana_operator.content.errors import InvalidCid

CHUNK_SIZE: Final = 256 * 1024
"""Bytes per leaf: Kubo's default chunker for CIDv0."""

MAX_LINKS: Final = 174
"""Links per inner node in Kubo's balanced layout."""

DIGEST_SIZE: Final = 32
_SHA256_PREFIX: Final = b"\x12\x20"  # multihash: sha2-256, 32 bytes

NO_RESULT: Final = bytes(DIGEST_SIZE)
"""`ipfs_result` of a job without a result."""


class UnixFs(NamedTuple):
    """A file as IPFS stores it: the CID of the root, and all blocks, the root included, by CID."""

    root: str
    blocks: dict[str, bytes]


def build_unixfs(data: bytes) -> UnixFs:
    """Cut `data` into blocks as `ipfs add` does by default (CIDv0, no raw leaves, balanced layout)."""
    blocks: dict[str, bytes] = {}

    def put(block: bytes, children_size: int, file_bytes: int) -> tuple[Link, int]:
        digest = hashlib.sha256(block).digest()
        blocks[cid_from_digest(digest)] = block
        return Link(_SHA256_PREFIX + digest, len(block) + children_size), file_bytes

    chunks = [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)] or [b""]
    level = [put(encode_leaf(chunk), 0, len(chunk)) for chunk in chunks]
    while len(level) > 1:
        groups = [level[at : at + MAX_LINKS] for at in range(0, len(level), MAX_LINKS)]
        level = [
            put(encode_inner(group), sum(link.tsize for link, _ in group), sum(size for _, size in group))
            for group in groups
        ]
    return UnixFs(cid_from_digest(level[0][0].cid[len(_SHA256_PREFIX) :]), blocks)


def cid_of(data: bytes) -> str:
    """The CIDv0 that `data` gets with Kubo's defaults."""
    return build_unixfs(data).root


def cid_from_digest(digest: bytes) -> str:
    """The CIDv0, as text, of a 32-byte digest from the chain.

    Raises:
        InvalidCid: the digest is not 32 bytes.
    """
    if len(digest) != DIGEST_SIZE:
        raise InvalidCid(f"A CID on chain is {DIGEST_SIZE} bytes, not {len(digest)}.")
    return str(CID("base58btc", 0, "dag-pb", ("sha2-256", digest)))


def digest_of(cid: str) -> bytes:
    """The 32 bytes that the chain stores for `cid`.

    Raises:
        InvalidCid: not a CID, or a CIDv1, which does not fit on chain.
    """
    parsed = parse_cid(cid)
    if parsed.version != 0:
        raise InvalidCid(f"{cid} is a CIDv1; only a CIDv0 (Qm…) fits on chain: pin with cid-version 0.")
    # The library returns a memoryview; callers concatenate it with bytes.
    return bytes(parsed.raw_digest)


def parse_cid(cid: str | bytes) -> CID:
    """Parse a CID from text, or from the binary form inside a DAG-PB link.

    Raises:
        InvalidCid: not a CID, a codec other than dag-pb and raw, or a hash other than sha2-256 and identity.
    """
    try:
        parsed = CID.decode(cid)
    except (ValueError, KeyError, IndexError) as error:
        raise InvalidCid(f"{_excerpt(cid)} is not a CID: {error}") from error
    if parsed.codec.name not in ("dag-pb", "raw") or parsed.hashfun.name not in ("sha2-256", "identity"):
        raise InvalidCid(
            f"{parsed} is {parsed.codec.name} with {parsed.hashfun.name}; "
            "only dag-pb and raw blocks with sha2-256 can be read: add the file with IPFS' defaults."
        )
    return parsed


def inline_block(cid: CID) -> bytes | None:
    """The block that an identity CID contains in place of a hash; None for other CIDs."""
    return bytes(cid.raw_digest) if cid.hashfun.name == "identity" else None


def block_matches(cid: CID, block: bytes) -> bool:
    """Whether `block` hashes to `cid`, a CID from `parse_cid` that is not an identity CID."""
    return hashlib.sha256(block).digest() == cid.raw_digest


def _excerpt(cid: str | bytes) -> str:
    text = cid if isinstance(cid, str) else cid.hex()
    return repr(text if len(text) <= 80 else text[:77] + "…")
