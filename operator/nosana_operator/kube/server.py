"""The API server's version and clock."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from nosana_operator.kube.errors import KubeRefused, KubeUnavailable

_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """Major and minor as numbers, and the version as the server spells it."""

    major: int
    minor: int
    text: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The API server's answer to one request."""

    version: ServerVersion
    seconds: float
    """How long the request took."""
    clock_offset: float | None
    """Seconds by which its clock is ahead of ours, exact to about one; None: the answer had no Date header."""


def read_version(body: bytes) -> ServerVersion:
    """Parse the answer of `/version`. Raises KubeUnavailable when it is something else."""
    try:
        version: Any = json.loads(body)
        # Some distributions write the minor as "31+".
        major, minor = (int(re.sub(r"\D.*", "", str(version[part]))) for part in ("major", "minor"))
    except (ValueError, KeyError, TypeError):
        raise KubeUnavailable(
            "The Kubernetes API did not give its version; check that its address is the API server's."
        ) from None
    return ServerVersion(major, minor, str(version.get("gitVersion") or f"v{major}.{minor}"))


async def ask_server(session: aiohttp.ClientSession) -> ServerFacts:
    """Request the version once (`session`: see `Credentials.open_session`).

    Raises:
        KubeUnavailable: no usable answer.
        KubeRefused: it does not accept these credentials.
    """
    began, asked_at = time.monotonic(), time.time()
    try:
        async with asyncio.timeout(_SECONDS), session.get("/version") as response:
            body, status, date = await response.read(), response.status, response.headers.get("Date")
    except TimeoutError:
        raise KubeUnavailable(f"The Kubernetes API gave no answer in {_SECONDS:g} s.") from None
    except (aiohttp.ClientError, OSError) as error:
        raise KubeUnavailable(
            f"The Kubernetes API cannot be reached: {error or type(error).__name__}."
        ) from error
    seconds = time.monotonic() - began
    if status in (401, 403):
        raise KubeRefused(
            f"The Kubernetes API does not accept these credentials (HTTP {status}).", code=status
        )
    if status != 200:
        raise KubeUnavailable(f"The Kubernetes API answered /version with HTTP {status}.", code=status)
    return ServerFacts(read_version(body), seconds, _offset(date, asked_at + seconds / 2))


def _offset(date: str | None, now: float) -> float | None:
    try:
        server = parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
    # A Date header has whole seconds, so on average half a second has passed since.
    return None if server is None else server + 0.5 - now
