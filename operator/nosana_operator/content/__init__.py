"""IPFS: which CID bytes have, fetching with verification, pinning. Knows nothing of jobs or markets."""

from nosana_operator.content.cid import (
    NO_RESULT,
    UnixFs,
    block_matches,
    build_unixfs,
    cid_from_digest,
    cid_of,
    digest_of,
    parse_cid,
)
from nosana_operator.content.errors import (
    ContentError,
    ContentMalformed,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    ContentUnreachable,
    InvalidCid,
    PinMismatch,
    PinRefused,
    PinUnavailable,
)

__all__ = [
    "NO_RESULT",
    "ContentError",
    "ContentMalformed",
    "ContentMismatch",
    "ContentNotFound",
    "ContentTooLarge",
    "ContentUnreachable",
    "InvalidCid",
    "PinMismatch",
    "PinRefused",
    "PinUnavailable",
    "UnixFs",
    "block_matches",
    "build_unixfs",
    "cid_from_digest",
    "cid_of",
    "digest_of",
    "parse_cid",
]
