"""IPFS: computing CIDs, fetching files with verification, pinning. Knows nothing about jobs or markets."""

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
    EndpointFailed,
    EndpointForbidden,
    EndpointUnreachable,
    InvalidCid,
    PinMismatch,
    PinRefused,
    PinUnavailable,
)
from nosana_operator.content.fetch import FetchTimeouts, IpfsGateways
from nosana_operator.content.pin import KuboPinner, PinataPinner, Pinner
from nosana_operator.content.poster import PosterClient, PosterTimeouts

__all__ = [
    "NO_RESULT",
    "ContentError",
    "ContentMalformed",
    "ContentMismatch",
    "ContentNotFound",
    "ContentTooLarge",
    "ContentUnreachable",
    "EndpointFailed",
    "EndpointForbidden",
    "EndpointUnreachable",
    "FetchTimeouts",
    "InvalidCid",
    "IpfsGateways",
    "KuboPinner",
    "PinMismatch",
    "PinRefused",
    "PinUnavailable",
    "PinataPinner",
    "Pinner",
    "PosterClient",
    "PosterTimeouts",
    "UnixFs",
    "block_matches",
    "build_unixfs",
    "cid_from_digest",
    "cid_of",
    "digest_of",
    "parse_cid",
]
