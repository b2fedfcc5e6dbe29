"""Pins files as exact bytes, so that their CID is known before the upload.

Nosana's own node pins re-encoded JSON. The CID that settles a job on chain has to be that of the stored bytes, so this
client uploads bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

import aiohttp

from nosana_operator.content.cid import CHUNK_SIZE, cid_of
from nosana_operator.content.errors import PinMismatch, PinRefused, PinUnavailable
from nosana_operator.content.http import BodyTooLarge, read_body

DEFAULT_TIMEOUT: Final = 30.0
_RESPONSE_LIMIT: Final = 64 * 1024
_LABEL: Final = "The pin service"


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
        timeout: seconds for one pin.
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
        self._url = url.rstrip("/")
        self._session = session
        self._headers = {"Authorization": authorization} if authorization else {}
        self._timeout = timeout
        self._label = label

    async def pin(self, data: bytes, name: str) -> str:
        """See `Pinner.pin`."""
        query = {
            "cid-version": "0",
            "raw-leaves": "false",
            "chunker": f"size-{CHUNK_SIZE}",
            "pin": "true",
            "quieter": "true",
        }
        form = aiohttp.FormData()
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
        url = f"{self._url}/api/v0/add"
        response = await _post(self._session, url, form, self._headers, query, self._timeout, self._label)
        return _verified(response.get("Hash"), data, self._label)


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
        self._url = url.rstrip("/")
        self._session = session
        self._headers = {"Authorization": f"Bearer {jwt}"}
        self._timeout = timeout
        self._label = label

    async def pin(self, data: bytes, name: str) -> str:
        """See `Pinner.pin`."""
        form = aiohttp.FormData()
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
        form.add_field("pinataOptions", json.dumps({"cidVersion": 0}))
        form.add_field("pinataMetadata", json.dumps({"name": name}))
        url = f"{self._url}/pinning/pinFileToIPFS"
        response = await _post(self._session, url, form, self._headers, {}, self._timeout, self._label)
        return _verified(response.get("IpfsHash"), data, self._label)


async def _post(
    session: aiohttp.ClientSession,
    url: str,
    form: aiohttp.FormData,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    timeout: float,
    label: str,
) -> dict[str, Any]:
    """Send one POST and return the last JSON object of the response."""
    try:
        async with session.post(
            url,
            data=form,
            headers=headers,
            params=query,
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
        ) as response:
            body = await read_body(response, _RESPONSE_LIMIT)
            status = response.status
    except TimeoutError:
        raise PinUnavailable(f"{label} did not respond in {timeout:g} s; the pin is retried.") from None
    except BodyTooLarge:
        raise PinUnavailable(f"{label} does not respond like a pinning API; check its URL.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise PinUnavailable(
            f"{label} cannot be reached ({type(error).__name__}); the pin is retried."
        ) from None
    except ValueError:
        # A token that is not a valid header value, or a token beside a password in the URL. The error's text has them.
        raise PinRefused(f"{label} has an invalid URL or token; correct its URL or its token.") from None
    if status in (408, 429) or status >= 500:
        raise PinUnavailable(f"{label} responded with HTTP {status}; the pin is retried.")
    if status in (401, 403):
        raise PinRefused(
            f"{label} refused the credentials (HTTP {status}); check the pin credentials' Secret."
        )
    if status != 200:
        raise PinRefused(f"{label} refused the pin (HTTP {status}); check its URL and quota.")
    document = _last_json(body)
    if not isinstance(document, dict):
        raise PinUnavailable(f"{label} did not respond with JSON; check that its URL is a pinning API's.")
    return document


def _last_json(body: bytes) -> object:
    """The JSON value of `body`, or the last one if it has one value per line."""
    for text in (body, body.strip().rsplit(b"\n", 1)[-1]):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return None


def _verified(cid: object, data: bytes, label: str) -> str:
    expected = cid_of(data)
    if cid != expected:
        raise PinMismatch(
            f"{label} stored {str(cid)[:80]!r}, the bytes are {expected}; use a service that stores bytes unchanged."
        )
    return expected
