"""CIDs and UnixFS blocks, compared with published vectors and the output of an independent importer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nosana_operator.content import (
    NO_RESULT,
    InvalidCid,
    block_matches,
    build_unixfs,
    cid_from_digest,
    cid_of,
    digest_of,
    parse_cid,
)
from nosana_operator.content.dagpb import MalformedNode, decode

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "ipfs-cid.json").read_text())


def pattern(size: int) -> bytes:
    return bytes((i * 31 + (i >> 8) * 17 + (i >> 16)) & 255 for i in range(size))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["cid"][:8])
def test_digest_and_cid_convert_to_each_other(vector: dict[str, str]) -> None:
    digest = bytes.fromhex(vector["bytes32_hex"])
    assert cid_from_digest(digest) == vector["cid"]
    assert digest_of(vector["cid"]) == digest


def test_the_cid_of_a_pinned_definition() -> None:
    vector = VECTORS[0]
    pinned = json.dumps(vector["definition"], separators=(",", ":")).encode()
    assert cid_of(pinned) == vector["cid"]


def test_no_result_is_the_all_zero_digest() -> None:
    assert cid_from_digest(NO_RESULT) == "QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51"


# Output of npm's ipfs-unixfs-importer 15 (cidVersion 0, rawLeaves false, 262144, 174 links) for `pattern`.
@pytest.mark.parametrize(
    ("size", "cid", "blocks"),
    [
        (0, "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", 1),
        (1, "QmS9JArPwa55ePgDnyg6TzX24mYTS1b1vLqWNebyVotKxQ", 1),
        (5, "QmVgje7PFxLapvmvTJhWnkYYh7Y5KBumxmuUHy67qRhUKd", 1),
        (262143, "Qmcs8LtRYokjakKJLtzg6fiF6W1a9GN9Fceb6dpJvdnaXS", 1),
        (262144, "QmasoNfqQh2aG4Bv2EV6iBvKouZnHeNXXR7uHkVus5XHe3", 1),
        (262145, "QmVYNScFmwvpXY31qsiAL7xCZY7FDHmGsMf2oHf58CS2z4", 3),
        (600000, "QmdC22ouftcNRcsYVzrJ9Qjtdv1pwUXiQF3nnLfMrjcSvf", 4),
        (1048576, "QmPdJck5pN1HacuZYRHmGXBzVcPiDuYaCWZ3NQtzsf6SxH", 5),
    ],
)
def test_layout_is_kubos(size: int, cid: str, blocks: int) -> None:
    file = build_unixfs(pattern(size))
    assert (file.root, len(file.blocks)) == (cid, blocks)


@pytest.mark.parametrize(
    ("chunks", "tail", "cid", "blocks"),
    [
        (174, 0, "QmS4AAqGFcW9pUuQUeoka1os4u6AbjcXRYFeJ9iD3xE6hx", 65),
        (174, 1, "QmWtq7uDuEvFQhbq2Gzk8qq73zFBY7ELVQ7Dkdjcujmd75", 68),
    ],
)
def test_a_second_level_starts_after_174_chunks(chunks: int, tail: int, cid: str, blocks: int) -> None:
    """The pattern repeats, so equal chunks share a block; the test is about the number of links."""
    row = [bytes((i * 31 + hi * 17) & 255 for i in range(256)) for hi in range(256)]

    def chunk(n: int) -> bytes:
        # (i >> 8) exceeds 255 and (i >> 16) is added; both are taken modulo 256 as in `pattern`.
        return b"".join(
            bytes((b + (block >> 8)) & 255 for b in row[block & 255])
            for block in range(n * 1024, (n + 1) * 1024)
        )

    period = [chunk(n) for n in range(64)]
    data = b"".join(period[n % 64] for n in range(chunks)) + period[chunks % 64][:tail]
    file = build_unixfs(data)
    assert (file.root, len(file.blocks)) == (cid, blocks)


@given(st.binary(max_size=2000))
def test_every_block_hashes_to_its_cid_and_holds_the_bytes(data: bytes) -> None:
    file = build_unixfs(data)
    assert all(block_matches(parse_cid(cid), block) for cid, block in file.blocks.items())
    assert decode(file.blocks[file.root]).record.data == data


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(block: bytes) -> None:
    try:
        node = decode(block)
    except MalformedNode:
        return
    assert node.record.type >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Qm",
        "zzz",
        "é",
        "Qm" + "0" * 44,
        "bafkqaaa",
        "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
    ],
)
def test_cids_that_do_not_fit_on_chain_are_refused(text: str) -> None:
    with pytest.raises(InvalidCid):
        digest_of(text)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidCid, match="32 bytes"):
        cid_from_digest(b"\1" * 31)
