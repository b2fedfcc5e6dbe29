"""Pinning a file as exact bytes, so that its CID is known before and the same after.

Nosana's own node pins re-encoded JSON; we hand over bytes, because a settled CID must mean what was stored.
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
_ANSWER_LIMIT: Final = 64 * 1024
_CALLED: Final = "The pin service"


class Pinner(Protocol):
    """A place that keeps files on IPFS."""

    async def pin(self, data: bytes, name: str) -> str:
        """Keep `data` and return its CIDv0, which is always `cid_of(data)`. Safe to repeat.

        Raises:
            PinUnavailable: outcome unknown; pin again.
            PinRefused: credentials, quota or request refused.
            PinMismatch: the service named another CID than the bytes have.
        """
        ...


class KuboPinner:
    """A Kubo node, or a service with Kubo's `/api/v0/add`.

    Args:
        url: the API's base URL, without `/api/v0`.
        session: the caller's HTTP session; not closed here.
        authorization: the whole `Authorization` header, for a node behind a proxy. Secret.
        timeout: seconds for one pin.
        called: what errors call it: its URL may hold a key.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        authorization: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        called: str = _CALLED,
    ) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._headers = {"Authorization": authorization} if authorization else {}
        self._timeout = timeout
        self._called = called

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
        answer = await _post(self._session, url, form, self._headers, query, self._timeout, self._called)
        return _checked(answer.get("Hash"), data, self._called)


class PinataPinner:
    """Pinata's API, or one of its shape.

    Args:
        url: base URL, for example that of Pinata's API; `/pinning/pinFileToIPFS` is appended.
        session: the caller's HTTP session; not closed here.
        jwt: the account's token. Secret.
        timeout: seconds for one pin.
        called: what errors call it: its URL may hold a key.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        jwt: str,
        timeout: float = DEFAULT_TIMEOUT,
        called: str = _CALLED,
    ) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._headers = {"Authorization": f"Bearer {jwt}"}
        self._timeout = timeout
        self._called = called

    async def pin(self, data: bytes, name: str) -> str:
        """See `Pinner.pin`."""
        form = aiohttp.FormData()
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
        form.add_field("pinataOptions", json.dumps({"cidVersion": 0}))
        form.add_field("pinataMetadata", json.dumps({"name": name}))
        url = f"{self._url}/pinning/pinFileToIPFS"
        answer = await _post(self._session, url, form, self._headers, {}, self._timeout, self._called)
        return _checked(answer.get("IpfsHash"), data, self._called)


async def _post(
    session: aiohttp.ClientSession,
    url: str,
    form: aiohttp.FormData,
    headers: Mapping[str, str],
    query: Mapping[str, str],
    timeout: float,
    called: str,
) -> dict[str, Any]:
    """One POST; the last JSON object of the answer."""
    try:
        async with session.post(
            url,
            data=form,
            headers=headers,
            params=query,
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
        ) as response:
            body = await read_body(response, _ANSWER_LIMIT)
            status = response.status
    except TimeoutError:
        raise PinUnavailable(f"{called} did not answer in {timeout:g} s; it is asked again.") from None
    except BodyTooLarge:
        raise PinUnavailable(f"{called} did not answer as a pinning API does; check the URL.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise PinUnavailable(
            f"{called} cannot be reached ({type(error).__name__}); it is asked again."
        ) from None
    except ValueError:
        # A token that no header can hold, or beside a password in the URL; its text would show them.
        raise PinRefused(f"{called} cannot be asked as set up; correct its URL or its token.") from None
    if status in (408, 429) or status >= 500:
        raise PinUnavailable(f"{called} answered HTTP {status}; it is asked again.")
    if status in (401, 403):
        raise PinRefused(
            f"{called} refused the credentials (HTTP {status}); check the pin credentials' Secret."
        )
    if status != 200:
        raise PinRefused(f"{called} refused the pin (HTTP {status}); check its URL and quota.")
    answer = _last_json(body)
    if not isinstance(answer, dict):
        raise PinUnavailable(f"{called} did not answer with JSON; check that it is a pinning API.")
    return answer


def _last_json(body: bytes) -> object:
    """The one JSON value of `body`, or the last of several written one per line."""
    for text in (body, body.strip().rsplit(b"\n", 1)[-1]):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return None


def _checked(named: object, data: bytes, called: str) -> str:
    expected = cid_of(data)
    if named != expected:
        raise PinMismatch(
            f"{called} stored {str(named)[:80]!r}, the bytes are {expected}; use one that stores bytes as sent."
        )
    return expected
