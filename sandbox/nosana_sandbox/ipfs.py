"""A stand-in for IPFS: a gateway, the pinning APIs of Kubo and Pinata, and fault injection.

It stores real blocks under real CIDs (`nosana_operator.content`), so a pinned file has the CID that any IPFS node
would give it. The tests in tests/contract/test_content.py run against this stand-in and against Kubo itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from aiohttp import BodyPartReader, hdrs, web

from nosana_operator.content import ContentError, build_unixfs, dagpb, parse_cid
from nosana_operator.content.cid import inline_block
from nosana_operator.content.dagpb import MalformedNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from multiformats import CID

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_UPLOAD: Final = 64 * 1024 * 1024
_RAW: Final = "application/vnd.ipld.raw"
_FOREVER: Final = "public, max-age=29030400, immutable"
_FAULTS: Final = "/sandbox/faults/"
_SUPPORTED: Final = {
    "cid-version": "0",
    "hash": "sha2-256",
    "chunker": "size-262144",
    "raw-leaves": "false",
    "trickle": "false",
    "max-file-links": "174",
    "inline": "false",
    "wrap-with-directory": "false",
    "only-hash": "false",
}
"""The import settings that this stand-in knows, which are Kubo's defaults: option of `add` → value."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned file."""

    cid: str
    name: str
    size: int
    """Bytes of all blocks of the file."""
    at: datetime


@dataclass(slots=True)
class IpfsStore:
    """Blocks and pins in memory, with faults for tests.

    `unreachable` applies to every request while it is set: an HTTP status replaces the response, `"cut"` closes the
    connection without a response, `"hang"` never responds.
    """

    pins: dict[str, Pin] = field(default_factory=dict)
    trustless: bool = False
    """The gateway serves blocks, but no whole files (Kubo's `Gateway.DeserializedResponses: false`)."""
    import_settings: Mapping[str, str] = field(default_factory=dict)
    """Values for options that a request to `add` does not have (Kubo's `Import.*`)."""
    unreachable: int | Literal["cut", "hang"] | None = None
    _blocks: dict[str, bytes] = field(default_factory=dict)
    _corrupt: dict[str, bytes] = field(default_factory=dict)

    def add(self, data: bytes, name: str = "") -> Pin:
        """Store and pin a file as `ipfs add` does by default (CIDv0, 256 KiB chunks). Safe to repeat."""
        built = build_unixfs(data)
        self._blocks.update(built.blocks)
        size = sum(len(block) for block in built.blocks.values())
        pin = self.pins.get(built.root) or Pin(built.root, name, size, datetime.now(UTC))
        self.pins[built.root] = pin
        return pin

    def put_block(self, data: bytes, *, dag_pb: bool) -> str:
        """Store one block and return its CIDv1."""
        codec = b"\x70" if dag_pb else b"\x55"
        cid = parse_cid(b"\x01" + codec + b"\x12\x20" + hashlib.sha256(data).digest())
        self._blocks[str(_canonical(cid))] = data
        return str(cid.set(base="base32"))

    def block(self, cid: str) -> bytes | None:
        """The block, or None if it is not stored."""
        if cid in self._corrupt:
            return self._corrupt[cid]
        return self._block(parse_cid(cid))

    def file(self, cid: str) -> bytes | None:
        """The file's bytes, or None if one of its blocks is not stored.

        Raises:
            InvalidCid: not a CID, or a kind of CID that is not supported.
            MalformedNode: the blocks are not a UnixFS file.
        """
        if cid in self._corrupt:
            return self._corrupt[cid]
        return self._assemble(parse_cid(cid))

    def forget(self, cid: str) -> None:
        """Delete a file's pin and its root block."""
        self.pins.pop(cid, None)
        self._blocks.pop(cid, None)
        self._corrupt.pop(cid, None)

    def corrupt(self, cid: str, data: bytes) -> None:
        """Serve `data` in place of the content of `cid` from now on."""
        self._corrupt[cid] = data

    def _block(self, cid: CID) -> bytes | None:
        inline = inline_block(cid)
        return self._blocks.get(str(_canonical(cid))) if inline is None else inline

    def _assemble(self, cid: CID) -> bytes | None:
        block = self._block(cid)
        if block is None or cid.codec.name == "raw":
            return block
        node = dagpb.decode(block)
        if node.record.type not in (dagpb.UNIXFS_FILE, dagpb.UNIXFS_RAW):
            raise MalformedNode("not a file")
        parts = [node.record.data]
        for link in node.links:
            part = self._assemble(parse_cid(link.cid))
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)


