"""Fetches files from IPFS gateways without trusting any of them.

The client requests the whole file first and accepts its bytes only if they hash to the CID. A file that was added
with other than the default settings hashes differently, and a trustless gateway does not serve whole files at all
(HTTP 406). The client then fetches the blocks one by one (`?format=raw`), verifies each and joins them:

    GET /ipfs/Qm…root                ─► 200, the bytes hash to Qm…root          ─► done
                                     ─► 200, other bytes; or 406                ─► block by block:
    GET /ipfs/Qm…root?format=raw     ─► verified; it links to leaf 1 and leaf 2
    GET /ipfs/bafk…leaf1?format=raw  ─► verified; bytes 0 to 262,143
    (leaf 2 is an identity CID, which contains its bytes: no request)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp
from multiformats import CID

from nosana_operator.content import dagpb
from nosana_operator.content.cid import block_matches, cid_of, digest_of, inline_block, parse_cid
from nosana_operator.content.errors import (
    ContentMalformed,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    ContentUnreachable,
    InvalidCid,
)
from nosana_operator.content.http import BodyTooLarge, RedirectFailed, error_reason, get, read_body

DEFAULT_SIZE_LIMIT: Final = 1024 * 1024
MAX_BLOCK: Final = 2 * 1024 * 1024
"""Bytes. IPFS nodes do not exchange larger blocks."""
MAX_BLOCKS: Final = 512
MAX_DEPTH: Final = 8
_OVERHEAD: Final = 2
"""All blocks of a file may have this multiple of the size limit. Blocks hold little besides the file's bytes."""

# A compressed response could unpack to more than the limit before its bytes are counted.
_HEADERS: Final = {"Accept-Encoding": "identity"}
RAW_BLOCK: Final = "application/vnd.ipld.raw"
UNSUPPORTED_FORM: Final = frozenset({400, 405, 406, 415, 501})
"""Statuses of a gateway that does not serve whole files (a trustless gateway), or does not serve single blocks."""
_SEARCHED: Final = frozenset({408, 504})
"""Statuses of a gateway that searched for the content and did not find it in time."""


@dataclass(frozen=True, slots=True)
class FetchTimeouts:
    """Seconds for one request, and for all requests to one gateway."""

    request: float = 10.0
    gateway: float = 30.0


class _Unreachable(Exception):
    """This gateway gave no usable response.

    `searched`: perhaps because it searched the network for content that nobody has.
    """

    def __init__(self, reason: str, *, searched: bool = False) -> None:
        super().__init__(reason)
        self.searched = searched


class _UnsupportedForm(Exception):
    """This gateway does not serve whole files, or does not serve single blocks."""


class _NotFound(Exception):
    """This gateway does not have the content."""


class _WrongBytes(Exception):
    """This gateway returned bytes that do not hash to the CID."""


