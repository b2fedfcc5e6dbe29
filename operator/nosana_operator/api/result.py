"""Stores a job's result: the exact FlowState bytes, compressed, in Secrets that the NosanaJob owns.

The market host pins exactly these bytes (docs/architecture.md#fixed-choices), so they are written once. Part 0
commits them: it is created last and has the number of parts and the digest of the whole. If it exists, the
result exists and is never built again. Parts without part 0 are left over from an interrupted attempt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from nosana_operator.api.names import API_VERSION, GROUP, JOB_KIND, LABEL_JOB, LABEL_JOB_UID
from nosana_operator.errors import NosanaError
from nosana_operator.ports import Body

RESULT_TYPE: Final = f"{GROUP}/result"
"""`type` of the Secrets."""
RESULT_KEY: Final = "flowstate.json.gz"
ANNOTATION_PARTS: Final = f"{GROUP}/result-parts"
ANNOTATION_SHA256: Final = f"{GROUP}/result-sha256"
"""SHA-256 of the uncompressed bytes, hex."""

MAX_PART: Final = 900 * 1024
"""Bytes of one part before base64: the API server accepts 1 MiB of data in a Secret."""
MAX_COMPRESSED: Final = 4 * 1024 * 1024
MAX_RAW: Final = 48 * 1024 * 1024
_LEVEL: Final = 6
_GZIP: Final = 31
"""zlib's `wbits` for the gzip format."""


class ResultError(NosanaError):
    """A result cannot be stored or read."""


class ResultTooLarge(ResultError):
    """The FlowState is too large to be stored."""


def pack_result(chunks: Iterable[bytes]) -> tuple[tuple[bytes, ...], str]:
    """FlowState bytes → compressed parts, deterministic, and the SHA-256 of the bytes in hex.

    Reads no more than fits, and never holds the bytes as a whole. Raises ResultTooLarge.
    """
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    digest, size, packed = hashlib.sha256(), 0, bytearray()
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_RAW:
            raise ResultTooLarge(f"a result has more than {MAX_RAW} bytes; drop log lines")
        digest.update(chunk)
        packed += compressor.compress(chunk)
        if len(packed) > MAX_COMPRESSED:
            break
    packed += compressor.flush()
    if len(packed) > MAX_COMPRESSED:
        raise ResultTooLarge(f"a compressed result has more than {MAX_COMPRESSED} bytes; drop log lines")
    parts = tuple(bytes(packed[at : at + MAX_PART]) for at in range(0, len(packed), MAX_PART))
    return parts, digest.hexdigest()


def result_secret_name(job: str, part: int) -> str:
    """The name of one part."""
    return f"{job}-result-{part}"


def result_secrets(job: Mapping[str, Any], chunks: Iterable[bytes]) -> tuple[Body, ...]:
    """The Secrets of a NosanaJob's result, part 0 first; `chunks` are its bytes. Raises ResultTooLarge."""
    meta = job["metadata"]
    parts, digest = pack_result(chunks)
    return tuple(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": RESULT_TYPE,
            # The stored bytes have to stay the bytes that were pinned and settled.
            "immutable": True,
            "metadata": {
                "name": result_secret_name(meta["name"], part),
                "namespace": meta["namespace"],
                "labels": {LABEL_JOB: meta["name"], LABEL_JOB_UID: meta["uid"]},
                "annotations": {ANNOTATION_PARTS: str(len(parts)), ANNOTATION_SHA256: digest},
                "ownerReferences": [
                    {
                        "apiVersion": API_VERSION,
                        "kind": JOB_KIND,
                        "name": meta["name"],
                        "uid": meta["uid"],
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "data": {RESULT_KEY: base64.b64encode(data).decode()},
        }
        for part, data in enumerate(parts)
    )


def result_names(first: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of all parts, read from part 0. Raises ResultError when `first` is not part 0 of a result."""
    name = str(first["metadata"]["name"])
    try:
        parts = int((first["metadata"].get("annotations") or {})[ANNOTATION_PARTS])
    except (KeyError, ValueError):
        parts = 0
    if not name.endswith("-0") or not 1 <= parts <= MAX_COMPRESSED // MAX_PART + 1:
        raise ResultError(f"Secret {name} does not hold the first part of a result; it was changed by others")
    return tuple(f"{name.removesuffix('0')}{part}" for part in range(parts))


def read_result(secrets: Sequence[Mapping[str, Any]]) -> bytes:
    """The exact FlowState bytes of a result's Secrets, in the order of `status.resultSecrets`.

    Raises ResultError when parts are missing, or when the bytes do not match their digest.
    """
    if not secrets:
        raise ResultError("the job has no result yet")
    names = result_names(secrets[0])
    if tuple(secret["metadata"]["name"] for secret in secrets) != names:
        raise ResultError(f"the result has {len(names)} parts: {', '.join(names)}; not all are here in order")
    try:
        packed = b"".join(base64.b64decode(secret["data"][RESULT_KEY], validate=True) for secret in secrets)
        unpacker = zlib.decompressobj(wbits=_GZIP)
        raw = unpacker.decompress(packed, MAX_RAW)
    except (KeyError, TypeError, binascii.Error, zlib.error) as error:
        raise ResultError(f"the result in Secret {names[0]} cannot be read: {error}") from error
    expected = (secrets[0]["metadata"].get("annotations") or {}).get(ANNOTATION_SHA256)
    if not unpacker.eof or hashlib.sha256(raw).hexdigest() != expected:
        raise ResultError(
            f"the result in Secret {names[0]} does not match its digest; it was changed by others"
        )
    return raw


__all__ = [
    "ANNOTATION_PARTS",
    "ANNOTATION_SHA256",
    "MAX_COMPRESSED",
    "MAX_PART",
    "MAX_RAW",
    "RESULT_KEY",
    "RESULT_TYPE",
    "ResultError",
    "ResultTooLarge",
    "pack_result",
    "read_result",
    "result_names",
    "result_secret_name",
    "result_secrets",
]
