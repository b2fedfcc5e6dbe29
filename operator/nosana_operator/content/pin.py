"""Pins files as exact bytes, so that their CID is known before the upload.

Nosana's own node pins re-encoded JSON. The CID that settles a job on chain has to be that of the stored bytes, so this
client uploads bytes.

A Kubo node imports with the settings in its own configuration (`Import.*`) unless the request has them, and other
settings mean another CID. It also writes the hash before it pins, and reports a later failure in an HTTP trailer of a
response with status 200. So the client sends every setting that the CID depends on, and then asks for the pin:

    POST /api/v0/add?cid-version=0&hash=sha2-256&…   ─► 200 {"Hash": "Qm…"}   the hash, but perhaps no pin
    POST /api/v0/pin/ls?arg=Qm…&type=recursive       ─► 200                   pinned
                                                     ─► 500 "… not pinned"    PinUnavailable: pin again
                                                     ─► 403, 404, …           the node does not say:
    POST /api/v0/cat?arg=Qm…                         ─► 200 and the bytes     stored
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

from nosana_operator.content.cid import CHUNK_SIZE, MAX_LINKS, cid_of, digest_of, parse_cid
from nosana_operator.content.errors import InvalidCid, PinMismatch, PinRefused, PinUnavailable
from nosana_operator.content.http import BodyTooLarge, read_body

DEFAULT_TIMEOUT: Final = 30.0
_RESPONSE_LIMIT: Final = 64 * 1024
_LABEL: Final = "The pin service"
_FILENAME: Final = "file"
"""Not the pin's name: Kubo takes a name with a slash for a path, and would add a folder."""
_MAX_MESSAGE: Final = 300
_MIN_KEY: Final = 6
"""Characters. A shorter part of a URL's path is a word, not a key."""
IMPORT_SETTINGS: Final = {
    "cid-version": "0",
    "hash": "sha2-256",
    "chunker": f"size-{CHUNK_SIZE}",
    "raw-leaves": "false",
    "trickle": "false",
    "max-file-links": str(MAX_LINKS),
    "inline": "false",
    "wrap-with-directory": "false",
    "preserve-mode": "false",
    "preserve-mtime": "false",
}
"""Everything that the CID of a file depends on, as options of Kubo's `add`. Older nodes ignore options they lack."""
_NO_ANSWER: Final = frozenset({401, 403, 404, 405, 410, 501})
"""Statuses of a service without `pin/ls`, or with a token that does not allow it."""


class Pinner(Protocol):
    """A service that pins files on IPFS."""

    async def pin(self, data: bytes, name: str) -> str:
        """Pin `data` and return its CIDv0, always `cid_of(data)`. Safe to repeat.

        Raises:
            PinUnavailable: the outcome is unknown; pin again.
            PinRefused: the service refused credentials, quota or request.
            PinMismatch: the service returned a CID that the bytes do not have.
        """
        ...


class KuboPinner:
    """A Kubo node, or a service with Kubo's `/api/v0/add`.

    Args:
        url: the API's base URL, without `/api/v0`.
        session: the caller's HTTP session; not closed here.
        authorization: the whole `Authorization` header, for a node behind a proxy. Secret.
        timeout: seconds for one request; a pin takes two or three.
        label: the name of the service in errors; its URL may contain a key.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        authorization: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        label: str = _LABEL,
    ) -> None:
        headers = {"Authorization": authorization} if authorization else {}
        self._api = _Api(session, f"{url.rstrip('/')}/api/v0", headers, timeout, label)
        self._label = label

    async def pin(self, data: bytes, name: str) -> str:
        """See `Pinner.pin`."""
        query = {**IMPORT_SETTINGS, "pin": "true", "pin-name": name, "quieter": "true"}
        response = await self._api.post("add", query, _form(data))
        cid = _verified(response.accepted(), "Hash", data, self._label)
        await self._confirm(cid, data)
        return cid

    async def _confirm(self, cid: str, data: bytes) -> None:
        """Raise PinUnavailable or PinRefused unless the node lists the pin or returns the bytes."""
        listed = await self._api.post("pin/ls", {"arg": cid, "type": "recursive"})
        if listed.status in _NO_ANSWER:
            stored = await self._api.post("cat", {"arg": cid}, limit=len(data))
            if stored.status in _NO_ANSWER:
                raise PinRefused(
                    f"{self._label} accepted the file, but refuses to say whether it is pinned (HTTP {listed.status}); "
                    "allow the path /api/v0/pin/ls, too."
                )
            confirmed, last = stored.status == 200 and stored.body == data, stored
        else:
            keys = (listed.document() or {}).get("Keys") if listed.status == 200 else None
            confirmed = isinstance(keys, dict) and any(_same_multihash(key, cid) for key in keys)
            last = listed
        if not confirmed:
            raise PinUnavailable(
                f"{self._label} accepted the file, but did not pin it (HTTP {last.status}{last.detail}); "
                "the pin is retried."
            )


class PinataPinner:
    """Pinata's API, or one of its shape.

    Args:
        url: base URL, for example that of Pinata's API; `/pinning/pinFileToIPFS` is appended.
        session: the caller's HTTP session; not closed here.
        jwt: the account's token. Secret.
        timeout: seconds for one pin.
        label: the name of the service in errors; its URL may contain a key.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        jwt: str,
        timeout: float = DEFAULT_TIMEOUT,
        label: str = _LABEL,
    ) -> None:
        self._api = _Api(session, url.rstrip("/"), {"Authorization": f"Bearer {jwt}"}, timeout, label)
        self._label = label

    async def pin(self, data: bytes, name: str) -> str:
        """See `Pinner.pin`."""
        form = _form(data)
        form.add_field("pinataOptions", json.dumps({"cidVersion": 0}))
        form.add_field("pinataMetadata", json.dumps({"name": name}))
        response = await self._api.post("pinning/pinFileToIPFS", {}, form)
        return _verified(response.accepted(), "IpfsHash", data, self._label)


