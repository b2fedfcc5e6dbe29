"""Encodes and decodes DAG-PB nodes and the UnixFS records inside them, as far as files need them.

Both are protobuf messages. Encoding follows two DAG-PB rules, so that blocks and CIDs equal Kubo's: links come before
data (the reverse of their field numbers), and a link always has a name, if an empty one. Decoding raises
`MalformedNode` for everything that these rules do not allow.

No maintained Python package imports files the way Kubo does, and two small messages are easy to own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

UNIXFS_RAW: Final = 0
UNIXFS_DIRECTORY: Final = 1
UNIXFS_FILE: Final = 2

_VARINT: Final = 0
_BYTES: Final = 2


class MalformedNode(ValueError):
    """The bytes are not a DAG-PB node, or its data is not a UnixFS record. Not raised outside this package."""


class TooManyLinks(MalformedNode):
    """The node has more links than the caller allows."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a child: its binary CID (v0: the multihash alone), and the bytes of all blocks in its subtree."""

    cid: bytes
    tsize: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A UnixFS record: inline bytes, and the number of file bytes below this node and below each link."""

    type: int
    data: bytes
    filesize: int
    blocksizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A DAG-PB node that holds a file or a part of one."""

    links: tuple[Link, ...]
    record: FileRecord


def encode_leaf(chunk: bytes) -> bytes:
    """The DAG-PB block of one chunk of a file. As in Kubo, the record of an empty chunk has no data field."""
    inline = _bytes_field(2, chunk) if chunk else b""
    record = _int_field(1, UNIXFS_FILE) + inline + _int_field(3, len(chunk))
    return _bytes_field(1, record)


def encode_inner(children: Sequence[tuple[Link, int]]) -> bytes:
    """The DAG-PB block whose links are `children`; each comes with the number of file bytes below it."""
    links = b"".join(
        _bytes_field(2, _bytes_field(1, link.cid) + _bytes_field(2, b"") + _int_field(3, link.tsize))
        for link, _ in children
    )
    record = _int_field(1, UNIXFS_FILE) + _int_field(3, sum(size for _, size in children))
    record += b"".join(_int_field(4, size) for _, size in children)
    return links + _bytes_field(1, record)


def decode(block: bytes, *, max_links: int | None = None) -> Node:
    """Decode a DAG-PB block with a UnixFS record.

    Raises:
        TooManyLinks: more than `max_links`. In memory a link takes many times its encoded size.
        MalformedNode: invalid protobuf, unknown fields, no record, or another number of sizes than of links.
    """
    links: list[Link] = []
    data: bytes | None = None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes) and data is None:
            if len(links) == max_links:
                raise TooManyLinks(f"more than {max_links} links")
            links.append(_decode_link(value))
        elif number == 1 and isinstance(value, bytes) and data is None:
            data = value
        else:
            raise MalformedNode("unexpected field in a DAG-PB node")
    if data is None:
        raise MalformedNode("DAG-PB node without data")
    record = _decode_record(data)
    if record.blocksizes and len(record.blocksizes) != len(links):
        raise MalformedNode("the number of block sizes differs from the number of links")
    return Node(tuple(links), record)


def _decode_link(message: bytes) -> Link:
    cid, tsize = b"", 0
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            cid = value
        elif number == 3 and isinstance(value, int):
            tsize = value
        elif number != 2:
            raise MalformedNode("unexpected field in a DAG-PB link")
    if not cid:
        raise MalformedNode("DAG-PB link without a hash")
    return Link(cid, tsize)


def _decode_record(message: bytes) -> FileRecord:
    kind, data, filesize = -1, b"", None
    sizes: list[int] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2 and isinstance(value, bytes):
            data = value
        elif number == 3 and isinstance(value, int):
            filesize = value
        elif number == 4 and isinstance(value, int):
            sizes.append(value)
        elif number < 5:
            raise MalformedNode("wrong field type in a UnixFS record")
        # Fields from 5 on (hash type, fan-out, mode, times) do not change the bytes of a file.
    if kind < 0:
        raise MalformedNode("UnixFS record without a type")
    return FileRecord(kind, data, len(data) + sum(sizes) if filesize is None else filesize, tuple(sizes))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at, end = 0, len(message)
    while at < end:
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
        elif wire == _BYTES:
            length, at = _read_varint(message, at)
            if at + length > end:
                raise MalformedNode("truncated field")
            yield number, message[at : at + length]
            at += length
        else:
            raise MalformedNode("unexpected wire type")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise MalformedNode("truncated or overlong number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int_field(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