def ipfs_app(store: IpfsStore, token: str | None = None) -> web.Application:
    """The gateway (`/ipfs/CID`), Kubo's `/api/v0` and Pinata's `/pinning`, over one store.

    Faults are injected below `/sandbox/faults/`: `corrupt/CID` (its body replaces the file), `forget/CID`, and
    `unreachable` with `{"fault": 503 | "cut" | "hang" | null}`. These paths work during every fault.

    Args:
        store: holds the blocks; tests set faults on it directly.
        token: the bearer token that `/pinning` requires; None accepts any token, but requires one.
    """
    service = _Service(store, token)
    app = web.Application(client_max_size=MAX_UPLOAD, middlewares=[service.faults])
    app.router.add_get("/ipfs/{cid}", service.get)
    app.router.add_post("/api/v0/add", service.kubo_add)
    app.router.add_post("/api/v0/pin/ls", service.kubo_pins)
    app.router.add_post("/api/v0/cat", service.kubo_cat)
    app.router.add_post("/api/v0/block/put", service.kubo_put_block)
    app.router.add_post("/api/v0/version", service.kubo_version)
    app.router.add_post("/pinning/pinJSONToIPFS", service.pinata_json)
    app.router.add_post("/pinning/pinFileToIPFS", service.pinata_file)
    app.router.add_get("/data/testAuthentication", service.pinata_authentication)
    app.router.add_post(f"{_FAULTS}corrupt/{{cid}}", service.fault_corrupt)
    app.router.add_post(f"{_FAULTS}forget/{{cid}}", service.fault_forget)
    app.router.add_post(f"{_FAULTS}unreachable", service.fault_unreachable)
    return app