def _form(data: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    # A large body of bytes would block the event loop while it is written.
    form.add_field("file", io.BytesIO(data), filename=_FILENAME, content_type="application/octet-stream")
    return form


@dataclass(frozen=True, slots=True)
class _Response:
    """A response of a pin service. `detail`: the service's own error message after a colon, or empty."""

    label: str
    status: int
    body: bytes
    detail: str

    def accepted(self) -> dict[str, Any]:
        """The JSON object of a response with status 200. Raises PinUnavailable or PinRefused for other responses."""
        status, detail = self.status, self.detail
        if status in (408, 429) or status >= 500:
            raise PinUnavailable(f"{self.label} responded with HTTP {status}{detail}; the pin is retried.")
        if status in (401, 403):
            raise PinRefused(
                f"{self.label} refused the credentials (HTTP {status}{detail}); check the pin credentials' Secret."
            )
        if status != 200:
            raise PinRefused(
                f"{self.label} refused the pin (HTTP {status}{detail}); check its URL and quota."
            )
        document = self.document()
        if document is None:
            raise PinUnavailable(
                f"{self.label} did not respond with JSON; check that its URL is a pinning API's."
            )
        return document

    def document(self) -> dict[str, Any] | None:
        """The JSON object of the body, or the last one if it has one object per line."""
        return _last_object(self.body)


@dataclass(frozen=True, slots=True)
class _Api:
    """POST requests to one pin service."""

    session: aiohttp.ClientSession
    url: str
    headers: Mapping[str, str]
    timeout: float
    label: str

    async def post(
        self,
        path: str,
        query: Mapping[str, str],
        form: aiohttp.FormData | None = None,
        limit: int = 0,
    ) -> _Response:
        """The response with any status. Its body may have `limit` bytes, and 64 KiB in any case.

        Raises PinUnavailable or PinRefused when there is none.
        """
        try:
            async with self.session.post(
                f"{self.url}/{path}",
                data=form,
                headers=self.headers,
                params=query,
                timeout=aiohttp.ClientTimeout(total=self.timeout),
                allow_redirects=False,
            ) as response:
                body = await read_body(response, max(limit, _RESPONSE_LIMIT))
        except TimeoutError:
            raise PinUnavailable(
                f"{self.label} did not respond in {self.timeout:g} s; the pin is retried."
            ) from None
        except BodyTooLarge:
            raise PinUnavailable(
                f"{self.label} does not respond like a pinning API; check its URL."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise PinUnavailable(
                f"{self.label} cannot be reached ({type(error).__name__}); the pin is retried."
            ) from None
        except ValueError:
            # A token that is not a valid header value, or a token beside a password in the URL; the text has them.
            raise PinRefused(
                f"{self.label} has an invalid URL or token; correct its URL or its token."
            ) from None
        detail = "" if response.status == 200 else self._detail(body)
        return _Response(self.label, response.status, body, detail)

    def _detail(self, body: bytes) -> str:
        """The error message of Kubo (`Message`), Pinata (`error.details`) or others, unless it repeats a secret."""
        document = _last_object(body) or {}
        error = document.get("error")
        candidates = [document.get("Message"), document.get("message"), error]
        if isinstance(error, dict):
            candidates = [error.get("details"), error.get("message"), error.get("reason")]
        message = next((text for text in candidates if isinstance(text, str) and text.strip()), "")
        message = "".join(c if c.isprintable() else " " for c in message[:_MAX_MESSAGE]).strip()
        url = URL(self.url)
        secrets = [self.headers.get("Authorization", "").rpartition(" ")[2], url.user, url.password, url.host]
        secrets += (part for part in url.path.split("/") if len(part) >= _MIN_KEY)
        return f": {message}" if message and not any(word in message for word in secrets if word) else ""


def _last_object(body: bytes) -> dict[str, Any] | None:
    for text in (body, body.strip().rsplit(b"\n", 1)[-1]):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            continue
        return document if isinstance(document, dict) else None
    return None


def _verified(document: Mapping[str, Any], field: str, data: bytes, label: str) -> str:
    """The CIDv0 of `data`. Raises unless the document names it, as CIDv0 or CIDv1."""
    cid, expected = document.get(field), cid_of(data)
    if not isinstance(cid, str):
        raise PinUnavailable(f"{label} did not return a CID; check that its URL is a pinning API's.")
    if not _same_multihash(cid, expected):
        raise PinMismatch(
            f"{label} stored {cid[:80]!r}, the bytes are {expected}; use a service that stores bytes unchanged."
        )
    return expected


def _same_multihash(cid: str, expected: str) -> bool:
    """Whether `cid` names the same block as the CIDv0 `expected`: a CIDv1 of it has the same multihash."""
    try:
        parsed = parse_cid(cid)
    except InvalidCid:
        return False
    return parsed.hashfun.name == "sha2-256" and bytes(parsed.raw_digest) == digest_of(expected)