class IpfsGateways:
    """A list of gateways, tried in order.

    Errors name a gateway by its number, starting with 1: its URL may contain a key, and errors about a definition
    are published.

    Args:
        urls: base URLs; `/ipfs/<cid>` is appended.
        session: the caller's HTTP session; not closed here.
        timeouts: how long one request and one gateway may take.
        size_limit: the largest file accepted, in bytes.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        timeouts: FetchTimeouts | None = None,
        size_limit: int = DEFAULT_SIZE_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._session = session
        self._timeouts = timeouts or FetchTimeouts()
        self._size_limit = size_limit
        self._clock = clock

    async def fetch(self, cid: str) -> bytes:
        """The verified bytes of the file `cid`, from the first gateway that has it.

        Raises:
            InvalidCid: `cid` is not a CID, or of a kind that is not supported.
            ContentUnreachable: no gateway had it, and at least one gave no usable response (retryable).
            ContentNotFound: all gateways responded, and at least one does not have it (retryable).
            ContentTooLarge: larger than the limit (final).
            ContentMalformed: the bytes match, but are a folder or malformed (final).
            ContentMismatch: every gateway returned wrong bytes (final).
        """
        root = parse_cid(cid)
        inline = inline_block(root)
        if inline is not None:
            data, children = _read_block(root, root, inline, self._size_limit)
            if len(data) > self._size_limit:
                raise ContentTooLarge(self._too_large(cid))
            if not children:
                return data
        started = self._clock()
        searched = False
        unreachable: list[str] = []
        missing: list[str] = []
        oversized = False
        for number, url in enumerate(self._urls, 1):
            try:
                async with asyncio.timeout(self._timeouts.gateway):
                    return await self._from_gateway(url, root)
            except TimeoutError:
                unreachable.append(f"gateway {number}: no response in {self._timeouts.gateway:g} s")
                searched = True
            except _Unreachable as error:
                unreachable.append(f"gateway {number}: {error}")
                searched = searched or error.searched
            except _NotFound:
                missing.append(f"gateway {number}")
            except BodyTooLarge:
                oversized = True
            except _WrongBytes:
                pass
        seconds = self._clock() - started
        if unreachable or not self._urls:
            raise ContentUnreachable(
                f"{cid} could not be fetched in {seconds:.1f} s "
                f"({'; '.join(unreachable) or 'no gateway is set'}); check the gateways and the network"
                f"{', or nobody has it: check that it is pinned' if searched else ''}.",
                seconds=seconds,
            )
        if missing:
            raise ContentNotFound(
                f"{cid} is not on {', '.join(missing)}; pin it, or add a gateway that has it."
            )
        if oversized:
            raise ContentTooLarge(self._too_large(cid))
        raise ContentMismatch(
            f"The bytes from every gateway hash to another CID than {cid}; add a gateway that returns the right ones."
        )

    async def _from_gateway(self, url: str, root: CID) -> bytes:
        """The file from one gateway. Raises one of the private errors above, or a final `ContentError`."""
        if inline_block(root) is not None:
            return await self._walk(url, root)
        try:
            data = await self._get(f"{url}/ipfs/{root}", self._size_limit)
        except (_UnsupportedForm, BodyTooLarge):
            # Of a file that is too large, only a verified block proves the size: the root states it.
            return await self._walk(url, root)
        verified = (
            block_matches(root, data)
            if root.codec.name == "raw"
            else digest_of(cid_of(data)) == root.raw_digest
        )
        return data if verified else await self._walk(url, root)

    async def _walk(self, url: str, root: CID) -> bytes:
        """Fetch and verify the file block by block, in the order of its bytes."""
        out = bytearray()
        # A file may contain the same block many times; it is decoded once.
        seen: dict[bytes, tuple[bytes, list[CID]]] = {}
        stack: list[tuple[CID, int]] = [(root, 0)]
        visits = taken = 0
        while stack:
            cid, depth = stack.pop()
            visits += 1
            key = bytes(cid)
            if key not in seen:
                block = await self._block(url, cid)
                taken += len(block)
                if taken > _OVERHEAD * self._size_limit:
                    raise ContentTooLarge(
                        f"{root} takes more than {_OVERHEAD * self._size_limit // 1024} KiB of blocks; "
                        "make the file smaller, and add it with IPFS' defaults."
                    )
                # In a worker thread: a hostile block takes up to a quarter of a second to decode.
                seen[key] = await asyncio.to_thread(_read_block, root, cid, block, self._size_limit)
            part, children = seen[key]
            out += part
            if len(out) > self._size_limit:
                raise ContentTooLarge(self._too_large(str(root)))
            if visits + len(stack) + len(children) > MAX_BLOCKS or (children and depth == MAX_DEPTH):
                raise ContentTooLarge(_too_many_blocks(root))
            stack.extend((child, depth + 1) for child in reversed(children))
        return bytes(out)

    async def _block(self, url: str, cid: CID) -> bytes:
        inline = inline_block(cid)
        if inline is not None:
            return inline
        try:
            block = await self._get(f"{url}/ipfs/{cid}?format=raw", MAX_BLOCK, RAW_BLOCK)
        except _UnsupportedForm as error:
            raise _Unreachable(f"{error}, for a single block") from error
        if not block_matches(cid, block):
            raise _WrongBytes
        return block

    async def _get(self, url: str, limit: int, accept: str = "*/*") -> bytes:
        try:
            async with (
                asyncio.timeout(self._timeouts.request),
                get(self._session, url, {**_HEADERS, "Accept": accept}) as response,
            ):
                if response.status in (404, 410):
                    raise _NotFound
                if response.status in UNSUPPORTED_FORM:
                    raise _UnsupportedForm(f"HTTP {response.status}")
                if response.status != 200:
                    raise _Unreachable(f"HTTP {response.status}", searched=response.status in _SEARCHED)
                return await read_body(response, limit)
        except TimeoutError as error:
            raise _Unreachable(f"no response in {self._timeouts.request:g} s", searched=True) from error
        except (aiohttp.ClientError, OSError, RedirectFailed) as error:
            raise _Unreachable(error_reason(error)) from error

    def _too_large(self, cid: str) -> str:
        return f"{cid} is larger than {self._size_limit // 1024} KiB; make the file smaller."


def _read_block(root: CID, cid: CID, block: bytes, limit: int) -> tuple[bytes, list[CID]]:
    """The file bytes in a verified block, and the CIDs of its children."""
    if cid.codec.name == "raw":
        return block, []
    try:
        node = dagpb.decode(block, max_links=MAX_BLOCKS)
    except dagpb.TooManyLinks as error:
        raise ContentTooLarge(_too_many_blocks(root)) from error
    except dagpb.MalformedNode as error:
        raise ContentMalformed(f"{root} is not a file: {error}; add a plain file.") from error
    if node.record.type not in (dagpb.UNIXFS_FILE, dagpb.UNIXFS_RAW):
        kind = "a folder" if node.record.type == dagpb.UNIXFS_DIRECTORY else "not a plain file"
        raise ContentMalformed(f"{root} is {kind}; pin the file itself.")
    if node.record.filesize > limit:
        raise ContentTooLarge(
            f"{root} is {node.record.filesize} bytes, the limit is {limit}; make it smaller."
        )
    try:
        return node.record.data, [parse_cid(link.cid) for link in node.links]
    except InvalidCid as error:
        raise ContentMalformed(f"{root} links to a block that cannot be read: {error}") from error


def _too_many_blocks(root: CID) -> str:
    return f"{root} has more or deeper blocks than allowed; add it in 256 KiB chunks."