class _Service:
    def __init__(self, store: IpfsStore, token: str | None) -> None:
        self._store = store
        self._token = token

    @web.middleware
    async def faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        fault = self._store.unreachable
        if fault is None or request.path.startswith(_FAULTS):
            return await handler(request)
        if fault == "hang":
            await asyncio.Event().wait()
        if not isinstance(fault, int):
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError
        return web.Response(status=fault, text="fault injected into the sandbox's IPFS\n")

    # Faults

    async def fault_corrupt(self, request: web.Request) -> web.Response:
        self._store.corrupt(request.match_info["cid"], await request.read())
        return web.Response(status=204)

    async def fault_forget(self, request: web.Request) -> web.Response:
        self._store.forget(request.match_info["cid"])
        return web.Response(status=204)

    async def fault_unreachable(self, request: web.Request) -> web.Response:
        """Set or clear (`null`) `IpfsStore.unreachable`."""
        fault = _json_object(await request.read()).get("fault")
        is_status = isinstance(fault, int) and 400 <= fault <= 599
        if fault not in (None, "cut", "hang") and not is_status:
            return web.Response(
                status=400,
                text=f'unknown fault {fault!r}; use a status from 400 to 599, "cut", "hang" or null\n',
            )
        self._store.unreachable = fault
        return web.Response(status=204)

    # Gateway

    async def get(self, request: web.Request) -> web.Response:
        """The file, or with `?format=raw` (or its Accept header) the block."""
        text = request.match_info["cid"]
        form = request.query.get("format") or (
            "raw" if _RAW in request.headers.get(hdrs.ACCEPT, "") else "file"
        )
        if form not in ("file", "raw"):
            return web.Response(status=400, text=f"format {form!r} is not supported; use raw\n")
        if form == "file" and self._store.trustless:
            return web.Response(status=406, text="only trustless requests are accepted on this gateway\n")
        try:
            body = self._store.block(text) if form == "raw" else self._store.file(text)
        except ContentError as error:
            return web.Response(status=400, text=f"invalid path: {error}\n")
        except MalformedNode as error:
            return web.Response(status=501, text=f"{text} cannot be served as a file: {error}\n")
        if body is None:
            return web.Response(status=404, text=f"failed to resolve /ipfs/{text}: not stored\n")
        headers = {hdrs.CACHE_CONTROL: _FOREVER, hdrs.ETAG: f'"{text}"', "X-Ipfs-Path": f"/ipfs/{text}"}
        kind = _RAW if form == "raw" else _sniff(body)
        return web.Response(body=body, content_type=kind, headers=headers)

    # Kubo

    async def kubo_add(self, request: web.Request) -> web.Response:
        """Responds with one JSON line per file of the form. Supports only Kubo's defaults for CIDv0."""
        settings = {**_SUPPORTED, **self._store.import_settings, **request.query}
        for option, value in _SUPPORTED.items():
            if settings[option] != value:
                return _kubo_error(f"only {option}={value} is supported")
        lines = []
        async for name, data in _files(request):
            pin = self._store.add(data, request.query.get("pin-name", name))
            lines.append(json.dumps({"Name": name or pin.cid, "Hash": pin.cid, "Size": str(pin.size)}) + "\n")
        if not lines:
            return _kubo_error("file argument 'path' is required", status=400)
        return web.Response(text="".join(lines), content_type="application/json")

    async def kubo_pins(self, request: web.Request) -> web.Response:
        """All pins, or the pin of the CID `arg`."""
        cid = request.query.get("arg")
        if cid is not None and cid not in self._store.pins:
            return _kubo_error(f"path '{cid}' is not pinned")
        listed = [cid] if cid is not None else list(self._store.pins)
        names = {cid: self._store.pins[cid].name if "names" in request.query else "" for cid in listed}
        return web.json_response(
            {"Keys": {cid: {"Type": "recursive", "Name": name} for cid, name in names.items()}}
        )

    async def kubo_cat(self, request: web.Request) -> web.Response:
        """The bytes of the file `arg`."""
        try:
            data = self._store.file(request.query["arg"])
        except (KeyError, ContentError, MalformedNode) as error:
            return _kubo_error(str(error))
        return _kubo_error("block was not found locally") if data is None else web.Response(body=data)

    async def kubo_put_block(self, request: web.Request) -> web.Response:
        """Stores each file of the form as a block of `cid-codec`, `raw` (the default) or `dag-pb`."""
        dag_pb = request.query.get("cid-codec", "raw") == "dag-pb"
        lines = []
        async for _name, data in _files(request):
            key = self._store.put_block(data, dag_pb=dag_pb)
            lines.append(json.dumps({"Key": key, "Size": len(data)}) + "\n")
        return web.Response(text="".join(lines), content_type="application/json")

    async def kubo_version(self, _request: web.Request) -> web.Response:
        return web.json_response({"Version": "0.0.0", "Commit": "nosana-sandbox", "Repo": "0"})

    # Pinata

    async def pinata_json(self, request: web.Request) -> web.Response:
        """The body is `{"pinataContent": …}` with options, or the object to pin."""
        refused = self._refuse(request)
        if refused is not None:
            return refused
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _pinata_error(400, "INVALID_REQUEST_BODY", "the body is not JSON")
        if not isinstance(body, dict):
            return _pinata_error(400, "INVALID_REQUEST_BODY", "the body is not a JSON object")
        content = body.get("pinataContent", body)
        # Compact as JSON.stringify writes it, so that a client that hashes its own encoding gets the same CID.
        data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        return self._pinned(data, _pinata_name(body.get("pinataMetadata")))

    async def pinata_file(self, request: web.Request) -> web.Response:
        """The body is a form with the file, and with options and metadata as JSON."""
        refused = self._refuse(request)
        if refused is not None:
            return refused
        fields = {name: (filename, data) async for name, filename, data in _parts(request)}
        if "file" not in fields:
            return _pinata_error(400, "INVALID_REQUEST_BODY", "the form has no field named file")
        filename, data = fields["file"]
        options = _json_object(fields.get("pinataOptions", ("", b"{}"))[1])
        if options.get("cidVersion", 0) != 0:
            return _pinata_error(400, "INVALID_REQUEST_BODY", "only cidVersion 0 is supported")
        metadata = _json_object(fields.get("pinataMetadata", ("", b"{}"))[1])
        return self._pinned(data, _pinata_name(metadata) or filename)

    async def pinata_authentication(self, request: web.Request) -> web.Response:
        """Checks the credentials."""
        return self._refuse(request) or web.json_response({"message": "Congratulations!"})

    def _refuse(self, request: web.Request) -> web.Response | None:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        if scheme.lower() == "bearer" and token and self._token in (None, token):
            return None
        return _pinata_error(401, "INVALID_CREDENTIALS", "Invalid/expired credentials")

    def _pinned(self, data: bytes, name: str) -> web.Response:
        before = set(self._store.pins)
        pin = self._store.add(data, name)
        body: dict[str, Any] = {
            "IpfsHash": pin.cid,
            "PinSize": pin.size,
            "Timestamp": pin.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
        if pin.cid in before:
            body["isDuplicate"] = True
        return web.json_response(body)


async def _parts(request: web.Request) -> AsyncIterator[tuple[str, str, bytes]]:
    """The field name, file name and content of each part of a form."""
    if not request.content_type.startswith("multipart/"):
        return
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader):
            yield part.name or "", part.filename or "", bytes(await part.read(decode=True))


async def _files(request: web.Request) -> AsyncIterator[tuple[str, bytes]]:
    async for _name, filename, data in _parts(request):
        yield filename, data


def _canonical(cid: CID) -> CID:
    """The key of a block: its CIDv0 if it is DAG-PB, because CIDv0 and CIDv1 name the same block."""
    return cid.set(base="base58btc", version=0) if cid.codec.name == "dag-pb" else cid.set(base="base32")


def _sniff(body: bytes) -> str:
    return "application/json" if body[:1] in (b"{", b"[") else "application/octet-stream"


def _json_object(text: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _pinata_name(metadata: object) -> str:
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _pinata_error(status: int, reason: str, details: str) -> web.Response:
    return web.json_response({"error": {"reason": reason, "details": details}}, status=status)


def _kubo_error(message: str, status: int = 500) -> web.Response:
    return web.json_response({"Message": message, "Code": 0, "Type": "error"}, status=status)
